"""A job on Slurm is followed to its true end: what it prints, how it ends, what Slurm says."""

import _thread
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from submitit.core.utils import cloudpickle_dump

from common import runs
from common.errors import UserError
from launch.slurm import following as module
from launch.slurm import states
from launch.slurm.following import Submitted, attach, follow, follow_all
from launch.slurm.job import Job
from launch.slurm.states import Record
from tests.launch.slurm.fake_slurm import DOWN, FORGOTTEN, FakeSlurm, error, rows
from tests.launch.slurm.submissions import record

SENTENCE = "the disk is full; make room."
RUNNING, COMPLETED = rows("7|RUNNING|None"), rows("7|COMPLETED|None")
PENDING, FAILED = rows("7|PENDING|BeginTime"), rows("7|FAILED|NonZeroExitCode")


@pytest.fixture
def job(tmp_path: Path, played: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setattr(module, "ASK_S", (0.05, 0.05))
    monkeypatch.setattr(module, "POLL_S", 0.02)
    monkeypatch.setattr(module, "LATE_S", 0.1)
    Record("slurm", "7", 2, str(tmp_path / "run" / "submitit" / "7"), "").write(tmp_path / "run")
    (tmp_path / "run" / "submitit" / "7").mkdir(parents=True)
    return Job("semi", print, None, tmp_path / "run", tmp_path, steps=10)


def handle_of(job: Job) -> Any:
    return attach(record(job.folder))


def file(job: Job, name: str) -> Path:
    return job.folder / "submitit" / "7" / name


def prints(job: Job, *lines: str) -> str:
    """A moment in which the main process prints."""
    return "\n".join(f"echo '{line}' >> {file(job, '7_0_log.out')}" for line in lines)


def ends(job: Job, rank: int, outcome: str, value: str | None = None) -> str:
    """A moment in which a process leaves its result."""
    made, path = file(job, f"{rank}-{outcome}"), file(job, f"7_{rank}_result.pkl")
    cloudpickle_dump((outcome, value), made)
    return f"cp {made} {path}"


def says(job: Job, rank: int, sentence: str) -> str:
    """A moment in which a process leaves the sentence of its error, and its result."""
    said = f"printf '{sentence}' > {file(job, f'7_{rank}_error.txt')}"
    return moment(said, ends(job, rank, "error"))


def moment(*parts: str) -> str:
    return "\n".join(parts)


def test_a_job_is_followed_over_its_requeue(
    job: Job, played: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    played.answers(
        "squeue",
        rows("7|PENDING|Priority"),
        moment(RUNNING, prints(job, "one", "submitit INFO of its own")),
        # The signal: the others write what they like, and the main process is gone.
        moment(RUNNING, says(job, 1, SENTENCE)),
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


@pytest.mark.parametrize("rank", [0, 1])
def test_a_failed_job_says_what_a_process_said(job: Job, played: FakeSlurm, rank: int) -> None:
    played.answers("squeue", moment(RUNNING, prints(job, "one"), says(job, rank, SENTENCE)), FAILED)
    with pytest.raises(UserError, match=r"^the disk is full; make room\.$"):
        follow(handle_of(job), job)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([FAILED], "job 7 failed;"),
        ([rows("7|OUT_OF_MEMORY|OutOfMemory")], r"job 7 failed \(out of memory\);"),
        ([rows("7|CANCELLED|None")], r"job 7 failed \(cancelled\);"),
        ([error(FORGOTTEN)], r"job 7 failed \(timed out\);"),  # the accounts tell
    ],
)
def test_a_job_that_was_killed_says_how_it_ended(
    job: Job,
    played: FakeSlurm,
    answers: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = f"echo 'srun: error: n1: task 1: Killed' >> {file(job, '7_0_log.err')}"
    played.answers("squeue", moment(RUNNING, prints(job, "one"), said), *answers)
    played.answers("sacct", rows("7|TIMEOUT"))
    with pytest.raises(UserError, match=words):
        follow(handle_of(job), job)
    assert "task 1: Killed" in capsys.readouterr().err


def test_a_job_that_wrote_nothing_is_asked_for_a_shared_folder(job: Job, played: FakeSlurm) -> None:
    played.answers("squeue", RUNNING, FAILED)
    with pytest.raises(UserError, match=r"7 failed: its node wrote nothing into .*all nodes"):
        follow(handle_of(job), job)
    played.answers("squeue", PENDING, rows("7|CANCELLED|None"))  # but not if it never began
    with pytest.raises(UserError, match=r"job 7 failed \(cancelled\)"):
        follow(handle_of(job), job)


@pytest.mark.parametrize(
    "state", ["7|PENDING|DependencyNeverSatisfied", "7|CANCELLED|DependencyNeverSatisfied", ""]
)
def test_a_job_whose_parent_failed_says_so(job: Job, played: FakeSlurm, state: str) -> None:
    Record("slurm", "7", 1, str(job.folder / "submitit" / "7"), "", after="6").write(job.folder)
    played.answers(
        "squeue", rows("7|PENDING|Dependency"), rows(state) if state else error(FORGOTTEN)
    )
    played.answers("sacct", rows("7|CANCELLED by 0"), rows("6|TIMEOUT"))
    with pytest.raises(UserError, match="job 7 did not start: job 6, which it waited for,"):
        follow(handle_of(job), job)


def test_the_log_goes_on_while_slurm_is_away(
    job: Job,
    played: FakeSlurm,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(states, "TRIES", 2)
    hangs = f"({prints(job, 'before')}; sleep 0.5; {prints(job, 'after')}) > /dev/null 2>&1\n"
    played.answers(
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


def test_ctrl_c_leaves_all_jobs_alone_and_says_how_to_come_back(
    job: Job, played: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    played.answers("squeue", moment(RUNNING, prints(job, "one")))
    played.answers("scancel", "exit 0")
    threading.Timer(0.5, _thread.interrupt_main).start()
    with pytest.raises(SystemExit) as ended:
        follow_all([Submitted(job, handle_of(job))] * 2)
    out = capsys.readouterr().out
    assert ended.value.code == 130 and "one" in out and not played.calls("scancel")
    said = (
        "no longer watching; job 7 goes on. The same command with --wait follows it again; "
        f"squeue -j 7 shows it, and its output is {file(job, '7_0_log.out')}\n"
    )
    assert out.endswith(said) and out.count("no longer watching") == 1


def test_without_accounting_a_forgotten_job_is_judged_by_its_run(
    job: Job, played: FakeSlurm
) -> None:
    left = ends(job, 0, "error", "KeyError: 3")
    played.answers("squeue", moment(RUNNING, prints(job, "one")), moment(left, error(FORGOTTEN)))
    with pytest.raises(UserError, match="7 left no result, and Slurm no longer knows it; its"):
        follow(handle_of(job), job)
    runs.finish(job.folder, {})
    assert follow(handle_of(job), job)
