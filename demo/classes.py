"""The table of classes: a texture, and what each layout calls it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Texture:
    """One class of the set."""

    name: str  # ImageFolder's folder, COCO's category and the pattern
    coco_id: int  # as in the real COCO, ids have gaps and don't start at 0
    voc_name: str  # stand-in among VOC's 20 names, which VOC loaders insist on


# In alphabetical order with ascending ids: the index of a class in this table is also its index
# for torchvision's ImageFolder and among COCO's sorted ids.
TABLE = (
    Texture("bricks", 3, "boat"),
    Texture("checks", 7, "aeroplane"),
    Texture("crosses", 18, "bicycle"),
    Texture("dots", 44, "tvmonitor"),
    Texture("rings", 62, "person"),
    Texture("stripes", 73, "sheep"),
    Texture("triangles", 80, "train"),
    Texture("zigzag", 88, "cat"),
)

# The 20 classes in the order of the VOC development kit; masks count them from 1.
VOC_CLASSES = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor".split()
)

CLASSES = tuple(row.name for row in TABLE)
COCO_IDS = tuple(row.coco_id for row in TABLE)
VOC_NAMES = tuple(row.voc_name for row in TABLE)
VOC_INDICES = tuple(1 + VOC_CLASSES.index(row.voc_name) for row in TABLE)
