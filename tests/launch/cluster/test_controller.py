"""With what status SIGTERM ends a job on this machine, whose processes are shells here."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from submitit.core.utils import JobPaths, pickle_load

from launch.cluster import controller as module
from launch.cluster.controller import Controller

LEAVES = "trap 'touch left; exit 143' TERM; touch $0; while :; do sleep 0.02; done"
STAYS = "trap '' TERM INT; touch $0; while [ ! -e left ]; do sleep 0.02; done"
Control = Callable[[str, str], Controller]


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    """Run a job of two processes that gets SIGTERM a little after both are there."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "LEAVING_S", 0.5)

    def tell() -> None:
        until = time.monotonic() + 30
        while not (Path("0").exists() and Path("1").exists()) and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)

    def call(*processes: str) -> Controller:
        for rank, does in enumerate(processes):
            Path(f"does{rank}").write_text(does)
        does = """sh -c 'exec sh -c "$(cat does$SUBMITIT_LOCAL_LOCALID)" $SUBMITIT_LOCAL_LOCALID'"""
        told = {"COMMAND": does, "NTASKS": "2", "TIMEOUT_S": "60", "SIGNAL_DELAY_S": "0"}
        for name, value in {**told, "WITH_SHELL": ""}.items():
            monkeypatch.setenv(f"SUBMITIT_LOCAL_{name}", value)
        monkeypatch.setenv("SUBMITIT_STDERR_TO_STDOUT", "")
        controller = Controller(tmp_path / "files")
        threading.Thread(target=tell, daemon=True).start()
        controller.run()
        return controller

    yield call
    for number, handler in before.items():
        signal.signal(number, handler)


def test_who_fails_because_another_has_left_does_not_count(control: Control) -> None:
    controller = control(f"{STAYS}; exit 1", LEAVES)
    assert controller.status == 143
    assert not JobPaths(controller.folder, controller.pid, 0).result_pickle.exists()


def test_who_is_killed_before_sigterm_is_named(control: Control) -> None:
    controller = control(LEAVES, "touch $0; kill -9 $$")
    assert controller.status == 1
    paths = JobPaths(controller.folder, controller.pid, 1)
    assert "process 1 of 2 was killed by SIGKILL" in pickle_load(paths.result_pickle)[1]


def test_the_main_process_has_its_time_to_save(control: Control) -> None:
    assert control(f"{STAYS}; sleep 3; touch saved; exit 143", LEAVES).status == 143
    assert Path("saved").exists()


def test_who_stays_when_the_main_process_has_ended_is_ended(control: Control) -> None:
    started = time.monotonic()
    assert control(LEAVES, f"{STAYS}; while :; do sleep 0.02; done").status == 143
    assert time.monotonic() - started < 20
