"""Several values of an option are several runs, each with a folder of its own."""

from pathlib import Path

import pytest

import launch.transfer
from common import runs
from common.errors import UserError
from launch.options import CONFIGS, Resources, RunOptions
from tests.launch.test_weights import checkpoint

CONFIG = CONFIGS / "demo_R_18_FPN.yaml"


def command(folder: Path, **changes: object) -> launch.transfer.Command:
    options = {
        "config": (CONFIG,),
        "weights": ("none",),
        "run": RunOptions(output_dir=folder),
        "resources": Resources(cluster="debug"),
    }
    return launch.transfer.Command(**options | changes)  # type: ignore[arg-type]


def test_every_combination_is_a_run(
    tmp_path: Path, demo_root: Path, capsys: pytest.CaptureFixture
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(f'_BASE_: "{CONFIG}"\nSOLVER:\n  MAX_ITER: 9\n')
    sweep = command(tmp_path, config=(CONFIG, other), lr=(0.02, 0.01), seed=3, seeds=2)
    members = launch.transfer.plan(sweep, ("TEST.EVAL_PERIOD", "0"))
    assert len({member.folder for member in members}) == len(members) == 8
    assert {member.folder.parent for member in members} == {tmp_path / "runs" / "transfer"}
    assert {member.config.overrides for member in members} == {("TEST.EVAL_PERIOD", "0")}
    assert {(m.config.config_name, m.config.lr, m.config.seed) for m in members} == {
        (name, lr, seed)
        for name in ("demo_R_18_FPN", "other") for lr in (0.02, 0.01) for seed in (3, 4)
    }  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"other.yaml"}
    out = capsys.readouterr().out
    assert "other, seed 4: 9 iterations of 4 images (4 on each of 1 processes, 4 in a" in out


def test_two_runs_that_would_be_one_folder_are_refused(tmp_path: Path, demo_root: Path) -> None:
    yamls = [tmp_path / name / "x.yaml" for name in ("a", "b", "c")]
    for yaml, iterations in zip(yamls, (8, 9, 8), strict=True):
        yaml.parent.mkdir()
        yaml.write_text(f'_BASE_: "{CONFIG}"\nSOLVER:\n  MAX_ITER: {iterations}\n')
    with pytest.raises(UserError, match=r"would both be \S*/runs/transfer/x-.* config_hash \("):
        launch.transfer.plan(command(tmp_path, config=tuple(yamls[:2])), ())
    with pytest.raises(UserError, match=r"differ in lr \(0\.02 and 0\.0200000004\)"):
        launch.transfer.plan(command(tmp_path, lr=(0.02, 0.0200000004)), ())
    same = command(tmp_path, config=(yamls[0], yamls[2]), lr=(0.02, 2e-2))
    assert len(launch.transfer.plan(same)) == 1


def test_a_finished_run_that_is_filed_under_another_label_is_named(
    tmp_path: Path, demo_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    weights = (str(checkpoint(tmp_path / "c.pth.tar")),)
    first = command(tmp_path, weights=weights, label="MoCo v1")
    (job,) = launch.transfer.plan(first)
    folder = job.folder
    runs.finish(folder, {"method": "MoCo v1"})
    monkeypatch.setattr("launch.slurm.submission.launch", lambda *_, **__: [])
    launch.transfer.start(first)
    assert "warning" not in capsys.readouterr().out
    launch.transfer.start(command(tmp_path, weights=weights, label="MoCo v2"))
    out = " ".join(capsys.readouterr().out.split())
    assert f"warning: the row of {folder} says MoCo v1, not MoCo v2; change its method in" in out


def test_what_the_batch_makes_of_the_config_is_printed(
    tmp_path: Path, demo_root: Path, capsys: pytest.CaptureFixture
) -> None:
    launch.transfer.plan(command(tmp_path, batch_size=2), ())
    out = capsys.readouterr().out
    assert "500 iterations of 2 images" in out
    assert "lr 0.01, steps 400, scaled from the batch of the config" in out
