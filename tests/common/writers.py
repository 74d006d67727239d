"""Checkpoints as other projects write them: their containers, their names, what else is there.

The ResNet is whatever a test gives; heads, queues and centres keep their names, not their sizes.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor

State = dict[str, Tensor]

NORM = "weight bias running_mean running_var num_batches_tracked"
PLAIN_NORM = "running_mean running_var num_batches_tracked"  # affine=False
SEQUENTIAL = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
LIGHTNING: dict[str, Any] = {
    "epoch": 99,
    "global_step": 500,
    "pytorch-lightning_version": "1.8.6",
    "callbacks": {"ModelCheckpoint": {"best_model_score": torch.zeros(())}},
    "optimizer_states": [],
    "lr_schedulers": [],
}


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def numbered(architecture: str, sign: int = 1) -> State:
    """Constant tensors, each of another number, from which the place it went to is known."""
    with torch.device("meta"):
        state = torchvision.models.get_model(architecture).state_dict()
    kept = {k: v for k, v in state.items() if not k.startswith("fc.")}
    return {
        k: torch.tensor(i * sign, dtype=v.dtype).expand(v.shape)
        for i, (k, v) in enumerate(kept.items(), 1)
    }


def at(prefix: str, state: State) -> State:
    """The tensors behind a prefix."""
    return {prefix + name: tensor for name, tensor in state.items()}


def parts(prefix: str, **layers: str) -> State:
    """Small tensors ``prefix`` + ``_0=`` + one of the words, as ``_0="weight bias"`` says."""
    return {
        f"{prefix}{layer.removeprefix('_')}.{word}": torch.zeros(1)
        for layer, words in layers.items()
        for word in words.split()
    }


def some(*names: str) -> State:
    """Small tensors with these names."""
    return {name: torch.zeros(1) for name in names}


def sequential(prefix: str, state: State) -> State:
    """The tensors as ``nn.Sequential(*resnet.children())`` numbers them."""
    split = ((*name.partition("."), tensor) for name, tensor in state.items())
    return {f"{prefix}{SEQUENTIAL.get(a, a)}{dot}{b}": tensor for a, dot, b, tensor in split}


def trained(state: State, epoch: int = 200, **more: Any) -> dict[str, Any]:
    """As PyTorch's ImageNet example saves it, and all that grew from it."""
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    return {"epoch": epoch, "arch": "resnet50", "state_dict": state, "optimizer": optimizer, **more}


def _mlp(prefix: str) -> State:  # EMAN's and LEWEL's: convolutions and a norm
    return parts(f"{prefix}.mlp.", _0="weight", _1=NORM, _3="weight")


def lewel(online: State, target: State, ddp: str = "module.") -> dict[str, Any]:
    """LEWEL's release."""
    nets: State = {}
    for net, state in (("online_net.", online), ("target_net.", target)):
        nets |= at(f"{net}backbone.", state) | _mlp(f"{net}neck.proj") | _mlp(f"{net}neck.proj_obj")
    nets |= _mlp("predictor") | _mlp("predictor_obj")
    return trained(at(ddp, nets)) | {"arch": "LEWELB_EMAN"}


def lewel_m(online: State, target: State) -> dict[str, Any]:
    """Our LEWEL_M's tensors: no predictors, and a queue for each branch."""
    nets: State = {}
    for net, state in (("online_net.", online), ("target_net.", target)):
        nets |= at(f"{net}backbone.", state) | _mlp(f"{net}neck.proj") | _mlp(f"{net}neck.proj_obj")
    return trained(at("module.", nets | some("queue", "queue_ptr", "queue_obj", "queue_obj_ptr")))


def byol(online: State, target: State, neck: str = "neck") -> dict[str, Any]:
    """EMAN's BYOL; ours has another ``neck``."""
    nets: State = {}
    for net, state in (("online_net.", online), ("target_net.", target)):
        nets |= at(f"{net}backbone.", state) | _mlp(f"{net}{neck}")
    return trained(at("module.", nets | _mlp("predictor")))


