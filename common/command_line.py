"""Command lines as dataclasses or functions: their help, and mistyped options.

tyro reads the words; the help is ours, for it is to fit one screen.
"""

import dataclasses
import difflib
import inspect
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import docstring_parser
import tyro

from common.errors import UserError, option

RARE = {"rare": True}
"""Metadata of a field that ``--help`` only names where it could not describe all on a screen."""

LINES, COLUMNS = 48, 100  # of a screen
INDENT = 27  # of descriptions
NAMES: dict[Any, str] = {int: "N", float: "X", str: "TEXT", Path: "PATH"}  # of values, by type
# --epochs and not --config.epochs; --fresh without a --no-fresh.
STYLE = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
SENTENCE = re.compile(r"(?<=\.)\s+")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Option:
    """An option of a command; without a ``name`` an argument, which its place tells."""

    name: str
    value: str  # as it is to be typed; "" for a flag
    sentences: Sequence[str]
    default: str  # in words; "" where nothing is to be said
    rare: bool

    def lines(self, width: int, whole: bool) -> list[str]:
        """The option as typed, and its first sentence or all of them, in a line if they fit."""
        typed = f"  {f'{self.name} {self.value}'.strip()}"
        text = " ".join(self.sentences) if whole else "".join(self.sentences[:1]).rstrip(".")
        text += f" (default: {self.default})" if self.default else ""
        first, rest = f"{typed:<{INDENT - 2}}  ", " " * INDENT
        return textwrap.wrap(
            text or "-", width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
        )


def parse(
    command: Callable[..., Result], prog: str, arguments: Sequence[str] | None = None
) -> Result:
    """The command line, by default this process's, as a ``command``.

    ``--help`` and ``--help-all`` are answered here. An option that does not exist is a UserError;
    of other mistakes tyro tells, and exits with status 2.
    """
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    if {"-h", "--help", "--help-all"} & {*words}:
        print(help_of(command, prog, whole="--help-all" in words))
        sys.exit(0)
    names = [one.name for _, options in groups(command) for one in options if one.name]
    for word in words:
        require_known(word, names)
    return tyro.cli(command, prog=prog, args=words, config=STYLE)


def require_known(word: str, names: Iterable[str]) -> None:
    """Raise a UserError with the nearest of ``names`` for a word that is an option, but not one.

    One dash is taken for two only where there is such an option.
    """
    typed = word.partition("=")[0].replace("_", "-")
    if not re.match(r"--?[A-Za-z]", typed) or typed in names or typed.startswith("--tyro-"):
        return
    near = _nearest(f"--{typed.lstrip('-')}", [*names])
    if near:
        raise UserError(f"unknown option {word.partition('=')[0]}; did you mean {near}?")
    if typed.startswith("--"):
        raise UserError(f"unknown option {typed}; --help-all describes those that there are.")


def _nearest(word: str, names: Sequence[str]) -> str:
    """The option that was meant, "" if none is like it: ``--lr`` for ``--learning-rate``, too."""
    initials = "--" + "".join(part[:1] for part in word[2:].split("-"))
    begun = [name for name in names if name == word or name.startswith(f"{word}-")]
    like = difflib.get_close_matches(word, names, n=1, cutoff=0.7)
    short = [name for name in names if name == initials]
    return next(iter([*begun, *like, *short]), "")


def help_of(command: Callable[..., Any], prog: str, whole: bool = False) -> str:
    """The help of a command: what fits one screen, or with ``whole`` all that there is to say."""
    width = min(shutil.get_terminal_size((COLUMNS, LINES)).columns, COLUMNS)
    found = groups(command)
    arguments = [one.value for _, options in found for one in options if not one.name]
    about = re.split(r"\n\n(?=\w+:\n)", inspect.getdoc(command) or "")  # as Args:
    head = [f"usage: {' '.join([prog, *arguments, '[OPTIONS]'])}", ""]
    for paragraph in about[0].split("\n\n"):
        head += [*textwrap.wrap(" ".join(paragraph.split()), width), ""]

    def body(wanted: Callable[[Option], bool]) -> list[str]:
        lines = []
        for title, options in found:
            lines += [f"{title}:"]
            for one in filter(wanted, options):
                lines += one.lines(width, whole)
            lines += [""] * whole
        return lines

    text = "Describe each option in full"
    lines = body(lambda _: True)
    if not whole and len(head + lines) >= LINES:
        lines = body(lambda one: not one.rare)
        rare = [one.name for _, options in found for one in options if one.rare]
        text += f"; here not described: {' '.join(rare)}"
    lines += Option("--help-all", "", [text], "", False).lines(width, whole=True)
    return "\n".join([*head, *lines])


