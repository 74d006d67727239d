"""Methods and recipes by name."""

import dataclasses
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from common.backbones import read_backbone
from common.errors import UserError
from pretrain import methods
from pretrain.config import PretrainConfig
from pretrain.optimizer import lars, sgd
from pretrain.train import build

SMALL = {"backbone": "resnet18", "image_size": 32, "proj_dim": 16, "batch_size": 4, "data": "demo"}


def resolve(method: str, **changes: Any) -> Any:
    sizes = {"hidden_dim": 24, "queue_size": 12}
    mine = {k: v for k, v in sizes.items() if k in methods.find(method).defaults}
    return PretrainConfig(method=method, **SMALL | mine | changes).resolve()  # type: ignore[arg-type]


# Method, norm if not its default, epochs; batch, lr, weight decay, momentum, warm-up, whether LARS
# adapts the MLPs' norms: LEWEL's release scripts and log, MoCo's README.
PUBLISHED = [
    ("lewel_b", "eman", 100, 1024, 3.6, 1e-6, 0.98, 10, True),
    ("lewel_b", "eman", 200, 1024, 3.6, 1.5e-6, 0.98, 10, False),
    ("lewel_b", "syncbn", 400, 4096, 7.2, 1e-6, 0.996, 10, True),
    ("moco_v2", None, 200, 256, 0.03, 1e-4, 0.999, 0, False),
    ("lewel_m", None, 200, 256, 0.03, 1e-4, 0.999, 0, False),
    ("byol", None, 200, 1024, 3.6, 1.5e-6, 0.98, 10, False),
    ("byol", "syncbn", 200, 4096, 7.2, 1e-6, 0.996, 10, True),
]


@pytest.mark.parametrize("row", PUBLISHED)
def test_a_published_run_needs_nothing_but_its_name(row: tuple[Any, ...], demo_root: Path) -> None:
    method, norm, epochs, *values = row
    config = PretrainConfig(method=method, norm=norm, epochs=epochs, data="demo").resolve()
    got = (config.batch_size, config.lr, config.weight_decay, config.base_momentum)
    assert [*got, config.warmup_epochs, config.adapt_mlp_norms] == values


@pytest.mark.parametrize(
    ("chosen", "unlike"),
    [
        ({"norm": "eman"}, ""),
        ({"norm": "eman", "epochs": 100}, ""),
        ({"norm": "syncbn", "epochs": 400, "seed": 3, "backbone": "resnet18"}, ""),
        ({"epochs": 100, "adapt_mlp_norms": False}, "adapt mlp norms False"),
        ({"batch_size": 512}, "batch size 512, lr 1.8"),
        ({"weight_decay": 1e-4, "image_size": 160}, "weight decay 0.0001, image size 160"),
        ({"method": "moco_v2"}, ""),
        ({"method": "moco_v2", "norm": "eman"}, "EMAN"),
        ({"method": "byol"}, "LEWEL_B's recipe"),
        ({"method": "lewel_m", "queue_size": 4}, "re-implementation, queue size 4"),
    ],
)
def test_what_is_not_as_in_the_published_run_is_told(
    chosen: dict[str, Any], unlike: str, demo_root: Path
) -> None:
    config = PretrainConfig(**{"data": "demo"} | chosen).resolve()
    assert config.unpublished() == unlike


@pytest.mark.parametrize("name", methods.methods())
def test_every_norm_trains_a_step_and_moves_the_target(name: str, demo_root: Path) -> None:
    method = methods.find(name)
    for norm in method.archs:
        torch.manual_seed(0)
        config = resolve(name, norm=norm)
        model = build(config)
        optimizer = (lars if name in ("lewel_b", "byol") else sgd)(model, config)
        online, target = model.networks()
        before = {k: v.clone() for k, v in target.named_parameters()}
        loss = model(*torch.randn(2, 4, 3, 32, 32))
        loss.backward()
        optimizer.step()
        momentum = model.update_target(0, 10)
        assert torch.isfinite(loss) and momentum == config.base_momentum
        assert model.embedding.shape == (4, 16)
        assert not any(p.requires_grad for p in target.parameters())
        for key, new in online.named_parameters():
            expected = momentum * before[key] + (1 - momentum) * new.detach()
            torch.testing.assert_close(target.get_parameter(key), expected)
        assert model.backbone()(torch.randn(2, 3, 64, 64)).shape == (2, 512, 2, 2)
        assert target.training == (norm != "eman")


