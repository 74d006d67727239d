"""A cluster's settings, typed once: ``~/.config/lewel-transfer/slurm.toml`` or the environment.

    partition = "gpu"
    account = "vision"
    slurm = { reservation = "x" }

    [env]
    NCCL_SOCKET_IFNAME = "ib0"

They are the defaults of the options of the same names, for jobs that go to Slurm. A variable such
as ``LEWEL_SLURM_PARTITION`` comes before the file, and what is typed before both.
"""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from common.errors import UserError, option
from common.files import read_toml, settings_file
from launch.slurm.resources import Resources, problem, resolve_cluster, sbatch_options

Command = TypeVar("Command")

PREFIX = "LEWEL_SLURM_"
NAMES = tuple(f.name for f in fields(Resources) if f.name not in ("cluster", "wait"))
SBATCH = ("partition", "account", "qos", "constraint")  # by Slurm's own variables, too
JOBS_OWN = ("PYTHONPATH", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR",
            "MASTER_PORT", "SUBMITIT_EXECUTOR")  # fmt: skip
KINDS = {int: "a whole number", float: "a number", str: "text", tuple: "a list or table of text"}


def file() -> Path:
    """The path of the settings, which need not exist."""
    return settings_file("slurm.toml")


def ignored() -> list[str]:
    """Variables of Slurm's own for sbatch that no job is submitted with."""
    used = {f"SBATCH_{name.upper()}" for name in SBATCH}
    return sorted(n for n in os.environ if n.startswith("SBATCH_") and n not in used)


def resources() -> Resources:
    """The defaults of this site; what is wrong is named with its file and key, or variable."""
    found: dict[str, Any] = {}
    for key, value in read_toml(file()).items():
        if key != "env":
            name = key.replace("-", "_")
            found[name] = _checked(name, value, f"{file()}: {key}")
    variables = {f"SBATCH_{name.upper()}": name for name in SBATCH}
    variables |= {f"{PREFIX}{name.upper()}": name for name in NAMES}
    for variable in (name for name in os.environ if name.startswith(PREFIX)):
        if variable not in variables:
            raise UserError(f"{variable} is no setting; those are {', '.join(variables)}.")
    for variable, name in variables.items():
        text = os.environ.get(variable)
        if text:
            found[name] = _checked(name, _parsed(name, text), f"{variable}={text}")
    return replace(Resources(), **found)


def environment() -> dict[str, str]:
    """The variables that are set in every job on Slurm: the table ``[env]``."""
    table = read_toml(file()).get("env", {})
    if not isinstance(table, dict):
        raise UserError(f'{file()}: env: must be a table, such as [env] and NCCL_DEBUG = "INFO".')
    for name, value in table.items():
        if name in JOBS_OWN or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UserError(f"{file()}: env.{name}: cannot be set here; leave it out.")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise UserError(f"{file()}: env.{name}: must be text or a number.")
    return {name: str(value) for name, value in table.items()}


def kept_to_slurm(command: Command, words: Sequence[str]) -> Command:
    """A parsed command, whose ``resources`` are :func:`resources` and what was typed in ``words``.

    If its job does not go to Slurm, the site's settings are taken out again.
    """
    mine = getattr(command, "resources", None)
    if not isinstance(mine, Resources) or resolve_cluster(Resources(mine.cluster)) == "slurm":
        return command
    typed = {word.partition("=")[0].replace("_", "-") for word in words}
    plain = {name: getattr(Resources(), name) for name in NAMES if option(name) not in typed}
    changes: dict[str, Any] = {"resources": replace(mine, **plain)}
    return replace(command, **changes)  # type: ignore[type-var]


def _kind(name: str) -> type:
    hint = str(get_type_hints(Resources)[name])
    return next(kind for kind in (tuple, float, int, str) if kind.__name__ in hint)


def _parsed(name: str, text: str) -> Any:
    """A variable's text as a value; as it stands if it is no such value."""
    kind = _kind(name)
    try:
        return shlex.split(text) if kind is tuple else kind(text)
    except ValueError:
        return text if kind is not str else ""


def _checked(name: str, value: Any, where: str) -> Any:
    """A setting as the field's value; a UserError begins with ``where``."""
    if name not in NAMES:
        raise UserError(f"{where}: is no setting; those are {', '.join(NAMES)} and env.")
    kind = _kind(name)
    if kind is tuple:
        words = _words(value)
        if words is not None:
            sbatch_options(words, f"{where}:")
            return words
    accepted: Mapping[type, Any] = {float: int | float, int: int, str: str, tuple: ()}
    if isinstance(value, bool) or not isinstance(value, accepted[kind]) or value == "":
        raise UserError(f"{where}: must be {KINDS[kind]}.")
    if problem(name, value):
        raise UserError(f"{where}: {problem(name, value)}.")
    return kind(value)


def _words(value: Any) -> tuple[str, ...] | None:
    """KEY=VALUE words of a list or a table; None if it is neither."""
    if isinstance(value, dict) and all(isinstance(v, str | int | float) for v in value.values()):
        return tuple(k if v is True else f"{k}={v}" for k, v in value.items() if v is not False)
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return tuple(value)
    return None
