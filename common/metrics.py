"""``metrics.jsonl``: one JSON object per logged step, in order, with no step twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.files import atomic_write


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl``; one that a kill cut short is left out."""
    rows = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return rows


def rewind(path: Path, key: str, before: int) -> None:
    """Drop the lines whose ``key`` is ``before`` or later: a resumed job writes them again.

    Before step 0 there are only evaluations of the start, which belong to it: 0 drops all lines.
    """
    drop(path, lambda row: not before or row.get(key, -1) >= before)


def drop(path: Path, unwanted: Callable[[dict[str, Any]], bool]) -> None:
    """Drop the lines for which ``unwanted`` is true, and one that a kill cut short."""
    rows = [row for row in read_lines(path) if not unwanted(row)]
    with atomic_write(path, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


class MetricsLog:
    """A ``metrics.jsonl`` to append to, rewound to ``step``."""

    def __init__(self, path: Path, step: int) -> None:
        rewind(path, "step", step)
        self._file = open(path, "a", buffering=1)  # noqa: SIM115

    def write(self, row: dict[str, Any]) -> None:
        """Append one line; it is with the operating system when this returns."""
        self._file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
