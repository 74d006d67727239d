"""Formats of checkpoints of self-supervised ResNets: one table, one row a format.

A checkpoint is a dict that holds dicts of tensors, its containers. A format is known by what is in
the file, never by the file's name: where the backbone is, and what else is there. The names are
those of the methods' own repositories; :mod:`common.backbones` reads the table.

A row that names its method has a rule for everything that the method's own code saves. Tensors that
no rule explains are of another method, whose figures must not be compared with this one's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

STATE = ("state_dict", "")  # or a state_dict that was saved by itself
MODEL = ("model", "")
VISSL_TRUNK = "classy_state_dict/base_model/model/trunk"

# The tensors of a layer: convolutions and linear ones, BatchNorm with and without affine weights.
WEIGHT = "weight"
LINEAR = "weight bias"
PLAIN_NORM = "running_mean running_var num_batches_tracked"
NORM = f"{LINEAR} {PLAIN_NORM}"
ITSELF = ""  # what is no layer but a tensor


@dataclass(frozen=True)
class Place:
    """The place of a network: in one of the containers, behind one of the prefixes."""

    containers: tuple[str, ...]  # keys that lead to a dict of tensors, joined by "/"; "": the file
    prefixes: tuple[str, ...]  # of the backbone's tensors, without ``module.``


@dataclass(frozen=True)
class Format:
    """A kind of checkpoint.

    Names are without ``module.``. Patterns are regular expressions in which a dot is a dot. Keys
    that lead to something are joined by "/".
    """

    name: str
    online: Place  # of the network that gradients trained
    target: Place | None = None  # of the one that followed it by EMA, if there is one
    # Beginnings (patterns) of tensors' names or keys of the file that must be there too: they tell
    # formats with the same place apart.
    companions: tuple[str, ...] = ()
    method: str = ""  # as results tables call it; "" where many methods write it
    # All that may be there beside the networks: {pattern of a layer's name: its tensors}. The name
    # begins with the container and "/" where that holds no network.
    rest: Mapping[str, str] = field(default_factory=dict)
    again: Place | None = None  # of the online network a second time
    told: str = ""  # where the file itself names its method
    epoch: str = "epoch"  # where it says how many are done; read where the method is known


def _in(containers: tuple[str, ...], *prefixes: str) -> Place:
    return Place(containers, prefixes)


def _mlp(name: str) -> dict[str, str]:
    """EMAN's and LEWEL's MLP, of two layers or more."""
    return {f"{name}.mlp.[0369]": WEIGHT, f"{name}.mlp.[147]": NORM}


_ONLINE, _TARGET = _in(STATE, "online_net.backbone."), _in(STATE, "target_net.backbone.")
_QUERY, _KEY = _in(STATE, "encoder_q."), _in(STATE, "encoder_k.")
_MMLAB_TARGET = _in(
    STATE, "encoder_k.0.", "encoder_k.module.0.", "target_net.0.", "target_net.module.0."
)
_LIGHTNING = "pytorch-lightning_version"
_NECK = "(online|target)_net.neck"
_QUEUE = {"queue(_ptr)?": ITSELF}

# The first row whose place and companions are there is the checkpoint's. Where only the place is,
# it is one of the rows with that place, and which method trained it is not known.
FORMATS = (
    Format(
        "LEWEL",
        _ONLINE,
        _TARGET,
        ("predictor.mlp.", "predictor_obj.mlp."),
        "LEWEL_B",
        _mlp(f"{_NECK}.proj(_obj)?") | _mlp("predictor(_obj)?"),
    ),
    Format(
        "LEWEL_M",
        _ONLINE,
        _TARGET,
        ("queue_ptr", "queue_obj_ptr"),
        "LEWEL_M (re-implementation)",
        _mlp(f"{_NECK}.proj(_obj)?") | {"queue(_obj)?(_ptr)?": ITSELF},
    ),
    Format(
        "BYOL (EMAN)",
        _ONLINE,
        _TARGET,
        ("predictor.mlp.0.", "predictor.mlp.3."),
        "BYOL",
        _mlp(f"{_NECK}(.proj)?") | _mlp("predictor"),
    ),
    Format(
        "MoCo v1",
        _QUERY,
        _KEY,
        ("encoder_q.fc.weight", "encoder_q.fc.bias"),
        "MoCo v1",
        {"encoder_[qk].fc": LINEAR} | _QUEUE,
    ),
    Format(
        "MoCo v2",
        _QUERY,
        _KEY,
        ("encoder_q.fc.0.", "encoder_q.fc.2."),
        "MoCo v2",
        {"encoder_[qk].fc.[02]": LINEAR} | _QUEUE,
    ),
    Format(
        "MoCo v3",
        _in(STATE, "base_encoder."),
        _in(STATE, "momentum_encoder."),
        ("predictor.0.", "predictor.3."),
        "MoCo v3",
        {
            "(base|momentum)_encoder.fc.[03]|predictor.[03]": WEIGHT,
            "(base|momentum)_encoder.fc.1|predictor.1": NORM,
            "(base|momentum)_encoder.fc.4": PLAIN_NORM,
        },
    ),
    Format(
        "SimSiam",
        _in(STATE, "encoder."),
        None,
        ("predictor.", "encoder.fc.6."),
        "SimSiam",
        {
            "encoder.fc.[03]|predictor.0": WEIGHT,
            "encoder.fc.[14]|predictor.1": NORM,
            "encoder.fc.6|predictor.3": LINEAR,
            "encoder.fc.7": PLAIN_NORM,
        },
    ),
    Format(
        "PixPro",
        _in(MODEL, "encoder."),
        _in(MODEL, "encoder_k."),
        ("value_transform.", "projector_k."),
        "PixPro",
        {"projector(_k)?.linear[12]|value_transform": LINEAR, "projector(_k)?.bn1": NORM},
    ),
    Format(  # InfoMin's, and other methods' that PyContrast trains
        "PyContrast",
        _in(MODEL, "encoder."),
        _in(("model_ema",), "encoder."),
        ("head.",),
        rest={
            "head.[02]|head_jig.fc1(.[02])?|head_jig.fc2": LINEAR,
            "contrast/memory(_[12])?": ITSELF,
        },
        told="opt/method",
    ),
    Format(
        "Barlow Twins",
        _in(MODEL, "backbone."),
        None,
        ("projector.", "bn.running_mean"),  # a norm without weights, after the projector
        "Barlow Twins",
        {"projector.[036]": WEIGHT, "projector.[14]": NORM, "bn": PLAIN_NORM},
    ),
    Format(
        "VICReg",
        _in(MODEL, "backbone."),
        None,
        ("projector.0.bias", "projector.6."),
        "VICReg",
        {"projector.[03]": LINEAR, "projector.[14]": NORM, "projector.6": WEIGHT},
    ),
    Format(
        "DINO",
        _in(("student",), "backbone."),
        _in(("teacher",), "backbone."),
        ("head.mlp.", "head.last_layer."),
        "DINO",
        {
            "head.mlp.[02346]": LINEAR,  # 0, 2, 4, or with norms in between 0, 3, 6
            "head.mlp.[14]": NORM,
            "head.last_layer": "weight_g weight_v",
            "dino_loss/center": ITSELF,
        },
    ),
    Format(
        "DenseCL",
        _in(STATE, "backbone."),
        _MMLAB_TARGET,
        ("meta", "queue2_ptr", "(neck|encoder_q.1).mlp2."),
        "DenseCL",
        {
            "(neck|encoder_[qk].1|encoder_k.module.1).mlp2?.[02]": LINEAR,
            "encoder_k.steps|queue2?(_ptr)?": ITSELF,
        },
        again=_in(STATE, "encoder_q.0."),
        epoch="meta/epoch",
    ),
    Format("OpenMMLab", _in(STATE, "backbone."), _MMLAB_TARGET, ("meta",)),
    Format(
        "solo-learn",
        _in(STATE, "backbone.", "encoder."),
        _in(STATE, "momentum_backbone.", "momentum_encoder."),
        (_LIGHTNING, "classifier."),
    ),
    Format(
        "lightly (student, teacher)",
        _in(STATE, "student_backbone."),
        _in(STATE, "teacher_backbone.", "backbone."),
        ("student_backbone.",),
    ),
    Format(
        "lightly",
        _in(STATE, "backbone."),
        _in(STATE, "backbone_momentum."),
        (_LIGHTNING,),
    ),
    Format("VISSL", _in((VISSL_TRUNK,), "_feature_blocks.")),
    Format(
        "SwAV",
        _in(STATE, ""),
        None,
        ("projection_head.", "prototypes.weight"),
        "SwAV",
        {"projection_head.[03]": LINEAR, "projection_head.1": NORM, "prototypes": WEIGHT},
    ),
    Format("torchvision names", _in(("", "state_dict", "model"), "")),
)
