"""Changes to Detectron2 0.6 (2021) for current libraries and for use without compiled operators.

The source is pinned by its hash, and a text that is not in it stops the set-up. No change touches
a computed number.
"""

NOTICE = "\n# Modified by lewel-transfer's tools/detectron2_patches.py for current libraries.\n"
"""Appended to every changed file, as the Apache licence (section 4b) asks."""

_STAND_IN = {"detectron2 import _C": "detectron2.utils.compiled_ops import _C"}

CHANGES: dict[str, dict[str, str]] = {
    # Mask R-CNN needs no compiled operator: RoIAlign and NMS are torchvision's.
    "detectron2/layers/deform_conv.py": _STAND_IN,
    "detectron2/layers/rotated_boxes.py": _STAND_IN,
    "detectron2/layers/roi_align_rotated.py": _STAND_IN,
    # The compiled COCOeval is a faster pycocotools: fall back to that, as later versions do.
    "detectron2/evaluation/coco_evaluation.py": {
        "from detectron2.evaluation.fast_eval_api import COCOeval_opt\n": (
            "\ntry:\n    from detectron2.evaluation.fast_eval_api import COCOeval_opt\n"
            "except ImportError:\n    COCOeval_opt = COCOeval\n"
        )
    },
    # Caffe2 no longer exists; its exporter must not take the rest of the package (TracingAdapter,
    # which the FLOP counter uses) with it.
    "detectron2/export/__init__.py": {
        "from .api import *\n": "try:\n    from .api import *\n"
        "except ImportError:\n    pass  # needs caffe2 and onnx\n"
    },
    # NumPy 1.24 removed the aliases of Python's own types.
    "detectron2/data/build.py": {"dtype=np.int": "dtype=int"},
    "detectron2/data/datasets/pascal_voc.py": {"dtype=np.str)": "dtype=str)"},
    "detectron2/evaluation/pascal_voc_evaluation.py": {"np.bool)": "bool)"},
    "detectron2/evaluation/sem_seg_evaluation.py": {"np.int)": "int)", "np.float)": "float)"},
    "detectron2/structures/masks.py": {"np.bool)": "bool)"},
    "detectron2/utils/visualizer.py": {"np.bool)": "bool)"},
    "detectron2/utils/video_visualizer.py": {"np.bool)": "bool)"},
    # NumPy 2: copy=False means "never copy" and raises where it must; asarray is the old meaning.
    "detectron2/layers/mask_ops.py": {"np.array(mask, copy=False)": "np.asarray(mask)"},
    # Pillow 10 removed LINEAR, a second name for BILINEAR.
    "detectron2/data/transforms/transform.py": {"Image.LINEAR": "Image.BILINEAR"},
    # setuptools 82 removed pkg_resources.
    "detectron2/model_zoo/model_zoo.py": {
        "import pkg_resources\n": "",
        "import os\n": "import importlib.resources\nimport os\n",
        'pkg_resources.resource_filename(\n        "detectron2.model_zoo", os.path.join(': (
            'str(\n        importlib.resources.files("detectron2.model_zoo").joinpath('
        ),
    },
    # torch warns that the default indexing, "ij", will change.
    "detectron2/modeling/anchor_generator.py": {
        "meshgrid(shifts_y, shifts_x": 'meshgrid(shifts_y, shifts_x, indexing="ij"'
    },
    "projects/Panoptic-DeepLab/panoptic_deeplab/post_processing.py": {
        "(width, dtype=offsets.dtype, device=offsets.device),\n": (
            '(width, dtype=offsets.dtype, device=offsets.device),\n        indexing="ij",\n'
        )
    },
    # torch.cuda.amp is deprecated in favour of torch.amp with a device type.
    "detectron2/engine/train_loop.py": {
        "torch.cuda.amp import": "torch.amp import",
        "= GradScaler()": '= GradScaler("cuda")',
        "with autocast():": 'with autocast("cuda"):',
    },
}
"""Path -> {text: its replacement, wherever it is}."""

ADDED = {
    "detectron2/utils/compiled_ops.py": '''\
"""The compiled operators, or a stand-in that names what is missing when one is used."""

try:
    from detectron2 import _C
except ImportError:

    class _NotCompiled:
        def __getattr__(self, name):
            if name.startswith("__"):  # copy, pickle and inspect probe for these
                raise AttributeError(name)
            raise ImportError(
                f"detectron2._C.{name} is not available: this Detectron2 was installed without "
                "compiled operators; install it from source to use deformable convolutions, "
                "rotated boxes or the compiled COCO evaluation"
            )

    _C = _NotCompiled()
'''
}
"""New files."""

REQUIREMENTS = {
    "black==21.4b2": "",  # only LazyConfig.to_py imports it, when called
    "future": "",  # for Caffe2, which no longer exists
    "pydot": "",  # likewise
    "iopath<0.1.10,>=0.1.7": "iopath>=0.1.7",  # 0.1.10 works
}
"""Requirement as the release states it -> as it holds today, if it does."""

PACKAGES = {
    "detectron2/": "detectron2/",
    "projects/PointRend/point_rend/": "detectron2/projects/point_rend/",
    "projects/DeepLab/deeplab/": "detectron2/projects/deeplab/",
    "projects/Panoptic-DeepLab/panoptic_deeplab/": "detectron2/projects/panoptic_deeplab/",
}
"""Folder in the source -> in site-packages, as the release's setup.py has it. The package
``tools``, which the release also installs, is left out: its name is anybody's."""


def changed(path: str, content: bytes) -> bytes:
    """The content of a source file with its changes made."""
    if path not in CHANGES:
        return content
    text = content.decode()
    for old, new in CHANGES[path].items():
        assert old in text, f"{path}: {old!r} is not in it"
        text = text.replace(old, new)
    return (text + NOTICE).encode()
