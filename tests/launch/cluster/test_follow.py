"""A job on Slurm is followed to its true end, whoever submitted it."""

import _thread
import os
import threading
import time
from pathlib import Path

import pytest
from submitit.core.utils import cloudpickle_dump

from common.errors import UserError
from launch.cluster import follow as module
from launch.cluster import slurm
from launch.cluster.follow import Submitted, attach, follow, follow_all
from launch.cluster.jobs import Job
from launch.cluster.records import Record
from tests.launch.cluster.played_job import (
    COMPLETED,
    FAILED,
    PENDING,
    RUNNING,
    TRACE,
    ends,
    fake,
    file,
    handle_of,
    job,
    moment,
    prints,
)
from tests.launch.cluster.test_slurm_states import DOWN, FORGOTTEN, FakeSlurm, error, rows

__all__ = ["fake", "job"]  # the fixtures


def test_a_job_is_followed_over_its_requeue(
    job: Job, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.answers(
        "squeue",
        rows("7|PENDING|Priority"),
        moment(RUNNING, prints(job, "one", "submitit INFO of its own")),
        # The signal: the others write what they like, and the main process is gone.
        moment(RUNNING, ends(job, 1, "error", TRACE)),
        rows("7|COMPLETING|None"),
        moment(PENDING, ends(job, 1, "success")),
        moment(RUNNING, prints(job, "two")),
        moment(RUNNING, prints(job, "three"), ends(job, 0, "success")),
        COMPLETED,
    )
    assert follow(handle_of(job), job)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("job 7")] == ["one", "two", "three"]
    assert [line for line in lines if line.startswith("job 7")] == [
        "job 7: pending (Priority)",
        "job 7: running",
        "job 7: ending",
        "job 7: pending (BeginTime)",
        "job 7: running",
    ]


def test_a_failed_job_says_what_its_main_process_said(job: Job, fake: FakeSlurm) -> None:
    other = TRACE.replace("the disk is full", "the other end has gone")
    fake.answers(
        "squeue",
        moment(RUNNING, prints(job, "one")),
        moment(RUNNING, ends(job, 1, "error", other), ends(job, 0, "error", TRACE)),
        FAILED,
    )
    with pytest.raises(UserError, match=r"^the disk is full; make room\.$"):
        follow(handle_of(job), job)


def test_a_sentence_of_another_process_will_do(job: Job, fake: FakeSlurm) -> None:
    fake.answers("squeue", moment(prints(job, "one"), ends(job, 1, "error", TRACE), FAILED))
    with pytest.raises(UserError, match="the disk is full"):
        follow(handle_of(job), job)


