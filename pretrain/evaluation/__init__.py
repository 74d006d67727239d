"""What a ResNet's features know of ImageNet: kNN, linear and semi-supervised evaluation."""
