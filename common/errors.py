"""The one exception for mistakes that a user can make and mend."""

import functools
import os
import select
import signal
import sys
from collections.abc import Callable

USER_ERROR_STATUS = 2
INTERRUPTED_STATUS = 130  # a shell's for Ctrl-C
STOPPED_STATUS = 143  # and for SIGTERM


class UserError(Exception):
    """A mistake of the user's, in one sentence: what, where, and what to do.

    Commands print the sentence on stderr and exit with status 2; no traceback is shown.
    """


def option(field: str) -> str:
    """The option of a dataclass's field, as it is typed: ``--batch-size`` of ``batch_size``."""
    return f"--{field.replace('_', '-')}"


def command(main: Callable[..., int | None]) -> Callable[..., None]:
    """Make a console command of ``main``: its :class:`UserError` is a line on stderr, status 2.

    Where nobody reads its output any more, as with ``| head``, it ends as SIGPIPE ends others.
    """

    @functools.wraps(main)
    def wrapper(*args: object, **kwargs: object) -> None:
        status: int | str | None
        try:
            try:
                status = main(*args, **kwargs)
            except UserError as error:
                print(f"error: {error}", file=sys.stderr, flush=True)
                status = USER_ERROR_STATUS
            except KeyboardInterrupt:
                print("interrupted; the same command resumes", file=sys.stderr, flush=True)
                status = INTERRUPTED_STATUS
            except SystemExit as end:
                status = end.code
            sys.stdout.flush()
        except BrokenPipeError:
            if not _has_no_reader(1):
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes once more at its end
            status = 128 + signal.SIGPIPE
        sys.exit(status or 0)

    return wrapper


def _has_no_reader(pipe: int) -> bool:
    """True if nobody reads what is written to this file descriptor."""
    poll = select.poll()
    poll.register(pipe, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
