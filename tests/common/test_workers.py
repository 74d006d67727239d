"""Workers of a data loader outlive a cluster's SIGTERM, but not their own process's."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

from torch.utils.data import DataLoader, IterableDataset

from common.workers import outlive_sigterm

OTHER = "import os, signal, sys; os.kill(int(sys.argv[1]), signal.SIGTERM)"


class Pids(IterableDataset[int]):
    """The worker's process id, for ever."""

    def __iter__(self) -> Iterator[int]:
        while True:
            yield os.getpid()


def test_a_worker_outlives_the_signal_of_another_process() -> None:
    loader = DataLoader(Pids(), batch_size=None, num_workers=1, worker_init_fn=outlive_sigterm)
    pids = iter(loader)
    pid = next(pids)
    subprocess.run([sys.executable, "-c", OTHER, str(pid)], check=True)
    assert {next(pids) for _ in range(20)} == {pid}
    os.kill(pid, signal.SIGTERM)  # its parent is this process
    for _ in range(100):
        if not alive(pid):
            break
        signal.sigtimedwait([], 0.1)
    assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
