"""Every known checkpoint is recognised by its content, and read whole or refused."""

import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from common.backbones import build_resnet, find_containers, read_backbone
from common.errors import UserError
from common.formats import FORMATS
from tests.common.samples import SAMPLES, Sample
from tests.common.writers import State, at, numbered, sequential

ONLINE, TARGET = numbered("resnet50"), numbered("resnet50", -1)
SMALL, SMALL_TARGET = numbered("resnet18"), numbered("resnet18", -1)
WEIGHTS = sorted(name for name in SMALL if not name.endswith("num_batches_tracked"))


def shuffled(node: Any) -> Any:
    """The same dicts in another order, which does not matter."""
    if not isinstance(node, dict):
        return node
    pairs = [(k, shuffled(v)) for k, v in node.items()]
    random.Random(0).shuffle(pairs)
    return dict(pairs)


def save(path: Path, sample: Sample, online: State, target: State) -> Path:
    content = shuffled(sample.write(online, target))
    if sample.safetensors:  # it stores every number
        save_file({k: v.contiguous() for k, v in content.items()}, path)
    else:
        torch.save(content, path)
    return path


def assert_same(found: State, wanted: State) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].shape == tensor.shape and torch.equal(found[name], tensor), name


@pytest.mark.parametrize("name", SAMPLES)
def test_a_known_checkpoint(name: str, tmp_path: Path) -> None:
    sample = SAMPLES[name]
    path = save(tmp_path / "some.file", sample, SMALL, SMALL_TARGET)
    backbone = read_backbone(path)
    assert (backbone.architecture, backbone.which) == ("resnet18", "online")
    assert (backbone.format, backbone.method, backbone.epochs) == (
        sample.name, sample.method, sample.epochs,
    )  # fmt: skip
    assert backbone.missing == ()
    assert_same(backbone.tensors, SMALL)
    if not sample.has_target:
        with pytest.raises(UserError, match=r"some\.file .*has no target network.*leave --target"):
            read_backbone(path, "target")
        return
    target = read_backbone(path, "target")
    assert target.which == "target" and target.method == sample.method
    assert_same(target.tensors, SMALL_TARGET)


def test_every_row_of_the_table_has_a_sample() -> None:
    assert {row.name for row in FORMATS} <= {sample.name for sample in SAMPLES.values()}


def test_the_releases_extracted_backbone(tmp_path: Path) -> None:
    """Bare names in the serialisation of PyTorch before 1.6."""
    torch.save(ONLINE, tmp_path / "bare.pth", _use_new_zipfile_serialization=False)
    backbone = read_backbone(tmp_path / "bare.pth")
    assert (backbone.format, backbone.method) == ("torchvision names", "")
    assert_same(backbone.tensors, ONLINE)


def test_keys_need_not_be_words(tmp_path: Path) -> None:
    content: dict[Any, Any] = {**SMALL, 0: torch.zeros(1), 1: {2: torch.zeros(1)}}
    torch.save(content, tmp_path / "c.pth")
    assert set(read_backbone(tmp_path / "c.pth").ignored) == {"0", "1/2"}


def test_used_ignored_and_missing(tmp_path: Path) -> None:
    online = {k: v for k, v in ONLINE.items() if not k.endswith("num_batches_tracked")}
    backbone = read_backbone(save(tmp_path / "c.pth", SAMPLES["MoCo v2"], online, TARGET))
    assert backbone.prefix == "module.encoder_q." and len(backbone.tensors) == 53 * 5
    assert set(backbone.missing) == ONLINE.keys() - online and len(backbone.missing) == 53
    assert backbone.ignored_groups == {
        "module.encoder_k": 318, "module.encoder_q.fc": 4, "module.encoder_k.fc": 4,
        "module.queue": 1, "module.queue_ptr": 1,
    }  # fmt: skip
    assert {f"module.encoder_k.{name}" for name in TARGET} <= set(backbone.ignored)


