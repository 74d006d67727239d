"""BYOL: Grill et al., NeurIPS 2020 (arXiv 2006.07733); LEWEL_B without its aligned branch."""

from dataclasses import replace

from pretrain.method import Method
from pretrain.methods import lewel_b

_SAME = "LEWEL_B's recipe, our choice: the two then differ in the aligned branch alone"

METHOD = Method(
    name="byol",
    title="BYOL",
    recipes=tuple(
        replace(recipe, source=_SAME, unlike="LEWEL_B's recipe")
        for recipe in lewel_b.METHOD.recipes
    ),
    archs={"eman": "BYOL_EMAN", "syncbn": "BYOL"},
    defaults={"adapt_mlp_norms": False, "proj_dim": 256, "hidden_dim": 4096, "neck_layers": 2},
    model="pretrain.byol:BYOL",
    views="pretrain.augment:byol_views",
    optimizer="pretrain.optimizer:lars",
)
