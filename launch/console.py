"""Tables on the terminal."""

import sys
from collections.abc import Iterable, Sequence


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str = ""
) -> None:
    """Print a table; rows as wide as 200 characters where no terminal has a width."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, caption=caption or None)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 200).print(table)
