"""The suites: which runs they have, from which weights, and what they cost at least."""

from functools import partial
from pathlib import Path

import pytest

from launch import benchmark
from launch.benchmark import Command, configs_of, gpu_hours, sweeps
from pretrain.evaluation.config import LinearConfig
from tests.launch.test_weights import checkpoint


def test_the_lewel_suite_is_the_rows_of_its_readme() -> None:
    (sweep,) = sweeps(Command("c.pth", label="mine", batch_size=8))
    assert [path.stem for path in sweep.config] == [
        "coco_R_50_C4_1x_infomin", "coco_R_50_FPN_1x_infomin", "coco_R_50_FPN_2x_infomin"
    ]  # fmt: skip
    assert (sweep.weights, sweep.label, sweep.batch_size, sweep.seeds) == (("c.pth",), "mine", 8, 1)


def test_the_full_suite_is_every_config_once_with_the_weights_that_it_is_for() -> None:
    found = {
        path.stem: sweep for sweep in sweeps(Command("c.pth", "full")) for path in sweep.config
    }
    assert len(found) == len(configs_of("full")) == sum(
        len(sweep.config) for sweep in sweeps(Command("c.pth", "full"))
    )  # fmt: skip
    published = {p.stem for p in benchmark.CONFIGS.glob("*.yaml")}
    assert found.keys() == {n for n in published if not n.startswith(("Base", "demo"))}
    for name in ("coco_R_50_C4_1x", "coco_R_50_FPN_2x_rand", "pascal_voc_R_50_C4_24k",
                 "pascal_voc_R_50_FCN_D8_20k_rand"):  # fmt: skip
        assert found[name].weights == ()  # its own: supervised, or random
    for name in ("coco_R_50_FPN_1x_moco", "pascal_voc_R_50_C4_24k_infomin",
                 "pascal_voc_R_50_FCN_30k", "pascal_voc_R_50_FCN_D8_20k"):  # fmt: skip
        assert found[name].weights == ("c.pth",)
    assert {name for name, sweep in found.items() if sweep.seeds == 5} == {
        name for name in found if name.startswith("pascal_voc_R_50_C4")
    }


def test_gpu_hours_are_the_model_zoos_seconds() -> None:
    # Detectron2's model zoo: 0.261 s an iteration of 16 images on 8 GPUs.
    hours = gpu_hours("coco_R_50_FPN_1x_infomin", 90000 * 16)
    assert hours == pytest.approx(90000 * 0.261 * 8 / 3600)
    assert gpu_hours("coco_R_50_FPN_1x_infomin", 180000 * 8) == hours
    assert gpu_hours("pascal_voc_R_50_FCN_30k", 1) is None


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    tmp_path: Path, real_data: Path, capsys: pytest.CaptureFixture
) -> None:
    path = checkpoint(tmp_path / "c.pth.tar", "resnet50")
    benchmark.run(
        f"--weights {path} --dry-run --cluster local --gpus-per-node 0 --data "
        f"{real_data / 'imagenet'} --output-dir {tmp_path}".split()
    )
    out = capsys.readouterr().out
    assert "3 runs, at least 273 V100 hours" in out and "linear evaluation" in out
    assert [file.name for file in tmp_path.iterdir()] == ["c.pth.tar"]


def test_all_is_submitted_before_any_of_it_is_followed(
    tmp_path: Path,
    demo_root: Path,
    followed: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("a_infomin", "b_infomin"):
        (tmp_path / f"{name}.yaml").write_text(f"_BASE_: {benchmark.CONFIGS}/demo_R_18_FPN.yaml\n")
    monkeypatch.setattr(benchmark, "CONFIGS", tmp_path)
    monkeypatch.setattr(benchmark, "LEWEL", ("a_infomin", "b_infomin"))
    monkeypatch.setattr(benchmark, "LinearConfig", partial(LinearConfig, batch_size=12))
    words = f"--weights {checkpoint(tmp_path / 'c.pth.tar')} --data demo --wait"
    words += f" --cluster slurm --gpus-per-node 0 --output-dir {tmp_path}"
    benchmark.run(words.split())
    assert followed == [("101_0", "102"), ("101_1", "102"), ("102", "102")]
