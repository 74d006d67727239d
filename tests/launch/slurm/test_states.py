"""What is made of the answers of squeue and sacct; tests/slurm asks a real Slurm."""

import json
import os
import time
from pathlib import Path

import pytest

from launch.slurm import states as module
from launch.slurm.states import NO_ANSWER, Record, State, states
from tests.launch.slurm.fake_slurm import DOWN, FORGOTTEN, FakeSlurm, error, rows


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = Record("slurm", "123_4", 8, "/runs/a/123_4", "2024-05-01T12:00:00", identity={"lr": 1})
    record.write(tmp_path)
    saved = json.loads((tmp_path / "job.json").read_text())
    (tmp_path / "job.json").write_text(json.dumps(saved | {"colour": "blue"}))  # of a later version
    assert Record.read(tmp_path) == record


@pytest.mark.parametrize("text", [None, "{", "null", '{"cluster": "slurm"}', "\xff\xfe"])
def test_a_record_that_cannot_be_read_is_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "job.json").write_bytes(text.encode("latin-1"))
    assert Record.read(tmp_path) is None


def test_one_call_for_all_jobs_and_members_of_arrays(played: FakeSlurm) -> None:
    reason = "ReqNodeNotAvail, UnavailableNodes:n[1-2]|x"
    played.answers("squeue", rows("7|RUNNING|None", "9_0|COMPLETED|None", f"9_1|PENDING|{reason}"))
    assert states([]) == {} and not played.calls("squeue")
    assert states(["7", "9_0", "9_1", "7"]) == {
        "7": State("RUNNING"), "9_0": State("COMPLETED"), "9_1": State("PENDING", reason),
    }  # fmt: skip
    (call,) = played.calls("squeue")
    assert call.split()[-2:] == ["-j", "7,9_0,9_1"] and "-t all" in call and " -r " in call


def test_the_accounts_do_not_say_that_a_job_lives(played: FakeSlurm) -> None:
    played.answers("squeue", rows("5|PENDING|BeginTime"))
    played.answers("sacct", rows("5|NODE_FAIL", "6|RUNNING", "7|REQUEUED"))
    assert states(["5"])["5"].live and not played.calls("sacct")  # it is requeued
    assert set(states(["6", "7"]).values()) == {State("UNKNOWN")}


@pytest.mark.parametrize("sacct", [None, error("sacct: fatal: no dbd"), "exit 0"])
def test_without_accounting_a_forgotten_job_is_unknown(
    played: FakeSlurm, sacct: str | None
) -> None:
    assert states(["5"]) == {"5": State("UNKNOWN")}  # without any Slurm
    played.answers("squeue", error(FORGOTTEN))
    if sacct is not None:
        played.answers("sacct", sacct)
    assert states(["5"]) == {"5": State("UNKNOWN")}


def test_a_controller_that_is_away_is_asked_again(played: FakeSlurm) -> None:
    played.answers("squeue", error(DOWN), error(DOWN), rows("5|RUNNING|None"), error(DOWN))
    played.answers("sacct", rows("5|NODE_FAIL"))  # which would be wrong of a job just requeued
    assert states(["5"]) == {"5": State("RUNNING")}
    assert states(["5", "6"]) == dict.fromkeys(["5", "6"], State("UNKNOWN", NO_ANSWER))
    assert len(played.calls("squeue")) == 3 + module.TRIES and not played.calls("sacct")


def test_a_call_that_hangs_is_given_up(played: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    played.answers("squeue", "exec sleep 60", rows("5|RUNNING|None"))
    played.answers("sacct", "exec sleep 60")
    started = time.monotonic()
    assert states(["5", "6"]) == {"5": State("RUNNING"), "6": State("UNKNOWN")}
    assert time.monotonic() - started < 10


def test_a_persons_own_settings_of_squeue_hide_nothing(
    played: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_USERS", "nobody")
    monkeypatch.setenv("SLURM_CONF", "/etc/here.conf")
    played.answers("squeue", 'echo "5|RUNNING|$SQUEUE_USERS$SLURM_CONF"')
    assert states(["5"])["5"].reason == "/etc/here.conf"
    assert os.environ["SQUEUE_USERS"] == "nobody"
