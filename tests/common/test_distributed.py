"""Processes that join a group, and that fork while they belong to it."""

import os
import time
from typing import Any

import pytest
import torch
import torch.distributed as dist

from common import distributed
from common.distributed import REST_S, World
from tests.processes import in_processes


def _fork(world: World) -> None:
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert time.monotonic() - started >= REST_S
    os.waitpid(pid, 0)


def test_the_threads_of_a_process_group_come_to_rest_before_a_fork() -> None:
    in_processes(_fork)


@pytest.mark.parametrize("device", ["cuda:1", "cpu"])
def test_a_process_on_a_gpu_tells_the_group_which(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL then connects at once, and does not guess the GPU from the rank."""
    told: list[Any] = []

    def join(backend: str, timeout: Any, device_id: Any) -> None:
        told.extend((backend, device_id))

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "_device", lambda *_: torch.device(device))
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(dist, "init_process_group", join)
    distributed.start()
    assert told == (["gloo", None] if device == "cpu" else ["nccl", torch.device(device)])
