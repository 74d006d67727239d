"""Checkpoint in, Pascal VOC mIoU out.

Importing this package registers what ``det_configs/*.yaml`` name beyond Detectron2's own and
``detection``'s: the meta architectures ``FCN`` and ``FCND8`` with their heads,
``build_dilated_resnet_backbone``, VOC 2012's segmentation sets and the embedded ones.
"""

import sys

# While Python looks for the module of ``python -m segmentation.train_aug``, which needs no network.
if not (sys.argv[:1] == ["-m"] and "segmentation.train_aug" in sys.orig_argv):
    from segmentation import backbone, datasets, fcn

    __all__ = ["backbone", "datasets", "fcn"]
