"""LEWEL_M, LEWEL's neck on MoCo v2: Huang et al., CVPR 2022 (arXiv 2203.14898).

It was never released. From the paper: the neck with its two branches on MoCo v2, the same
contrastive loss on aligned vectors, the weights of the branches, MoCo v2's hyper-parameters. Our
choices: the neck's MLPs have BatchNorm as LEWEL_B's do and MoCo v2's width of 2048; the loss is not
symmetric, as in MoCo; the aligned vectors have a queue of their own, of as many vectors, into
which each step puts one aligned vector of each image, drawn at random.
"""

from pretrain.method import Method, Recipe

_SOURCE = "MoCo v2's hyper-parameters, as the paper says; never released"

METHOD = Method(
    name="lewel_m",
    title="LEWEL_M (re-implementation)",
    recipes=(
        Recipe("eman", 200, 256, 0.03, 1e-4, 0.999, 0, _SOURCE, unlike="re-implementation"),
        Recipe("shufflebn", 200, 256, 0.03, 1e-4, 0.999, 0, _SOURCE, unlike="re-implementation"),
    ),
    archs={"eman": "LEWELM_EMAN", "shufflebn": "LEWELM"},
    defaults={
        "proj_dim": 128,
        "hidden_dim": 2048,
        "neck_layers": 2,
        "heads": 4,
        "scale": 1.0,
        "loss_weight": 0.5,
        "queue_size": 65536,
        "temperature": 0.2,
    },
    model="pretrain.lewel_m:LEWELM",
    views="pretrain.augment:moco_views",
    optimizer="pretrain.optimizer:sgd",
    note="never released: the module's docstring tells the paper from our choices",
)
