"""One finding of the doctor's."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from common.errors import UserError

Mark = Literal["ok", "warning", "missing"]
HANGING = " " * 9
LONG_S = 2.0


@dataclass(frozen=True)
class Check:
    """A thing that was looked for, and what was found."""

    name: str
    mark: Mark
    found: str
    mend: str = ""  # the command that mends it
    needed: bool = False  # by the job that was asked about

    def __str__(self) -> str:
        line = f"{self.mark:<8} {self.name}: {self.found}"
        return f"{line}\n{HANGING}to mend it: {self.mend}" if self.mend else line

    @property
    def stops(self) -> bool:
        """True if the job cannot run because of it."""
        return self.needed and self.mark == "missing"


def attempt(name: str, look: Callable[[], Check], mend: str = "", needed: bool = False) -> Check:
    """The check that ``look`` returns, with its time if that was long.

    A UserError means that the thing is missing.
    """
    started = time.monotonic()
    try:
        check = look()
    except UserError as error:
        return Check(name, "missing", str(error), mend, needed)
    seconds = time.monotonic() - started
    if seconds < LONG_S:
        return check
    return replace(check, found=f"{check.found} (counted in {seconds:.0f} s)")