@pytest.mark.parametrize(
    ("name", "prefix", "groups"),
    [
        ("DINO", "student/module.backbone.", {"teacher/module.backbone": 318, "dino_loss/center": 1,
            "student/module.head.mlp": 6, "student/module.head.last_layer": 2,
            "teacher/module.head.mlp": 6, "teacher/module.head.last_layer": 2}),
        ("InfoMin", "model/module.encoder.", {"model_ema/module.encoder": 318,
            "model/module.head": 4, "model_ema/module.head": 4, "model/module.head_jig.fc1": 1,
            "model_ema/module.head_jig.fc1": 1, "contrast/memory_1": 1, "contrast/memory_2": 1}),
        ("torchvision", "", {"fc": 2}),
        ("lightly", "backbone.", {"backbone_momentum": 318, "projection_head.layers": 8,
            "prediction_head.layers": 8}),
    ],
)  # fmt: skip
def test_ignored_tensors_are_grouped_and_optimizers_left_out(
    name: str, prefix: str, groups: dict[str, int], tmp_path: Path
) -> None:
    backbone = read_backbone(save(tmp_path / "c.pth", SAMPLES[name], ONLINE, TARGET))
    assert (backbone.prefix, backbone.ignored_groups) == (prefix, groups)


def altered(state: State, name: str, how: str, draw: Any) -> State:
    state = dict(state)
    if how == "reshaped":
        shape = draw(st.lists(st.integers(0, 64), max_size=4).map(tuple))
        assume(shape != tuple(state[name].shape))
        state[name] = torch.zeros(()).expand(shape)
        return state
    tensor = state.pop(name)
    if how == "renamed":
        to = draw(
            st.sampled_from([f"{name}_", f"x{name}", f"layer1.{name}", f"encoder.{name}"])
            | st.just(re.sub(r"layer\d", "layer5", name))
            | st.sampled_from(sorted(SMALL))  # over another tensor
        )
        assume(to != name)
        state[to] = tensor
    return state


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(),
    sample=st.sampled_from([sample for sample in SAMPLES.values() if not sample.safetensors]),
    name=st.sampled_from(WEIGHTS),
    how=st.sampled_from(["dropped", "renamed", "reshaped"]),
)
def test_a_tensor_dropped_renamed_or_reshaped_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject, sample: Sample, name: str, how: str,
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("altered") / "c.pth"
    broken = altered(SMALL, name, how, data.draw)
    save(path, sample, broken, SMALL)
    with pytest.raises(UserError, match=r"c\.pth is not a whole ResNet.*nothing was written"):
        read_backbone(path)
    if sample.has_target:
        assert_same(read_backbone(path, "target").tensors, SMALL)
        save(path, sample, SMALL, broken)
        assert_same(read_backbone(path).tensors, SMALL)
        with pytest.raises(UserError, match=r"c\.pth is not a whole ResNet"):
            read_backbone(path, "target")


words = st.text("abcdefgh_", min_size=2, max_size=8)


@settings(max_examples=30, deadline=None)
@given(st.lists(words.map(lambda w: f"{w}x"), min_size=1, max_size=8, unique=True), st.booleans())
def test_an_unknown_format_is_refused_with_its_prefixes(
    tmp_path_factory: pytest.TempPathFactory, prefixes: list[str], ddp: bool
) -> None:
    path = tmp_path_factory.mktemp("unknown") / "c.pth"
    wrapper = "module." if ddp else ""
    state = {k: v for prefix in prefixes for k, v in at(f"{wrapper}{prefix}.", SMALL).items()}
    torch.save({"state_dict": state}, path)
    with pytest.raises(UserError, match=r"c\.pth is no checkpoint of a known format") as error:
        read_backbone(path)
    for prefix in prefixes:
        assert f"{wrapper}{prefix} ({len(SMALL)})" in str(error.value)


def test_a_vision_transformer_is_refused_with_its_prefixes(tmp_path: Path) -> None:
    state = {"module.backbone.blocks.0.norm1.weight": torch.zeros(1)}
    torch.save({"student": state, "teacher": state}, tmp_path / "vit.pth")
    with pytest.raises(UserError, match=r"named student/module\.backbone\.blocks \(1\), teacher/"):
        read_backbone(tmp_path / "vit.pth")


