"""The process that starts those of a job on this machine, and ends them: ``controller.py FOLDER``.

submitit's own waits for every process, whatever becomes of the others: under NCCL those that are
left wait half an hour for a dead one. It ends a job by SIGINT alone, which is ignored by all that a
script's shell has started in the background.
"""

import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from submitit.core.utils import JobPaths, cloudpickle_dump, temporary_save_path
from submitit.local import local

from common.errors import INTERRUPTED_STATUS, STOPPED_STATUS

STOPPED = (STOPPED_STATUS, -signal.SIGTERM)
TELL_S = 5.0  # between two SIGTERMs: a process that is starting may miss one
FAILING_S = 2.0  # for the others to fail by themselves and say why, once one has
SAVING_S = 600.0  # after SIGTERM, for process 0 to end by itself
LEAVING_S = 30.0  # for the others, once it has


class Controller(local.Controller):
    """submitit's, but for the end of a job.

    Attributes:
        status: what to exit with once all processes have ended.
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

        A failure after SIGTERM follows from it, as where a collective loses who has left, and is
        none. :meth:`kill_tasks` ends those that are left.
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
                self._explain(failed, codes)
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

    def _explain(self, failed: Sequence[int], codes: Sequence[int | None]) -> None:
        """Leave an error in the place of a process that could leave none."""
        for task in failed:
            paths, code = JobPaths(self.folder, self.pid, task), codes[task] or 0
            if paths.result_pickle.exists():
                continue
            how = f"ended with status {code}"
            if code < 0:
                how = f"was killed by {signal.Signals(-code).name}"
                how += ", as when memory runs out" if code == -signal.SIGKILL else ""
            error = (
                f"common.errors.UserError: process {task} of {self.ntasks} {how}; its output is "
                f"in {paths.stderr}, and the same command resumes the run."
            )
            with temporary_save_path(paths.result_pickle) as path:
                cloudpickle_dump(("error", error), path)


if __name__ == "__main__":
    controller = Controller(Path(sys.argv[1]))
    try:
        controller.run()
    except KeyboardInterrupt:
        controller.status = INTERRUPTED_STATUS
    sys.exit(controller.status)
