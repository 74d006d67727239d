"""Start and end the processes of a job on this machine: ``controller.py FOLDER``.

submitit's own controller waits for every process, whatever becomes of the others: under NCCL those
that are left wait half an hour for a dead one. It ends a job by SIGINT alone, which is ignored by
all that a script's shell has started in the background.
"""

import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from submitit.core.utils import JobPaths
from submitit.local import local

from common.errors import INTERRUPTED_STATUS, STOPPED_STATUS
from common.files import atomic_write
from launch.slurm.job import STOPPED, error_file

TELL_S = 5.0  # between two SIGTERMs: a process that is starting may miss one
FAILING_S = 2.0  # for the others to fail by themselves and say why, once one has
SAVING_S = 600.0  # after SIGTERM, for process 0 to end by itself
LEAVING_S = 30.0  # for the others, once it has


class Controller(local.Controller):
    """submitit's controller, but for the end of a job.

    Attributes:
        status: exit status, once all processes have ended.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.pid = str(os.getpid())  # of the job, and not our parent's
        self.status, self._told = 0, False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: Any) -> None:
        self._told = True

    def wait(self, freq: int = 24) -> Sequence[int | None]:
        """Wait until all have ended; after SIGTERM, the time limit or a failure for a while only.

        A failure after SIGTERM follows from it, as where a collective loses a process that has
        left, and is none. :meth:`kill_tasks` ends those that are left.
        """
        limit, told_at, until = time.monotonic() + self.timeout_s, -math.inf, math.inf
        while True:
            now, codes = time.monotonic(), [task.poll() for task in self.tasks]
            failed = [k for k, code in enumerate(codes) if code not in (None, 0, *STOPPED)]
            self._told |= now > limit or any(code in STOPPED for code in codes)
            if self._told:
                until = min(until, now + (SAVING_S if codes[0] is None else LEAVING_S))
            elif failed and not self.status:
                self.status, until = 1, now + FAILING_S
                for task in failed:
                    self._explain(task, codes[task] or 0)
            if None not in codes or now > until:
                break
            if self._told and now > told_at + TELL_S:
                told_at = now
                self._forward_signal(signal.SIGTERM)
            time.sleep(1 / freq)
        if self._told and any(code != 0 for code in codes):
            self.status = self.status or STOPPED_STATUS
        return codes

    def kill_tasks(self) -> None:
        """End those that are left, and see them gone; a second Ctrl-C changes nothing."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        tasks = list(self.tasks)
        super().kill_tasks()
        for task in tasks:
            task.wait()

    def _explain(self, task: int, code: int) -> None:
        """Leave a sentence for a process that could leave nothing."""
        paths = JobPaths(self.folder, self.pid, task)
        if paths.result_pickle.exists():
            return
        how = f"ended with status {code}"
        if code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
            how += ", as when memory runs out" if code == -signal.SIGKILL else ""
        with atomic_write(error_file(paths), "w") as file:
            file.write(
                f"process {task} of {self.ntasks} {how}; its output is in {paths.stderr}, and the "
                "same command resumes the run."
            )


if __name__ == "__main__":
    controller = Controller(Path(sys.argv[1]))
    try:
        controller.run()
    except KeyboardInterrupt:
        controller.status = INTERRUPTED_STATUS
    sys.exit(controller.status)
