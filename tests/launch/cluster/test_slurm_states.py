"""What is made of the answers of squeue and sacct; tests/slurm asks a real Slurm.

The answers here are those that Slurm 22.05 gave.
"""

import os
import time
from pathlib import Path

import pytest

from launch.cluster import slurm
from launch.cluster.slurm import NO_ANSWER, State, states

DOWN = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
FORGOTTEN = "slurm_load_jobs error: Invalid job id specified"
NO_ACCOUNTS = "Slurm accounting storage is disabled"


class FakeSlurm:
    """Commands on the PATH, which has no others, with an answer for each time they are called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def answers(self, command: str, *scripts: str) -> None:
        """What ``command`` does the first time it is called, the second, ...; the last for good."""
        for number, script in enumerate(scripts, start=1):
            (self.folder / f"{command}.{number}").write_text(script + "\n")
        path, here = self.folder / command, f"{self.folder}/{command}"
        path.write_text(
            f'#!/bin/sh\nPATH=/usr/bin:/bin\necho "$*" >> {here}.calls\nn=$(wc -l < {here}.calls)\n'
            f"while [ ! -f {here}.$n ]; do n=$((n - 1)); done\n. {here}.$n\n"
        )
        path.chmod(0o755)

    def calls(self, command: str) -> list[str]:
        calls = self.folder / f"{command}.calls"
        return calls.read_text().splitlines() if calls.exists() else []


def rows(*lines: str) -> str:
    return "\n".join(f"echo '{line}'" for line in lines)


def error(text: str, status: int = 1) -> str:
    return f"echo '{text}' >&2\nexit {status}"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.setattr(slurm, "PAUSE_S", 0.01)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return FakeSlurm(tmp_path / "bin")


def test_one_call_for_all_jobs_and_members_of_arrays(fake: FakeSlurm) -> None:
    fake.answers(
        "squeue",
        rows(
            "7|RUNNING|None", "8|PENDING|Dependency", "9_0|COMPLETED|None", "9_1|PENDING|Priority"
        ),
    )
    assert states(["7", "8", "9_0", "9_1", "7"]) == {
        "7": State("RUNNING"),
        "8": State("PENDING", "Dependency"),
        "9_0": State("COMPLETED"),
        "9_1": State("PENDING", "Priority"),
    }
    (call,) = fake.calls("squeue")
    assert call.split()[-2:] == ["-j", "7,8,9_0,9_1"] and "-t all" in call and " -r " in call


def test_a_reason_may_have_anything_in_it(fake: FakeSlurm) -> None:
    reason = "ReqNodeNotAvail, UnavailableNodes:n[1-2]|x"
    fake.answers("squeue", rows(f"7|PENDING|{reason}"))
    assert states(["7"])["7"].reason == reason


def test_the_accounts_tell_how_a_forgotten_job_ended(fake: FakeSlurm) -> None:
    fake.answers("squeue", rows("7|RUNNING|None"))
    fake.answers("sacct", rows("5|CANCELLED by 1000", "6_2|TIMEOUT", "6_[3-9%2]|PENDING", "|"))
    assert states(["5", "6_2", "7", "4"]) == {
        "5": State("CANCELLED"),
        "6_2": State("TIMEOUT"),
        "7": State("RUNNING"),
        "4": State("UNKNOWN"),
    }
    (call,) = fake.calls("sacct")
    assert call.endswith("-j 5,6_2,4")


def test_the_accounts_are_asked_where_all_jobs_are_forgotten(fake: FakeSlurm) -> None:
    fake.answers("squeue", error(FORGOTTEN))
    fake.answers("sacct", rows("5|COMPLETED"))
    assert states(["5"]) == {"5": State("COMPLETED")}
    assert len(fake.calls("squeue")) == 1


def test_a_job_that_only_the_accounts_call_alive_is_unknown(fake: FakeSlurm) -> None:
    fake.answers("squeue", "")
    fake.answers("sacct", rows("5|RUNNING", "6|REQUEUED"))
    assert set(states(["5", "6"]).values()) == {State("UNKNOWN")}


def test_a_requeued_job_lives_whatever_the_accounts_say(fake: FakeSlurm) -> None:
    fake.answers("squeue", rows("5|PENDING|BeginTime"))
    fake.answers("sacct", rows("5|NODE_FAIL"))
    assert states(["5"])["5"].live
    assert not fake.calls("sacct")


@pytest.mark.parametrize(
    "sacct", [None, error(NO_ACCOUNTS), error("sacct: fatal: no dbd"), "exit 0"]
)
def test_without_accounting_a_forgotten_job_is_unknown(fake: FakeSlurm, sacct: str | None) -> None:
    fake.answers("squeue", error(FORGOTTEN))
    if sacct is not None:
        fake.answers("sacct", sacct)
    assert states(["5"]) == {"5": State("UNKNOWN")}


def test_a_controller_that_is_away_for_a_moment_is_asked_again(fake: FakeSlurm) -> None:
    fake.answers("squeue", error(DOWN), error(DOWN), rows("5|RUNNING|None"))
    assert states(["5"]) == {"5": State("RUNNING")}


def test_a_controller_that_stays_away_leaves_jobs_unknown(fake: FakeSlurm) -> None:
    fake.answers("squeue", error(DOWN))
    fake.answers("sacct", rows("5|NODE_FAIL"))  # which would be wrong of a job just requeued
    assert states(["5", "6"]) == dict.fromkeys(["5", "6"], State("UNKNOWN", NO_ANSWER))
    assert len(fake.calls("squeue")) == slurm.TRIES and not fake.calls("sacct")


def test_a_call_that_hangs_is_given_up(fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "TIMEOUT_S", 0.2)
    fake.answers("squeue", "exec sleep 60", rows("5|RUNNING|None"))
    fake.answers("sacct", "exec sleep 60")
    started = time.monotonic()
    assert states(["5", "6"]) == {"5": State("RUNNING"), "6": State("UNKNOWN")}
    assert time.monotonic() - started < 10


def test_no_slurm_at_all_is_unknown(fake: FakeSlurm) -> None:
    assert states(["5"]) == {"5": State("UNKNOWN")}


def test_no_jobs_are_no_question(fake: FakeSlurm) -> None:
    fake.answers("squeue", "")
    assert states([]) == {} and not fake.calls("squeue")


def test_a_persons_own_settings_of_squeue_hide_nothing(
    fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_USERS", "nobody")
    monkeypatch.setenv("SLURM_CONF", "/etc/here.conf")
    fake.answers("squeue", 'echo "5|RUNNING|$SQUEUE_USERS$SLURM_CONF"')
    assert states(["5"])["5"].reason == "/etc/here.conf"
    assert os.environ["SQUEUE_USERS"] == "nobody"


@pytest.mark.parametrize(
    "name",
    "PENDING CONFIGURING RUNNING COMPLETING SUSPENDED STOPPED REQUEUED REQUEUE_HOLD SIGNALING "
    "STAGE_OUT RESIZING SPECIAL_EXIT".split(),
)
def test_live(name: str) -> None:
    assert State(name).live


@pytest.mark.parametrize(
    "name",
    "COMPLETED FAILED CANCELLED TIMEOUT NODE_FAIL OUT_OF_MEMORY PREEMPTED DEADLINE BOOT_FAIL "
    "UNKNOWN".split(),
)
def test_not_live(name: str) -> None:
    assert not State(name).live


def test_a_watch_does_not_wait_and_slows_down(
    fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "ASK_S", (0.2, 0.2))
    fake.answers("squeue", "sleep 0.5\n" + rows("5|PENDING|None"), rows("5|RUNNING|None"))
    watch = slurm.Watch("5")
    started = time.monotonic()
    assert watch.look() is None and time.monotonic() - started < 0.4
    seen = []
    while time.monotonic() - started < 2:
        state = watch.look()
        seen += [state.name] if state and state.name not in seen else []
        time.sleep(0.01)
    assert seen == ["PENDING", "RUNNING"]
    assert 2 <= len(fake.calls("squeue")) <= 8
