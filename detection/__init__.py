"""Checkpoint in, box and mask AP out.

Importing this package registers what ``det_configs/*.yaml`` name beyond Detectron2's own:
``Res5ROIHeadsExtraNorm`` and the ``demo_*`` datasets.
"""

from detection import datasets, roi_heads

__all__ = ["datasets", "roi_heads"]
