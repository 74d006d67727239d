"""What checkpoints of self-supervised ResNets look like: one table, one row a format.

A checkpoint is a dict that holds dicts of tensors, its containers. A format is known by what is in
the file, never by the file's name: where the backbone is, and what else is there. The names are
those of the methods' own repositories; :mod:`common.recognition` reads the table.
"""

from dataclasses import dataclass

STATE = ("state_dict", "")  # or a state_dict that was saved by itself
MODEL = ("model", "")
VISSL_TRUNK = "classy_state_dict/base_model/model/trunk"


@dataclass(frozen=True)
class Place:
    """Where a network may be: in one of the containers, behind one of the prefixes.

    Attributes:
        containers: keys that lead to a dict of tensors, joined by "/"; "" is the file itself.
        prefixes: what precedes the names of the backbone's tensors, without ``module.``.
    """

    containers: tuple[str, ...]
    prefixes: tuple[str, ...]


@dataclass(frozen=True)
class Format:
    """A kind of checkpoint.

    Attributes:
        name: what it is called.
        online: the network that gradients trained.
        target: the one that followed it by EMA; None where the method has one network.
        companions: tensors (the beginnings of their names, without ``module.``) or keys of the
            file that must be there too, for formats with the same place are told apart by them.
        method: what trained it, as results tables call it; "" where many methods write it.
        told: where the file itself names its method; keys joined by "/".
        epoch: where the file says how many epochs are done; read where the method is known.
    """

    name: str
    online: Place
    target: Place | None = None
    companions: tuple[str, ...] = ()
    method: str = ""
    told: str = ""
    epoch: str = "epoch"


def _in(containers: tuple[str, ...], *prefixes: str) -> Place:
    return Place(containers, prefixes)


_ONLINE, _TARGET = _in(STATE, "online_net.backbone."), _in(STATE, "target_net.backbone.")
_QUERY, _KEY = _in(STATE, "encoder_q."), _in(STATE, "encoder_k.")
_MMLAB_TARGET = _in(
    STATE, "encoder_k.0.", "encoder_k.module.0.", "target_net.0.", "target_net.module.0."
)
_LIGHTNING = "pytorch-lightning_version"

# The first row whose place and companions are there is the checkpoint's. Where only the place is,
# it is one of the rows with that place, and which method trained it is not known.
FORMATS = (
    Format("LEWEL", _ONLINE, _TARGET, ("predictor_obj.",), "LEWEL_B"),
    Format("LEWEL_M", _ONLINE, _TARGET, ("queue_obj",), "LEWEL_M (re-implementation)"),
    Format("BYOL (EMAN)", _ONLINE, _TARGET, ("predictor.",), "BYOL"),
    Format("MoCo v1", _QUERY, _KEY, ("encoder_q.fc.weight",), "MoCo v1"),
    Format("MoCo v2", _QUERY, _KEY, ("encoder_q.fc.0.", "encoder_q.fc.2."), "MoCo v2"),
    Format(
        "MoCo v3",
        _in(STATE, "base_encoder."),
        _in(STATE, "momentum_encoder."),
        ("predictor.",),
        "MoCo v3",
    ),
    Format("SimSiam", _in(STATE, "encoder."), None, ("predictor.", "encoder.fc.6."), "SimSiam"),
    Format(
        "PixPro", _in(MODEL, "encoder."), _in(MODEL, "encoder_k."), ("value_transform.",), "PixPro"
    ),
    Format(  # InfoMin's, and other methods' that PyContrast trains
        "PyContrast",
        _in(MODEL, "encoder."),
        _in(("model_ema",), "encoder."),
        ("head.",),
        told="opt/method",
    ),
    Format(
        "Barlow Twins",
        _in(MODEL, "backbone."),
        None,
        ("projector.", "bn.running_mean"),  # a norm without weights, after the projector
        "Barlow Twins",
    ),
    Format("VICReg", _in(MODEL, "backbone."), None, ("projector.0.bias",), "VICReg"),
    Format(
        "DINO",
        _in(("student",), "backbone."),
        _in(("teacher",), "backbone."),
        ("head.last_layer.",),
        "DINO",
    ),
    Format(
        "DenseCL",
        _in(STATE, "backbone."),
        _MMLAB_TARGET,
        ("meta", "queue2"),
        "DenseCL",
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
    Format("SwAV", _in(STATE, ""), None, ("projection_head.", "prototypes.weight"), "SwAV"),
    Format("torchvision names", _in(("", "state_dict", "model"), "")),
)
