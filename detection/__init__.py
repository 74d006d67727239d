"""Checkpoint in, box and mask AP out.

Importing this package registers what ``det_configs/*.yaml`` name beyond Detectron2's own:
``Res5ROIHeadsExtraNorm`` and the ``demo_*`` datasets.
"""

import sys

# While Python looks for the module of ``python -m detection.convert``, which needs none of this.
if not (sys.argv[:1] == ["-m"] and "detection.convert" in sys.orig_argv):
    from detection import datasets, roi_heads

    __all__ = ["datasets", "roi_heads"]