def moco(online: State, target: State, fc: str) -> dict[str, Any]:
    """MoCo's release; ``fc`` is what follows ``encoder_q.``."""
    heads = {f"{net}.{n}": torch.zeros(1) for net in ("encoder_q", "encoder_k") for n in fc.split()}
    nets = at("encoder_q.", online) | at("encoder_k.", target) | heads | some("queue", "queue_ptr")
    return trained(at("module.", nets))


def moco_v3(online: State, target: State) -> dict[str, Any]:
    """MoCo v3's release."""
    nets = at("base_encoder.", online) | at("momentum_encoder.", target)
    for head in ("base_encoder.fc.", "momentum_encoder.fc.", "predictor."):
        nets |= parts(head, _0="weight", _1=NORM, _3="weight")
    nets |= parts("base_encoder.fc.", _4=PLAIN_NORM) | parts("momentum_encoder.fc.", _4=PLAIN_NORM)
    return trained(at("module.", nets), 1000, scaler={"scale": 65536.0})


def simsiam(online: State, _: State) -> dict[str, Any]:
    """SimSiam's release: the fc is the projector."""
    fc = parts("encoder.fc.", _0="weight", _1=NORM, _3="weight", _4=NORM, _6="weight bias")
    fc |= parts("encoder.fc.", _7=PLAIN_NORM)
    predictor = parts("predictor.", _0="weight", _1=NORM, _3="weight bias")
    return trained(at("module.", at("encoder.", online) | fc | predictor), 100)


def pixpro(online: State, target: State) -> dict[str, Any]:
    """PixPro's release."""
    nets = at("encoder.", online) | at("encoder_k.", target)
    for head in ("projector.", "projector_k."):
        nets |= parts(head, linear1="weight bias", bn1=NORM, linear2="weight bias")
    nets |= parts("", value_transform="weight bias")
    options = argparse.Namespace(model="PixPro", epochs=100, lr=4.0)
    return {"opt": options, "model": at("module.", nets), "optimizer": {}, "epoch": 100}


def pycontrast(online: State, target: State, **opt: Any) -> dict[str, Any]:
    """PyContrast: a mean teacher in a container of its own, a memory bank."""

    def net(state: State) -> State:
        head = parts("head.", _0="weight bias", _2="weight bias")
        return at("module.", at("encoder.", state) | head | parts("head_jig.fc1.", _0="weight"))

    return {
        **({"opt": argparse.Namespace(**opt, tasks="default")} if opt else {}),
        "model": net(online),
        "model_ema": net(target),
        "contrast": some("memory_1", "memory_2"),
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}},
        "epoch": 200,
    }


def swav(online: State, _: State, prototypes: str = "prototypes") -> State:
    """SwAV's release: the bare ``state_dict`` of a DDP model."""
    head = parts("projection_head.", _0="weight bias", _1=NORM, _3="weight bias")
    return at("module.", online | head | parts("", **{prototypes: "weight"}))


def barlow_twins(online: State, _: State) -> dict[str, Any]:
    """Barlow Twins' full checkpoint."""
    head = parts("projector.", _0="weight", _1=NORM, _3="weight", _4=NORM, _6="weight")
    nets = at("backbone.", online) | head | parts("", bn=PLAIN_NORM)
    return {"epoch": 1000, "model": at("module.", nets), "optimizer": {"state": {}}}


def vicreg(online: State, _: State) -> dict[str, Any]:
    """VICReg's full checkpoint."""
    head = parts("projector.", _0="weight bias", _1=NORM, _3="weight bias", _4=NORM, _6="weight")
    nets = at("module.", at("backbone.", online) | head)
    return {"epoch": 1000, "model": nets, "optimizer": {"state": {}}}


