"""Two commands at the same moment, and Ctrl-C in the middle of a submission."""

import multiprocessing
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from launch.cluster import undisturbed
from launch.cluster.records import Record
from launch.cluster.undisturbed import LOCK, alone
from tests.launch.cluster.fake_slurm import FakeSlurm
from tests.launch.cluster.submissions import CPUS, job, start


def typed(output_dir: Path, together: Any, outcomes: Any) -> None:
    """A command, in a process of its own."""
    together.wait()
    try:
        outcomes.put(start([job(output_dir)], CPUS)[job(output_dir).folder])
    except UserError as error:
        outcomes.put(str(error))


def test_of_two_commands_at_the_same_moment_one_submits(
    tmp_path: Path, fake_slurm: FakeSlurm
) -> None:
    fake_slurm.say("slow")
    fake_slurm.say("queue", "101|PENDING|Priority\n")
    context = multiprocessing.get_context("spawn")
    together, outcomes = context.Barrier(2), context.Queue()
    commands = [
        context.Process(target=typed, args=(tmp_path / "out", together, outcomes)) for _ in range(2)
    ]
    for command in commands:
        command.start()
    submitted, refused = sorted((outcomes.get(timeout=60) for _ in commands), key=len)
    for command in commands:
        command.join()
    assert submitted == "101" and "in use by Slurm job 101 (PENDING); add --wait" in refused
    assert not fake_slurm.read("102.sh")
    record = Record.read(job(tmp_path / "out").folder)
    assert record is not None and record.job_id == "101"


def test_a_folder_that_was_made_for_the_lock_goes_with_it(tmp_path: Path) -> None:
    with alone(tmp_path / "deep" / "out"):
        assert (tmp_path / "deep" / "out" / "runs" / LOCK).exists()
    assert list(tmp_path.iterdir()) == []
    with alone(tmp_path / "out"):
        (tmp_path / "out" / "runs" / "semi").mkdir()
    with alone(tmp_path / "out"):
        pass
    assert {path.name for path in (tmp_path / "out" / "runs").iterdir()} == {"semi", LOCK}


def test_who_waits_for_a_command_that_is_refused_has_a_lock_then(tmp_path: Path) -> None:
    held, waiting = [], threading.Event()

    def wait() -> None:
        waiting.set()
        with alone(tmp_path / "out"):
            held.append((tmp_path / "out" / "runs" / LOCK).exists())

    other = threading.Thread(target=wait)
    with alone(tmp_path / "out"):
        other.start()
        waiting.wait()
        other.join(0.3)
        assert other.is_alive() and not held
    other.join()
    # The other may make its lock between the first one's deletion of its own and of the folder.
    left = {path.name for path in tmp_path.rglob("*")}
    assert held == [True] and left <= {"out", "runs", LOCK}


def test_a_command_that_does_not_end_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undisturbed, "PATIENCE_S", 0.1)
    with (
        alone(tmp_path),
        pytest.raises(UserError, match="another command is submitting jobs to "),
        alone(tmp_path),
    ):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the run folder"), alone(tmp_path / "file"):
        pass


@pytest.mark.parametrize("count", [1, 2])
def test_ctrl_c_takes_effect_once_the_job_is_recorded(
    count: int, tmp_path: Path, fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_slurm.say("ctrl-c")
    jobs = [job(tmp_path, seed) for seed in range(count)]
    with pytest.raises(KeyboardInterrupt):
        start(jobs, CPUS)
    ids = ["101"] if count == 1 else ["101_0", "101_1"]
    for one, job_id in zip(jobs, ids, strict=True):
        record = Record.read(one.folder)
        assert record is not None and record.job_id == job_id
        assert (Path(record.submitit) / f"{job_id}_submitted.pkl").exists()
    assert capsys.readouterr().out.count("slurm job 101") == count
    assert not fake_slurm.read("cancelled")


def test_ctrl_c_in_a_fresh_start_leaves_the_new_run_alone(
    tmp_path: Path, fake_slurm: FakeSlurm
) -> None:
    start([job(tmp_path)], CPUS)
    fake_slurm.say("ctrl-c")
    with pytest.raises(KeyboardInterrupt):
        start([job(tmp_path)], CPUS, fresh=True)
    record = Record.read(job(tmp_path).folder)
    assert record is not None and record.job_id == "102"
    assert [path.name for path in job(tmp_path).folder.parent.iterdir()] == ["s0"]


def test_ctrl_c_is_itself_again_afterwards(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    start([job(tmp_path)], CPUS)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("cluster", ["slurm", "local"])
def test_where_no_folder_can_be_made_nobody_tries_for_ever(
    cluster: Any, fake_slurm: FakeSlurm
) -> None:
    with pytest.raises(
        UserError, match=r"cannot write the run folder /proc/x/runs\S*: No such file"
    ):
        start([job(Path("/proc/x"))], replace(CPUS, cluster=cluster))
    assert not fake_slurm.read("101.sh")
