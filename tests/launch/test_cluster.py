"""Where a job goes, in how many processes; and how a command line is read."""

import os
from pathlib import Path

import pytest

from common.errors import UserError
from launch import submit
from launch.cluster import processes, resolve_cluster, visible_gpus
from launch.options import Resources
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


def test_auto_is_local_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert resolve_cluster(Resources()) == "local"


def test_auto_is_this_process_under_torchrun(
    login_node: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert resolve_cluster(Resources()) == "debug"
    assert processes(Resources()) == 4


def test_processes_do_not_share_a_gpu(login_node: None) -> None:
    with pytest.raises(UserError, match="one process per GPU"):
        processes(Resources(gpus_per_node=2, tasks_per_node=4))


def test_a_local_job_keeps_to_the_gpus_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus(2) == (0, 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 2,7")
    assert visible_gpus(2) == (5, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1a2b")
    with pytest.raises(UserError, match="by number"):
        visible_gpus(1)


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


def test_a_job_is_submitted_without_our_rank_but_to_our_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = {"RANK": "3", "SLURM_JOB_ID": "7", "SLURM_CONF": "/etc/slurm/here.conf"}
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with submit._job_environment():
        assert os.environ["SLURM_CONF"] == "/etc/slurm/here.conf"
        assert os.environ["PYTHONPATH"] == str(submit.ROOT)
        assert not {"RANK", "SLURM_JOB_ID"} & os.environ.keys()
    assert {name: os.environ[name] for name in before} == before
    assert "PYTHONPATH" not in os.environ
