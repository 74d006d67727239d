"""Tables on the terminal."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 200  # where no terminal has one


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str = ""
) -> "Table":
    """A table of text, as it stands: brackets mean nothing."""
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title, caption=caption or None)
    for name in columns:
        made.add_column(name, overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str = ""
) -> None:
    """Print a table; rows as wide as 200 characters where no terminal has a width."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else WIDTH).print(
        table(title, columns, rows, caption)
    )
