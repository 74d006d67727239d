"""The counts of a plan against PyTorch's profiler, checkpoint files and the pages' table."""

import functools
import gc
import io
from typing import Any

import pytest
import torch
import torchvision
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

from launch.options import CONFIGS
from pretrain.config import PretrainConfig, ResolvedConfig
from pretrain.optimizer import lars
from pretrain.plan import GIB, LEAST_SHARE, R50_FLOPS, Cost, Counter, count, speed, take_step
from pretrain.train import build

SCALING = CONFIGS.parent / "docs" / "scaling.md"
CHECKED = (
    ("LEWEL_B, EMAN", "bf16", "128"),
    ("LEWEL_B, EMAN", "float32", "128"),
    ("BYOL, EMAN", "bf16", "128"),
    ("MoCo v2, shuffled BN", "bf16", "32"),
)
NORMS = {"EMAN": "eman", "shuffled BN": "shufflebn"}
METHODS = {"LEWEL_B": "lewel_b", "BYOL": "byol", "MoCo v2": "moco_v2"}


def resolve(**changes: Any) -> ResolvedConfig:
    fields = {"data": "demo", "backbone": "resnet18", "hidden_dim": 512, "image_size": 64}
    return PretrainConfig(**fields | changes).resolve()  # type: ignore[arg-type]


def rows() -> list[tuple[str, ...]]:
    """The table of memory in docs/scaling.md, as far as it is counted again."""
    lines = [line.split("|")[1:-1] for line in SCALING.read_text().splitlines() if "|" in line]
    return [row for line in lines if (row := tuple(cell.strip() for cell in line))[:3] in CHECKED]


@functools.cache
def counted(method: str, norm: str | None, images: int, amp: str) -> Cost:
    """A ResNet-50 at 224 px, on 8 GPUs."""
    changes = {"backbone": "resnet50", "image_size": 224, "hidden_dim": None}
    return count(resolve(method=method, norm=norm, batch_size=8 * images, amp=amp, **changes), 8)


@pytest.mark.parametrize("row", rows(), ids=str)
def test_the_pages_table_was_counted_otherwise_and_is_the_same(row: tuple[str, ...]) -> None:
    name, precision, images, peak, gflop = row
    method, norm = name.split(", ")
    amp = "off" if precision == "float32" else "auto"
    cost = counted(METHODS[method], NORMS[norm], int(images), amp)
    assert cost.images == int(images)
    assert cost.flops / cost.images / 1e9 == pytest.approx(float(gflop), abs=0.05)
    assert (cost.live + cost.gathered) / GIB == pytest.approx(float(peak), rel=0.005)


def peak_of(found: Any) -> int:
    """The most bytes that were allocated at a time, by the profiler."""
    assert found.profiler is not None and found.profiler.kineto_results is not None
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most


@pytest.mark.parametrize("method", ["lewel_b", "moco_v2"])
def test_the_peak_is_the_profilers_of_the_same_step(method: str) -> None:
    hidden = {"hidden_dim": None} if method == "moco_v2" else {}
    config = resolve(method=method, batch_size=32, amp="off", **hidden)
    gc.collect()  # what is freed meanwhile would count
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as found:
        model = build(config)
        optimizer = lars(model, config)
        for _ in range(2):
            take_step(model, optimizer, 32, config.image_size)
    assert count(config, 1).live == pytest.approx(peak_of(found), rel=0.1)


def test_real_and_fake_tensors_count_alike_and_nothing_stays() -> None:
    peaks = []
    for mode in (FakeTensorMode(), torch.no_grad()):
        with mode, Counter() as counter:
            whole = torch.empty(1000)
            view = whole[10:].view(2, 495)
            product = view @ torch.empty(495, 3)
            assert counter.flops == 2 * 2 * 495 * 3
            del whole, product
            assert counter.live == 4000  # the view has it still
            del view
            peaks.append((counter.peak, counter.live))
    assert peaks == [(4 * (1000 + 495 * 3 + 2 * 3), 0)] * 2


def test_a_checkpoint_is_as_large_as_its_file() -> None:
    config = resolve(batch_size=4, image_size=32)
    model = build(config)
    optimizer = lars(model, config)
    take_step(model, optimizer, 4, 32)
    file = io.BytesIO()
    torch.save({"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    assert count(config, 1).checkpoint == pytest.approx(file.tell(), rel=0.01)


def test_speeds_are_of_the_network_that_was_published() -> None:
    with torch.device("meta"):
        resnet = torchvision.models.resnet50()
        with Counter() as counter:
            resnet(torch.empty(2, 3, 224, 224)).sum().backward()
    assert counter.flops / 2 == pytest.approx(R50_FLOPS, rel=0.005)


def test_hours_reach_from_the_published_speed_to_lewels_log() -> None:
    cost, steps = counted("lewel_b", "eman", 128, "auto"), 100 * 1251
    found = speed(cost, resolve(), steps, "V100")
    assert found is not None
    assert found.samples[0] == pytest.approx(156, rel=0.01)
    assert found.hours[1] == pytest.approx(0.82 * steps / 3600, rel=0.01)  # LEWEL's log, 8 V100
    assert found.hours[0] == pytest.approx(found.hours[1] * LEAST_SHARE)
    # MoCo's README: 53 h for 200 epochs on 8 V100, in float32.
    moco, exact = counted("moco_v2", "shufflebn", 32, "auto"), resolve(amp="off")
    slow = speed(moco, exact, 200 * (1_281_167 // 256), "V100")
    assert slow is not None and slow.hours[0] < 53 < slow.hours[1]
    assert speed(moco, exact, steps, "H100") is None


def test_the_rows_are_found() -> None:
    assert len(rows()) == len(CHECKED)
