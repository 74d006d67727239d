"""What Detectron2 0.6 (2021) needs to run on current libraries and without compiled operators.

Each :class:`Patch` is a plain text replacement with the number of places where it must match, and
:func:`apply_patches` refuses a source that differs: a patch that silently misses would come back
as a crash in the middle of somebody's training run. No patch changes a computed number.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

NOTICE = "\n# Modified by lewel-transfer's tools/detectron2_patches.py for current libraries.\n"
"""Appended to every changed file, as the Apache licence (section 4b) asks."""

COMPILED_OPS = '''\
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


class PatchError(Exception):
    """A source is not the one that the patches were written for."""


@dataclass(frozen=True)
class Patch:
    """Replace ``old`` by ``new`` in ``path``, where it occurs exactly ``count`` times."""

    path: str
    old: str
    new: str
    count: int = 1

    def __call__(self, text: str) -> str:
        """Return ``text`` with the replacement made.

        Raises:
            PatchError: ``old`` does not occur exactly ``count`` times.
        """
        found = text.count(self.old)
        if found != self.count:
            raise PatchError(
                f"{self.path}: expected {self.old!r} {self.count} times but found it {found} times"
            )
        return text.replace(self.old, self.new)


_USE_STAND_IN = ("from detectron2 import _C\n", "from detectron2.utils.compiled_ops import _C\n")
_MESHGRID = "torch.meshgrid(shifts_y, shifts_x"
_COORD_GRID = "torch.arange(width, dtype=offsets.dtype, device=offsets.device),\n"
_MODEL_ZOO = "detectron2/model_zoo/model_zoo.py"
_TRAIN_LOOP = "detectron2/engine/train_loop.py"
_RESOURCE_FILENAME = """pkg_resources.resource_filename(
        "detectron2.model_zoo", os.path.join("configs", config_path)
    )"""
_RESOURCE_FILES = """str(
        importlib.resources.files("detectron2.model_zoo").joinpath("configs", config_path)
    )"""

PATCHES: tuple[Patch, ...] = (
    # Mask R-CNN needs no compiled operator: RoIAlign and NMS are torchvision's.
    Patch("detectron2/layers/deform_conv.py", *_USE_STAND_IN),
    Patch("detectron2/layers/rotated_boxes.py", *_USE_STAND_IN),
    Patch("detectron2/layers/roi_align_rotated.py", *_USE_STAND_IN),
    # The compiled COCOeval is an optimisation of pycocotools: fall back to the latter, as
    # Detectron2's later versions do.
    Patch(
        "detectron2/evaluation/coco_evaluation.py",
        "from detectron2.evaluation.fast_eval_api import COCOeval_opt\n",
        "\ntry:\n"
        "    from detectron2.evaluation.fast_eval_api import COCOeval_opt\n"
        "except ImportError:\n"
        "    COCOeval_opt = COCOeval\n",
    ),
    # Caffe2 no longer exists; its exporter must not take the rest of the package (TracingAdapter,
    # which the FLOP counter uses) with it.
    Patch(
        "detectron2/export/__init__.py",
        "from .api import *\n",
        "try:\n    from .api import *\nexcept ImportError:\n    pass  # needs caffe2 and onnx\n",
    ),
    # NumPy 1.24 removed the aliases of Python's own types.
    Patch("detectron2/data/build.py", "dtype=np.int", "dtype=int", 2),
    Patch("detectron2/data/datasets/pascal_voc.py", "dtype=np.str)", "dtype=str)"),
    Patch("detectron2/evaluation/pascal_voc_evaluation.py", "np.bool)", "bool)", 2),
    Patch("detectron2/evaluation/sem_seg_evaluation.py", "dtype=np.int)", "dtype=int)", 2),
    Patch("detectron2/evaluation/sem_seg_evaluation.py", "np.float)", "float)", 5),
    Patch("detectron2/structures/masks.py", "np.bool)", "bool)", 3),
    Patch("detectron2/utils/visualizer.py", "np.bool)", "bool)", 3),
    Patch("detectron2/utils/video_visualizer.py", "np.bool)", "bool)"),
    # NumPy 2: copy=False means "never copy" and raises where it must; asarray is the old meaning.
    Patch("detectron2/layers/mask_ops.py", "np.array(mask, copy=False)", "np.asarray(mask)"),
    # Pillow 10 removed LINEAR, a second name for BILINEAR.
    Patch("detectron2/data/transforms/transform.py", "Image.LINEAR", "Image.BILINEAR"),
    # setuptools 82 removed pkg_resources.
    Patch(_MODEL_ZOO, "import pkg_resources\n", ""),
    Patch(_MODEL_ZOO, "import os\n", "import importlib.resources\nimport os\n"),
    Patch(_MODEL_ZOO, _RESOURCE_FILENAME, _RESOURCE_FILES),
    # torch warns that the default indexing, "ij", will change.
    Patch("detectron2/modeling/anchor_generator.py", _MESHGRID, f'{_MESHGRID}, indexing="ij"'),
    Patch(
        "projects/Panoptic-DeepLab/panoptic_deeplab/post_processing.py",
        _COORD_GRID,
        f'{_COORD_GRID}        indexing="ij",\n',
    ),
    # torch.cuda.amp is deprecated in favour of torch.amp with a device type.
    Patch(_TRAIN_LOOP, "from torch.cuda.amp import", "from torch.amp import", 2),
    Patch(_TRAIN_LOOP, "= GradScaler()", '= GradScaler("cuda")'),
    Patch(_TRAIN_LOOP, "with autocast():", 'with autocast("cuda"):'),
)

ADDED_FILES: Mapping[str, str] = {"detectron2/utils/compiled_ops.py": COMPILED_OPS}

REQUIREMENT_CHANGES: Mapping[str, str | None] = {
    "black==21.4b2": None,  # only LazyConfig.to_py imports it, when called
    "future": None,  # for Caffe2, which no longer exists
    "pydot": None,  # likewise
    "iopath<0.1.10,>=0.1.7": "iopath>=0.1.7",  # 0.1.10 works
}
"""Requirement as the release states it -> what to state instead; None drops it."""


def apply_patches(
    files: Mapping[str, bytes],
    patches: Iterable[Patch] = PATCHES,
    added: Mapping[str, str] = ADDED_FILES,
) -> dict[str, bytes]:
    """Return ``files`` (path -> content) with ``patches`` applied and the ``added`` files.

    Raises:
        PatchError: a file is missing or already there, or a patch does not match.
    """
    result = dict(files)
    changed = set()
    for patch in patches:
        if patch.path not in result:
            raise PatchError(f"{patch.path}: not in the source")
        result[patch.path] = patch(result[patch.path].decode()).encode()
        changed.add(patch.path)
    for path in changed:
        result[path] += NOTICE.encode()
    for path, text in added.items():
        if path in result:
            raise PatchError(f"{path}: already in the source")
        result[path] = text.encode()
    return result


def change_requirements(
    requirements: Iterable[str], changes: Mapping[str, str | None] = REQUIREMENT_CHANGES
) -> list[str]:
    """Return the requirements as they hold today.

    Raises:
        PatchError: a requirement that should change is not among them.
    """
    stated = list(requirements)
    if missing := sorted(set(changes) - set(stated)):
        raise PatchError(f"requirements: expected {', '.join(missing)} but the source has none")
    return [new for old in stated if (new := changes.get(old, old)) is not None]
