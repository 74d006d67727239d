"""Where a job goes, in how many processes; and how a command line is read."""

from pathlib import Path

import pytest

from common.errors import UserError
from launch.slurm.resources import (
    Resources,
    gpus_of_gres,
    processes,
    resolve_cluster,
    sbatch_options,
)
from launch.transfer import split_overrides


@pytest.fixture
def login_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_auto_is_slurm_where_there_is_sbatch(login_node: None) -> None:
    assert resolve_cluster(Resources()) == "slurm"
    assert processes(Resources(nodes=2)) == 16
    assert processes(Resources(nodes=2, gpus_per_node=4)) == 8
    assert processes(Resources(gpus_per_node=0, tasks_per_node=3)) == 3


def test_auto_is_this_machine_elsewhere_and_this_process_under_torchrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert resolve_cluster(Resources()) == "local"
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert resolve_cluster(Resources()) == "debug" and processes(Resources()) == 4


@pytest.mark.parametrize(
    ("line", "overrides"),
    [
        ("--config a.yaml --lr 1e-4 2e-4 SOLVER.MAX_ITER 10", "SOLVER.MAX_ITER 10"),
        ("--config A.yaml --wait MODEL.RPN.POST_NMS_TOPK_TEST 50 SEED 1",
         "MODEL.RPN.POST_NMS_TOPK_TEST 50 SEED 1"),
        ("--name EMAN --config a.yaml", ""),
        ("--label V1.5 --config a.yaml SEED 1", "SEED 1"),
    ],
)  # fmt: skip
def test_overrides_begin_at_the_first_config_key(line: str, overrides: str) -> None:
    options, found = split_overrides(line.split())
    assert " ".join(found) == overrides
    assert [*options, *found] == line.split()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": 0}, "--nodes 0: must be at least 1"),
        ({"gpus_per_node": -1}, "--gpus-per-node -1: must be at least 0"),
        ({"mem_gb": 0.0}, "--mem-gb 0.0: must be more than 0"),
        ({"mem_gb": float("nan")}, "--mem-gb nan: must be more than 0"),
        ({"mem_gb": 0.0005}, "--mem-gb 0.0005: must be at least 0.001, which is 1 MB"),
        ({"max_requeues": -1}, "--max-requeues -1: must be at least 0"),
        ({"slurm": ("x=",)}, "--slurm x=: has no value"),
        ({"gpus_per_node": 2, "tasks_per_node": 4}, "one process per GPU"),
        ({"slurm": ("gres=gpu:a100:4",)}, r"--slurm asks for 4 GPUs .* --gpus-per-node for 8"),
        ({"timeout_min": 3}, r"--timeout-min 3 leaves no time .* 180 s before the end"),
    ],
)
def test_resources_that_cannot_be(
    login_node: None, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        processes(Resources(**changes))  # type: ignore[arg-type]


def test_any_other_option_of_sbatch() -> None:
    words = ("reservation=x", "nice=-100", "exclusive", "mail_type=END,FAIL", "gres=nvme:1", "hold")
    assert sbatch_options((*words, "begin=now+1hour", "export-file=a=b", "x11=all")) == {
        "reservation": "x", "nice": "-100", "exclusive": True, "mail-type": "END,FAIL",
        "gres": "nvme:1", "hold": True, "begin": "now+1hour", "export-file": "a=b",
        "x11": "all",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("=x", "is not KEY=VALUE"),
        ("a b=x", "is not KEY=VALUE"),
        ("partition=gpu", "partition is set otherwise; use --partition for it"),
        ("part=gpu", "partition is set otherwise"),  # sbatch would take it
        ("--time=3", "time is set otherwise; use --timeout-min for it"),
        ("gpus=4", "gpus-per-node is set otherwise"),
        ("export=NONE", r"export is set otherwise; use a table \[env\] in slurm.toml for it"),
        ("no-requeue", "no-requeue is set otherwise; use --max-requeues for it"),
        ("output=x", "output is set otherwise; leave it out"),
    ],
)
def test_options_of_sbatch_that_are_ours(word: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sbatch_options((word,))


@pytest.mark.parametrize(
    ("word", "gpus"),
    [("gres=gpu:a100:4", 4), ("gres=gpu:4", 4), ("gres=gpu", 1), ("gres=gpu:a100", 1),
     ("--gres=gpu:h100_80gb:8", 8), ("gres=lustre:1", None), ("nice=4", None),
     ("gres=gpu:4,shard:1", 4), ("gres=gpu:a100:2,nvme:1", 2), ("gres=nvme:1,gpu:a100:2", 2),
     ("gres=gpu:a100:2,gpu:v100:1", 3), ("gres=gpu:a100,gpu", 2), ("gres=nvme:1,gpus:2", None)],
)  # fmt: skip
def test_gpus_of_a_type_are_counted(word: str, gpus: int | None) -> None:
    assert gpus_of_gres(["reservation=x", word]) == gpus


def test_resources_that_are_just_enough(login_node: None) -> None:
    assert processes(Resources(gpus_per_node=4, slurm=("gres=gpu:a100:4",))) == 4
    assert processes(Resources(gpus_per_node=1, timeout_min=3, signal_delay_s=60)) == 1
