"""Evaluation of a ResNet's features on ImageNet: kNN, linear and semi-supervised."""
