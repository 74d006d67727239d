"""MoCo v2: Chen et al., 2020 (arXiv 2003.04297)."""

from pretrain.method import Method, Recipe

METHOD = Method(
    name="moco_v2",
    title="MoCo v2",
    recipes=(
        Recipe("shufflebn", 200, 256, 0.03, 1e-4, 0.999, 0, "MoCo's release, README"),
        Recipe(
            *("eman", 200, 256, 0.03, 1e-4, 0.999, 0, "MoCo's release, README; EMAN for norm"),
            unlike="EMAN",
        ),
    ),
    archs={"shufflebn": "MOCOV2", "eman": "MOCOV2_EMAN"},
    defaults={"proj_dim": 128, "queue_size": 65536, "temperature": 0.2},
    model="pretrain.moco:MoCo",
    views="pretrain.augment:moco_views",
    optimizer="pretrain.optimizer:sgd",
)
