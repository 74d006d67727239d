"""The table of classes: a shape, what each layout calls it, and the texture it prefers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ShapeClass:
    """One class of the set."""

    name: str  # ImageFolder's folder, COCO's category and the outline
    coco_id: int  # as in the real COCO, ids have gaps and don't start at 0
    voc_name: str  # stand-in among VOC's 20 names, which VOC loaders insist on
    texture: str  # of most of its objects (scenes.TEXTURE_LOYALTY); the others have any


# In alphabetical order with ascending ids: the index of a class in this table is also its index
# for torchvision's ImageFolder and among COCO's sorted ids.
TABLE = (
    ShapeClass("crescent", 3, "boat", "stripes"),
    ShapeClass("cross", 7, "aeroplane", "checks"),
    ShapeClass("disc", 18, "bicycle", "dots"),
    ShapeClass("square", 44, "tvmonitor", "bricks"),
    ShapeClass("star", 62, "person", "blotches"),
    ShapeClass("triangle", 88, "cat", "zigzag"),
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