def grown(name: str, *others: str) -> dict[str, Any]:
    """A sample with more tensors, each behind the container that "/" ends."""
    content = SAMPLES[name].write(dict(SMALL), SMALL_TARGET)
    for other in others:
        container, _, word = other.rpartition("/")
        node = content
        for key in container.split("/") if container else []:
            node = node.setdefault(key, {})
        node[word] = torch.zeros(1)
    return content


FORKS = {
    "VICRegL": ("VICReg", [*(f"model/module.maps_projector.{i}.weight" for i in (0, 1, 3, 4, 6)),
        "model/module.classifier.weight", "model/module.classifier.bias"]),
    "VICRegL, no maps": ("VICReg", ["model/module.classifier.weight"]),
    "MoCo v2, a queue": ("MoCo v2", ["state_dict/module.queue3", "state_dict/module.queue3_ptr"]),
    "DenseCL in MoCo's code": ("MoCo v2", ["state_dict/module.queue2",
        "state_dict/module.encoder_q.dense_fc.0.weight"]),
    "MoCo v2, three layers": ("MoCo v2", ["state_dict/module.encoder_q.fc.4.weight"]),
    "MoCo v2, a norm": ("MoCo v2", ["state_dict/module.encoder_q.fc.0.running_mean"]),
    "MoCo v1, a predictor": ("MoCo v1", ["state_dict/module.predictor.0.weight"]),
    "DenseCL, a third neck": ("DenseCL", ["state_dict/encoder_q.1.mlp3.0.weight"]),
    "LEWEL, a head": ("LEWEL", ["state_dict/module.online_net.neck.proj_pixel.mlp.0.weight"]),
    "LEWEL_M, a queue": ("LEWEL_M", ["state_dict/module.queue_pixel"]),
    "EMAN, a queue": ("EMAN", ["state_dict/module.queue"]),
    "SimSiam, a memory": ("SimSiam", ["memory"]),
    "PixPro with instances": ("PixPro", ["model/module.projector_instance.linear1.weight"]),
    "Barlow Twins with biases": ("Barlow Twins", ["model/module.projector.0.bias"]),
    "DINO, iBOT's head": ("DINO", ["student/module.head.last_layer2.weight_g"]),
    "DINO, a loss of patches": ("DINO", ["dino_loss/center2"]),
    "SwAV, a second head": ("SwAV", ["module.prototypes2.weight"]),
    "InfoMin, a head": ("InfoMin", ["model/module.head_dense.0.weight"]),
    "MoCo v3, its ViT's": ("MoCo v3", ["state_dict/module.predictor.4.running_mean"]),
}  # fmt: skip


@pytest.mark.parametrize("fork", FORKS)
def test_a_fork_is_not_called_by_its_parents_name(fork: str, tmp_path: Path) -> None:
    name, others = FORKS[fork]
    torch.save(grown(name, *others), tmp_path / "c.pth")
    backbone = read_backbone(tmp_path / "c.pth")
    assert (backbone.method, backbone.norm, backbone.epochs) == ("", "", None)
    count = f"{len(others)} tensor{'s' * (len(others) > 1)}"
    shown = re.fullmatch(rf"like {re.escape(SAMPLES[name].name)} but for {count} such as (\S+)",
                         backbone.format)  # fmt: skip
    assert shown and any(other.endswith(shown[1]) for other in others)
    assert_same(backbone.tensors, SMALL)
    torch.save(grown(name), tmp_path / "c.pth")
    assert read_backbone(tmp_path / "c.pth").method == SAMPLES[name].method


