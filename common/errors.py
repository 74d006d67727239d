"""The one exception for mistakes that a user can make and mend."""

import functools
import sys
from collections.abc import Callable

USER_ERROR_STATUS = 2
STOPPED_STATUS = 143  # a shell's for SIGTERM


class UserError(Exception):
    """A mistake of the user's, in one sentence: what, where, and what to do.

    Commands print the sentence on stderr and exit with status 2; no traceback is shown.
    """


def option(field: str) -> str:
    """The option of a dataclass's field, as it is typed: ``--batch-size`` of ``batch_size``."""
    return f"--{field.replace('_', '-')}"


def command(main: Callable[..., int | None]) -> Callable[..., None]:
    """Make a console command of ``main``: its :class:`UserError` is a line on stderr, status 2."""

    @functools.wraps(main)
    def wrapper(*args: object, **kwargs: object) -> None:
        try:
            status = main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            status = USER_ERROR_STATUS
        except KeyboardInterrupt:
            print("interrupted; the same command resumes", file=sys.stderr, flush=True)
            status = 130
        sys.exit(status or 0)

    return wrapper
