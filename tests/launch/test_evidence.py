"""The measures of the demo: BatchNorm's statistics, the control, differences, and a whole bench."""

import json
from pathlib import Path

import pytest
import torch
import torchvision
from scipy import stats
from torch import nn

from launch import evidence
from launch.evidence import FCN, LEWEL, LINEAR, PERMUTED, RANDOM, TEST_SET, Bench
from pretrain.augment import centre_crop
from pretrain.data.locate import open_images
from segmentation.predictions import confusions, miou


def test_recalibrated_statistics_are_those_of_the_training_images(demo_root: Path) -> None:
    network = torchvision.models.resnet18()
    network.bn1.running_mean.fill_(7)
    images = open_images("demo")
    evidence.recalibrate(network, images, 40)
    batches = images.evaluation_batches(centre_crop(40), 128, 0, 0, 1)
    seen = network.conv1(torch.cat([batch.views[0] for batch in batches])).double()
    assert len(seen) == 120  # one batch
    torch.testing.assert_close(
        network.bn1.running_mean.double(), seen.mean((0, 2, 3)), rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(
        network.bn1.running_var.double(),
        seen.transpose(0, 1).flatten(1).var(1),
        rtol=1e-3,
        atol=1e-6,
    )


def test_the_control_keeps_each_layers_weights_in_another_order() -> None:
    network, before = torchvision.models.resnet18(), torchvision.models.resnet18()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    before.load_state_dict(network.state_dict())
    evidence.permute(network, 0)
    for new, old in zip(network.modules(), before.modules(), strict=True):
        if isinstance(new, nn.Conv2d):
            assert isinstance(old, nn.Conv2d)
            assert not torch.equal(new.weight, old.weight)
            assert torch.equal(new.weight.flatten().sort()[0], old.weight.flatten().sort()[0])
        if isinstance(new, nn.BatchNorm2d):
            assert new.weight.eq(1).all() and new.bias.eq(0).all()


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    ours, theirs = [20.1, 18.4, 22.9, 19.5], [12.8, 13.4, 14.1, 11.9]
    ends = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    found = evidence.paired([a - b for a, b in zip(ours, theirs, strict=True)])
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert found.mean == pytest.approx(sum(ours) / 4 - sum(theirs) / 4)


def test_a_bench(
    tmp_path: Path, demo_root: Path, tiny_bench: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, ("--cluster", "debug", "--gpus-per-node", "0"))
    folders = {
        (name, config): bench.transfer(name, 3, config)
        for name, config in ((LEWEL, FCN), (RANDOM, FCN), (PERMUTED, LINEAR))
    }
    assert len(list((tmp_path / "runs" / "pretrain").iterdir())) == 1  # of two starts
    scores = {key: json.loads((path / "metrics.json").read_text()) for key, path in folders.items()}
    assert {score["method"] for score in scores.values()} == {LEWEL, RANDOM, PERMUTED}
    for key, folder in folders.items():
        pixels = confusions(folder, TEST_SET)
        assert len(pixels) == 4 and miou(pixels.sum(0)) == pytest.approx(
            scores[key]["mIoU"], abs=1e-3
        )
    ours, theirs = folders[LEWEL, FCN], folders[RANDOM, FCN]
    found = evidence.miou_difference(ours, theirs)
    mean = scores[LEWEL, FCN]["mIoU"] - scores[RANDOM, FCN]["mIoU"]
    assert found.mean == pytest.approx(mean, abs=1e-3) and found.low <= found.mean <= found.high
    same = evidence.miou_difference(ours, ours)
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    assert len(bench.knn(LEWEL, 3)) == 32
