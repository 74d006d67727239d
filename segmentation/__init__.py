"""Checkpoint in, Pascal VOC mIoU out.

Importing this package registers what ``det_configs/*.yaml`` name beyond Detectron2's own and
``detection``'s: the meta architecture ``FCN``, ``build_dilated_resnet_backbone``, VOC 2012's
segmentation sets and the embedded ones, and how a ``sem_seg`` set is trained for and evaluated.
"""

from segmentation import backbone, datasets, evaluation, fcn

__all__ = ["backbone", "datasets", "evaluation", "fcn"]