@pytest.mark.parametrize("name", methods.methods())
def test_what_a_method_saves_is_explained_whole(name: str, demo_root: Path, tmp_path: Path) -> None:
    """With and without the words beside the tensors: the names alone tell the method."""
    method = methods.find(name)
    layers = [{"neck_layers": n} for n in (2, 4) if "neck_layers" in method.defaults] or [{}]
    for norm, changes in itertools.product(method.archs, layers):
        with torch.device("meta"):  # names and shapes will do
            kept = build(resolve(name, norm=norm, **changes)).state_dict()
        state = {k: torch.zeros((), dtype=v.dtype).expand(v.shape) for k, v in kept.items()}
        content: dict[str, Any] = {"epoch": 3}
        content["state_dict"] = {f"module.{k}": v for k, v in state.items()}
        torch.save(content, tmp_path / "names.pth")
        assert read_backbone(tmp_path / "names.pth").method == method.title
        said = {"title": method.title, "config": {"norm": norm}, "ranks": [{"rng": torch.ones(2)}]}
        torch.save(content | said, tmp_path / "words.pth")
        backbone = read_backbone(tmp_path / "words.pth")
        assert (backbone.method, backbone.norm, backbone.epochs) == (method.title, norm, 3)


def test_eman_statistics_follow_and_others_have_their_own(demo_root: Path) -> None:
    for norm in ("eman", "syncbn"):
        torch.manual_seed(0)
        model = build(resolve("byol", norm=norm))
        model(*torch.randn(2, 4, 3, 32, 32))
        online, target = (net.get_buffer("backbone.bn1.running_mean") for net in model.networks())
        assert (target == 0).all() == (norm == "eman")
        model.update_target(0, 10)
        if norm == "eman":
            torch.testing.assert_close(target, (1 - 0.98) * online)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"method": "simclr"}, "--method simclr is unknown; choose one of byol, lewel_b"),
        ({"method": "byol", "norm": "shufflebn"}, "--norm shufflebn does not go with --method byo"),
        ({"method": "moco_v2", "norm": "syncbn"}, "choose shufflebn or eman"),
        ({"method": "byol", "queue_size": 8}, "--method byol has no --queue-size; leave it out"),
        ({"method": "moco_v2", "heads": 4}, "--method moco_v2 has no --heads"),
        ({"method": "moco_v2", "adapt_mlp_norms": True}, "moco_v2 has no --adapt-mlp-norms"),
        ({"method": "lewel_m", "temperature": 0.0}, "--temperature 0.0: must be more than 0"),
        ({"method": "lewel_m", "heads": 3}, "--heads 3 must divide --proj-dim 128"),
    ],
)
def test_what_a_method_has_not(words: dict[str, Any], message: str, demo_root: Path) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        PretrainConfig(data="demo", **words).resolve()


def test_run_names_tell_methods_and_their_options_apart(demo_root: Path) -> None:
    configs = [
        resolve("lewel_b"),
        resolve("lewel_b", loss_weight=0.0),
        resolve("byol"),
        resolve("moco_v2"),
        resolve("moco_v2", temperature=0.1),
    ]
    assert len({config.run_name() for config in configs}) == len(configs)
    again = dataclasses.replace(configs[0], knn_every=3, workers=1, checkpoint_min=1.0)
    assert again.run_name() == configs[0].run_name()


def test_a_name_from_before_recipes_told_of_norms_is_that_of_a_run_that_excludes_them(
    demo_root: Path,
) -> None:
    """The names are those that commit a68c3be gave these runs."""
    names = {
        ("eman", 100): "lewel_b-eman-resnet50-e100-b1024-lr3.6-s0-6e3b5bce",
        ("eman", 200): "lewel_b-eman-resnet50-e200-b1024-lr3.6-s0-6e3b5bce",
        ("syncbn", 400): "lewel_b-syncbn-resnet50-e400-b4096-lr7.2-s0-6e3b5bce",
    }
    for (norm, epochs), name in names.items():
        for adapt in (None, False, True):
            words = {"norm": norm, "epochs": epochs, "adapt_mlp_norms": adapt}
            config = PretrainConfig(data="demo", **words).resolve()  # type: ignore[arg-type]
            assert config.adapt_mlp_norms == (epochs != 200 if adapt is None else adapt)
            assert (config.run_name() == name) == (not config.adapt_mlp_norms)