def dino(online: State, target: State, teacher: str = "module.") -> dict[str, Any]:
    """DINO's full checkpoint of a ResNet; ``teacher`` as DDP wraps it, or not."""

    def net(state: State) -> State:
        head = parts("head.mlp.", _0="weight bias", _2="weight bias", _4="weight bias")
        last = some("head.last_layer.weight_g", "head.last_layer.weight_v")
        return at("backbone.", state) | head | last

    return {
        "student": at("module.", net(online)),
        "teacher": at(teacher, net(target)),
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}},
        "epoch": 800,
        "args": argparse.Namespace(arch="resnet50", epochs=800, lr=0.03, local_crops_scale=(0, 1)),
        "dino_loss": some("center"),
    }


def densecl(online: State, target: State) -> dict[str, Any]:
    """DenseCL's training checkpoint: the query encoder is there under two names."""
    neck = parts("mlp.", _0="weight bias", _2="weight bias")
    neck |= parts("mlp2.", _0="weight bias", _2="weight bias")
    nets = at("backbone.", online) | at("encoder_q.0.", online) | at("encoder_q.1.", neck)
    nets |= at("encoder_k.0.", target) | at("encoder_k.1.", neck)
    nets |= some("queue", "queue_ptr", "queue2", "queue2_ptr")
    return {"meta": {"epoch": 200, "iter": 10, "mmcv_version": "1.0"}, "state_dict": nets}


def mmselfsup(online: State, target: State, averaged: str) -> dict[str, Any]:
    """A checkpoint of MMSelfSup; ``averaged`` is what its target network is called."""
    neck = parts("mlp.", _0="weight bias", _2="weight bias")
    nets = at("backbone.", online) | at("neck.", neck) | at(f"{averaged}.module.0.", target)
    nets |= at(f"{averaged}.module.1.", neck) | some(f"{averaged}.steps", "queue", "queue_ptr")
    return {"meta": {"epoch": 200, "mmengine_version": "0.7"}, "state_dict": nets}


def mmselfsup_densecl(online: State, target: State) -> dict[str, Any]:
    """DenseCL of MMSelfSup 1.x."""
    content = mmselfsup(online, target, "encoder_k")
    neck = parts("mlp2.", _0="weight bias", _2="weight bias")
    content["state_dict"] |= at("neck.", neck) | at("encoder_k.module.1.", neck)
    content["state_dict"] |= some("queue2", "queue2_ptr")
    return content


def solo_learn(online: State, target: State, word: str) -> dict[str, Any]:
    """A checkpoint of solo-learn; ``word`` is what it calls a ResNet."""
    nets = at(f"{word}.", online) | at(f"momentum_{word}.", target)
    nets |= parts("", classifier="weight bias", momentum_classifier="weight bias")
    nets |= parts("projector.", _0="weight bias", _1=NORM, _3="weight bias")
    return LIGHTNING | {"state_dict": nets}


def lightly(online: State, target: State, numbers: bool = True) -> dict[str, Any]:
    """A model of lightly's examples, with or without ``nn.Sequential``."""
    name = sequential if numbers else at
    nets = name("backbone.", online) | name("backbone_momentum.", target)
    for head in ("projection_head.layers.", "prediction_head.layers."):
        nets |= parts(head, _0="weight", _1=NORM, _3="weight bias")
    return LIGHTNING | {"state_dict": nets}


def lightly_pair(online: State, target: State) -> dict[str, Any]:
    """Student and teacher by name."""
    nets = at("student_backbone.", online) | at("teacher_backbone.", target)
    return LIGHTNING | {"state_dict": nets | parts("student_head.layers.", _0="weight")}


def vissl(online: State, _: State) -> dict[str, Any]:
    """A checkpoint of VISSL."""
    model = {"trunk": at("_feature_blocks.", online), "heads": parts("0.clf.", _0="weight bias")}
    classy = {"base_model": {"meta": {}, "model": model}, "optimizer": {"optim": {"state": {}}}}
    return {"phase_idx": 199, "iteration": 1, "loss": {}, "classy_state_dict": classy}


def with_fc(online: State, _: State) -> State:
    """torchvision's and timm's supervised ResNets."""
    return online | parts("", fc="weight bias")
