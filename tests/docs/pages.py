"""The README and the pages of ``docs/``: their blocks, headings, links and tables."""

import functools
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
)
SHELL = ("", "sh", "bash")
DATA = ("toml", "yaml")

# Programs are written down by bash instead of being run: loops, variables and comments are its own.
RECORD = r"""
command_not_found_handle() { printf '%s\x1f' "$@" >> "$CALLS"; echo >> "$CALLS"; }
PATH=/nowhere
"""


@dataclass(frozen=True)
class Block:
    """A block of code."""

    page: str
    language: str
    text: str


@functools.cache
def tokens(page: Path) -> list[Token]:
    """A page in markdown-it's tokens."""
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def blocks() -> Iterator[Block]:
    """All blocks of code, indented ones and fences."""
    for page in PAGES:
        for token in tokens(page):
            if token.type in ("code_block", "fence"):
                yield Block(page.name, token.info, token.content)


def calls(shell: str, scratch: Path) -> list[list[str]]:
    """The programs that a block of shell would start, with their arguments."""
    done = subprocess.run(
        ["/bin/bash", "-euc", RECORD + shell],
        env={"CALLS": str(scratch), "HOME": str(scratch.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and not done.stderr, f"{shell}\n{done.stderr}"
    lines = scratch.read_text().splitlines() if scratch.exists() else []
    scratch.unlink(missing_ok=True)
    return [line.split("\x1f")[:-1] for line in lines]


def links(page: Path) -> Iterator[str]:
    """Targets of a page's links and images."""
    for token in tokens(page):
        for child in token.children or ():
            target = child.attrs.get("href") or child.attrs.get("src")
            if target:
                yield str(target)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = zip(tokens(page), tokens(page)[1:], strict=False)
    titles = [after.content for token, after in found if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def tables(page: Path) -> Iterator[list[dict[str, str]]]:
    """The tables of a page: rows by their columns' names, as they are written."""
    rows: list[list[str]] = []
    for token, after in zip(tokens(page), tokens(page)[1:], strict=False):
        if token.type == "table_open":
            rows = []
        elif token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            rows[-1].append(after.content)
        elif token.type == "table_close":
            yield [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