def test_a_job_that_slurm_calls_completed_failed_if_its_main_process_did(
    job: Job, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.answers(
        "squeue", moment(prints(job, "x"), ends(job, 0, "error", "KeyError: 3"), COMPLETED)
    )
    with pytest.raises(UserError, match=r"job 7 failed; its output is in .*submitit/7, and the sa"):
        follow(handle_of(job), job)
    assert "KeyError: 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (FAILED, "job 7 failed;"),
        (rows("7|OUT_OF_MEMORY|OutOfMemory"), r"job 7 failed \(out of memory\);"),
        (rows("7|TIMEOUT|TimeLimit"), r"job 7 failed \(timed out\);"),
        (rows("7|CANCELLED|None"), r"job 7 failed \(cancelled\);"),
        (COMPLETED, r"job 7 failed \(ended without a result\);"),
    ],
)
def test_a_job_that_was_killed_says_how_it_ended(
    job: Job, fake: FakeSlurm, state: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = f"echo 'srun: error: n1: task 1: Killed' >> {file(job, '7_0_log.err')}"
    fake.answers("squeue", moment(RUNNING, prints(job, "one"), said), state)
    with pytest.raises(UserError, match=words):
        follow(handle_of(job), job)
    assert "task 1: Killed" in capsys.readouterr().err


def test_an_error_of_an_earlier_attempt_is_no_reason(
    job: Job, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    (job.folder / "incarnations").mkdir()
    for rank in (0, 1):
        cloudpickle_dump(("error", TRACE), file(job, f"7_{rank}_result.pkl"))
        os.utime(file(job, f"7_{rank}_result.pkl"), (1e9, 1e9))
    begins = f"echo > {job.folder}/incarnations/0002.json"
    fake.answers("squeue", moment(RUNNING, prints(job, "one"), begins), rows("7|TIMEOUT|TimeLimit"))
    with pytest.raises(UserError, match="timed out"):
        follow(handle_of(job), job)


def test_a_job_that_wrote_nothing_is_asked_for_a_shared_folder(job: Job, fake: FakeSlurm) -> None:
    fake.answers("squeue", RUNNING, FAILED)
    with pytest.raises(UserError, match=r"7 failed: its node wrote nothing into .*all nodes"):
        follow(handle_of(job), job)


def test_a_job_that_was_cancelled_in_the_queue_is_not(job: Job, fake: FakeSlurm) -> None:
    fake.answers("squeue", PENDING, rows("7|CANCELLED|None"))
    with pytest.raises(UserError, match=r"job 7 failed \(cancelled\)"):
        follow(handle_of(job), job)


@pytest.mark.parametrize(
    "state", ["7|PENDING|DependencyNeverSatisfied", "7|CANCELLED|DependencyNeverSatisfied", ""]
)
def test_a_job_whose_parent_failed_says_so(job: Job, fake: FakeSlurm, state: str) -> None:
    Record("slurm", "7", 1, str(job.folder / "submitit" / "7"), "", after="6").write(job.folder)
    fake.answers("squeue", rows("7|PENDING|Dependency"), rows(state) if state else error(FORGOTTEN))
    fake.answers("sacct", rows("7|CANCELLED by 0"), rows("6|TIMEOUT"))
    with pytest.raises(UserError, match="job 7 did not start: job 6, which it waited for,"):
        follow(handle_of(job), job)


def test_the_log_goes_on_while_slurm_is_away(
    job: Job, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slurm, "TRIES", 2)
    hangs = f"({prints(job, 'before')}; sleep 0.5; {prints(job, 'after')}) > /dev/null 2>&1\n"
    fake.answers(
        "squeue",
        RUNNING,
        moment(hangs, error(DOWN)),
        error(DOWN),
        moment(RUNNING, ends(job, 0, "success")),
        COMPLETED,
    )
    seen: list[tuple[float, str]] = []
    monkeypatch.setattr(
        module.tqdm, "write", lambda text, file: seen.append((time.monotonic(), text))
    )
    assert follow(handle_of(job), job)
    texts = [text for _, text in seen]
    assert [text for text in texts if "job" not in text] == ["before", "after"]
    assert [text for text in texts if "job" in text] == [
        "job 7: running",
        "job 7: unknown (Slurm does not answer)",
        "job 7: running",
    ]
    times = {text: at for at, text in seen}
    assert times["after"] - times["before"] > 0.3  # it came when it was printed


def test_ctrl_c_detaches_and_says_how_to_come_back(
    job: Job, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.answers("squeue", moment(RUNNING, prints(job, "one")))
    fake.answers("scancel", "exit 0")
    threading.Timer(0.5, _thread.interrupt_main).start()
    assert not follow(handle_of(job), job)
    out = capsys.readouterr().out
    assert out.endswith(
        "no longer watching; job 7 goes on. The same command with --wait follows it again; "
        f"squeue -j 7 shows it, and its output is {file(job, '7_0_log.out')}\n"
    )
    assert "one" in out and not fake.calls("scancel")


def test_ctrl_c_ends_a_command_that_follows_several_jobs(
    job: Job, fake: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.answers("squeue", moment(RUNNING, prints(job, "one")))
    threading.Timer(0.5, _thread.interrupt_main).start()
    with pytest.raises(SystemExit) as ended:
        follow_all([Submitted(job, handle_of(job))] * 2)
    assert ended.value.code == 130
    assert capsys.readouterr().out.count("no longer watching; job 7 goes on.") == 1


def test_a_job_that_another_process_submitted(
    tmp_path: Path, job: Job, fake: FakeSlurm, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.answers("squeue", moment(RUNNING, prints(job, "one"), ends(job, 0, "success")), COMPLETED)
    fake.answers("sacct", error("Slurm accounting storage is disabled"))
    handle = handle_of(job)
    assert (handle.job_id, handle.num_tasks) == ("7", 2)
    assert follow(handle, job)
    assert not fake.calls("sacct") and capfd.readouterr().err == ""


def test_a_run_folder_that_was_moved_or_is_of_an_array(tmp_path: Path, job: Job) -> None:
    record = Record.read(job.folder)
    assert record is not None
    moved = job.folder.rename(tmp_path / "moved")
    assert attach(record, moved).paths.stdout == moved / "submitit" / "7" / "7_0_log.out"
    member = Record("slurm", "9_3", 1, "/runs/arrays/a/%j", "")
    assert str(attach(member, moved).paths.stdout) == "/runs/arrays/a/9_3/9_3_0_log.out"