def groups(command: Callable[..., Any]) -> list[tuple[str, list[Option]]]:
    """The options of a command under headings: its own, and those of each dataclass in it."""
    found = _groups(command, None, "options")
    return [(title, options) for title, options in found if options]


def _groups(kind: Any, values: Any, title: str) -> list[tuple[str, list[Option]]]:
    """``values`` has the defaults, if they are not the dataclass's own."""
    hints, texts = get_type_hints(kind, include_extras=True), _texts(kind)
    options, inner = [], []
    for name, default, metadata in _parameters(kind):
        value = default if values is None else getattr(values, name)
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            heading = (inspect.getdoc(hint) or "").partition(".")[0]
            inner += _groups(hint, value, heading[:1].lower() + heading[1:])
        else:
            options.append(_option(name, hint, texts.get(name, ""), value, default, metadata))
    return [(title, options), *inner]


def _parameters(kind: Any) -> list[tuple[str, Any, Any]]:
    """Name, default and metadata of each; of a dataclass those first that its base lacks."""
    if not dataclasses.is_dataclass(kind):
        parameters = inspect.signature(kind).parameters.values()
        return [(one.name, one.default, {}) for one in parameters]
    assert isinstance(kind, type)
    order = [name for one in kind.__mro__ for name in vars(one).get("__annotations__", {})]
    found = []
    for one in sorted(dataclasses.fields(kind), key=lambda one: order.index(one.name)):
        default = one.default
        if not isinstance(one.default_factory, dataclasses._MISSING_TYPE):
            default = one.default_factory()
        missing = default is dataclasses.MISSING
        found.append((one.name, inspect.Parameter.empty if missing else default, one.metadata))
    return found


def _texts(kind: Any) -> dict[str, str]:
    """The description of each parameter in docstrings; a dataclass inherits it."""
    kinds = reversed(kind.__mro__) if isinstance(kind, type) else [kind]
    texts = {}
    for one in kinds:
        for parameter in docstring_parser.parse(one.__doc__ or "").params:
            texts[parameter.arg_name] = " ".join((parameter.description or "").split())
    return texts


def _option(name: str, hint: Any, text: str, value: Any, plain: Any, metadata: Any) -> Option:
    marks = getattr(hint, "__metadata__", ())
    kind = get_args(hint)[0] if marks else hint
    some = () if get_origin(kind) is Literal else get_args(kind)
    kinds = [one for one in some if one is not NoneType] or [kind]
    sentences = SENTENCE.split(text) if text else []
    told = [one for one in sentences if one.startswith("Default: ")]
    default = _in_words(value) or "".join(told).removeprefix("Default: ").rstrip(".")
    if value != plain:
        default += ", this site's"
    if value is inspect.Parameter.empty:
        default = ""
        sentences = [f"{sentences[0].rstrip('.')} (required)", *sentences[1:]]
    typed = [mark for mark in marks if hasattr(mark, "metavar")]
    shown = next((mark.metavar for mark in typed if mark.metavar), None)
    if shown is None and get_origin(kinds[0]) is Literal:
        shown = "|".join(map(str, get_args(kinds[0])))
    elif shown is None:
        shown = NAMES.get(kinds[0], "" if kind is bool else "True|False")
    named = next((option(mark.name) for mark in typed if mark.name), option(name))
    if tyro.conf.Positional in marks:
        named, shown = "", name.upper()
    return Option(
        named,
        shown,
        [one for one in sentences if one not in told],
        default,
        bool(metadata.get("rare")),
    )


def _in_words(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
