"""LEWEL_B, LEWEL on BYOL: Huang et al., CVPR 2022 (arXiv 2203.14898)."""

from pretrain.method import Method, Recipe

METHOD = Method(
    name="lewel_b",
    title="LEWEL_B",
    recipes=(
        Recipe("eman", 100, 1024, 3.6, 1e-6, 0.98, 10, "LEWEL's published log of 100 epochs", True),
        Recipe("eman", 200, 1024, 3.6, 1.5e-6, 0.98, 10, "LEWEL's release script", False),
        Recipe("syncbn", 400, 4096, 7.2, 1e-6, 0.996, 10, "LEWEL's release script", True),
    ),
    archs={"eman": "LEWELB_EMAN", "syncbn": "LEWELB"},
    defaults={
        "adapt_mlp_norms": False,
        "proj_dim": 256,
        "hidden_dim": 4096,
        "neck_layers": 2,
        "heads": 4,
        "scale": 1.0,
        "loss_weight": 0.5,
    },
    model="pretrain.lewel:LEWEL",
    views="pretrain.augment:byol_views",
    optimizer="pretrain.optimizer:lars",
)