# Whatever a sample holds beside its networks, as a name that another method may have.
BORROWED = sorted(
    {
        f"{wrapper}{name}"
        for sample in SAMPLES.values()
        for state in find_containers(sample.write(SMALL, SMALL)).values()
        for name in state
        if not re.search(r"(conv|bn)\d\.|layer\d|downsample|blocks|^[0-9]|_blocks|\.\d\.\d\.", name)
        for wrapper in ("", "module.")
    }
)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    sample=st.sampled_from([sample for sample in SAMPLES.values() if not sample.safetensors]),
    name=st.sampled_from(BORROWED)
    | st.from_regex(
        r"(module\.)?[a-z_]{1,9}(\.[a-z_0-9]{1,9}){0,3}(\.(weight|bias))?", fullmatch=True
    ),
)
def test_one_more_tensor_makes_a_method_unknown_and_changes_no_backbone(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, sample: Sample, name: str
) -> None:
    """A tensor of any name in any place, but for those that a sample of the format has."""
    content = sample.write(dict(SMALL), SMALL_TARGET)
    alike = [s.write(dict(SMALL), SMALL) for s in SAMPLES.values() if s.name == sample.name]
    there = {
        k.removeprefix("module.") for c in alike for s in find_containers(c).values() for k in s
    }
    container = data.draw(st.sampled_from([*find_containers(content), "ema", "model/more"]))
    assume(name.removeprefix("module.") not in there)
    assume(not re.search(r"(^|\.)(conv1|bn1|layer\d+|[0-7])\.", name))  # of a ResNet: refused
    node = content
    for key in container.split("/") if container else []:
        node = node.setdefault(key, {})
    assume(isinstance(node, dict) and name not in node)
    node[name] = torch.zeros(1)
    path = tmp_path_factory.mktemp("more") / "c.pth"
    torch.save(content, path)
    backbone = read_backbone(path)
    assert backbone.method == "" and backbone.epochs is None
    if sample.method:
        assert backbone.format.startswith("like ") and backbone.format.endswith(name)
    assert_same(backbone.tensors, SMALL)


@pytest.mark.parametrize(
    ("name", "others", "at"),
    [
        ("InfoMin", {"model": at("module.encoder_k.", SMALL), "model_ema": {}},
            "model/module.encoder_k"),
        ("SimSiam", {"ema": at("encoder.", SMALL)}, "ema/encoder"),
        ("Barlow Twins", {"model": at("module.momentum_backbone.", SMALL)},
            "model/module.momentum_backbone"),
        ("torchvision, training", {"model_ema": {"module": SMALL}}, "model_ema/module/layer2"),
        ("VISSL", {"teacher": {"net": sequential("trunk.", SMALL)}}, "teacher/net/trunk"),
    ],
)  # fmt: skip
def test_a_target_of_another_kind_is_shown(
    name: str, others: dict[str, Any], at: str, tmp_path: Path
) -> None:
    content = SAMPLES[name].write(dict(SMALL), SMALL_TARGET)
    for key, value in others.items():
        content[key] = {**content.get(key, {}), **value} if value else {}
    torch.save(content, tmp_path / "c.pth")
    assert_same(read_backbone(tmp_path / "c.pth").tensors, SMALL)
    with pytest.raises(UserError, match=rf"no target network .*{re.escape(at)} \("):
        read_backbone(tmp_path / "c.pth", "target")


@pytest.mark.parametrize("share", [0.3, 0.99])
def test_safetensors_cut_short_are_named(tmp_path: Path, share: float) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(UserError, match=r"model\.safetensors is not a readable"):
        read_backbone(path)


@torch.no_grad()
def test_it_computes_what_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    resnet = build_resnet(
        read_backbone(save(tmp_path / "c.pth", SAMPLES["torchvision"], SMALL, SMALL))
    )
    for module in resnet.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.reset_parameters()
    state = resnet.state_dict()
    images = torch.randn(2, 3, 32, 32)
    wanted = resnet.eval()(images)
    for name in ("lightly", "VISSL", "DenseCL"):
        path = save(tmp_path / f"{name}.pth", SAMPLES[name], state, SMALL)
        torch.testing.assert_close(build_resnet(read_backbone(path)).eval()(images), wanted)
