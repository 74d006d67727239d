"""The command line of ``tools/slurm-sandbox``."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from slurm_sandbox import cluster, packages
from slurm_sandbox.layout import FOLDER_VARIABLE, PORT_VARIABLE, SandboxError, default_folder

DESCRIPTION = f"""\
A real, private Slurm cluster of virtual nodes on this machine (Debian, root).

  slurm-sandbox install                install Slurm's packages with apt; no other verb does
  eval "$(slurm-sandbox start)"        start what does not run, and point this shell at it
  slurm-sandbox status                 daemons, nodes and jobs; succeeds if all is up
  slurm-sandbox kill slurmd.n1         SIGKILL a daemon; start brings it back
  slurm-sandbox stop --purge           end the jobs and the daemons, delete the folder

Partitions: main, the default, and high, whose jobs preempt those in main. Everything is in the
folder that {FOLDER_VARIABLE} names (here {default_folder()}); accounts of past jobs
stay there until stop --purge. {PORT_VARIABLE} names the first port, else
a free block is taken.
"""


def parser() -> argparse.ArgumentParser:
    """What can be typed."""
    result = argparse.ArgumentParser(
        prog="slurm-sandbox",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = result.add_subparsers(dest="verb", required=True, metavar="VERB", help="(its --help)")
    for verb in ("install", "start"):
        added = verbs.add_parser(verb)
        added.add_argument(
            "--accounting",
            action=argparse.BooleanOptionalAction,
            help="slurmdbd and a database, so that sacct answers (default: with)",
        )
        if verb == "start":
            added.add_argument("--nodes", type=_between(1, 50), help="virtual nodes (default: 2)")
            added.add_argument(
                "--gpus-per-node", type=_between(0, 64), help="stand-ins (default: 2)"
            )
            added.add_argument(
                "--cpus-per-node", type=_between(1, 1024), help="may exceed reality (default: 8)"
            )
    stop = verbs.add_parser("stop")
    stop.add_argument("--purge", action="store_true", help="delete the folder too")
    verbs.add_parser("status")
    for verb in ("kill", "pid"):
        verbs.add_parser(verb).add_argument("daemon", help="such as slurmctld or slurmd.n1")
    return result


def _between(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not between {low} and {high}")
        return value

    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; the exit status."""
    options = parser().parse_args(arguments)
    os.umask(0o022)
    try:
        return _verb(options, default_folder())
    except SandboxError as error:
        print(f"slurm-sandbox: {error}", file=sys.stderr)
        return error.status


def _verb(options: argparse.Namespace, folder: Path) -> int:
    match options.verb:
        case "install":
            packages.install(options.accounting is not False)
        case "start":
            names = ("nodes", "gpus_per_node", "cpus_per_node", "accounting")
            typed = {name: getattr(options, name) for name in names}
            wanted = {name: value for name, value in typed.items() if value is not None}
            sandbox = cluster.start(folder, wanted | _port())
            print(f"slurm-sandbox: {sandbox.options.nodes} node(s) are up", file=sys.stderr)
            print(f"export SLURM_CONF={sandbox.conf}")
        case "stop":
            stopped = cluster.stop(folder, options.purge)
            said = "stopped" if stopped else f"nothing to stop in {folder}"
            print(f"slurm-sandbox: {said}", file=sys.stderr)
        case "status":
            return 0 if cluster.status(folder) else 1
        case "kill":
            cluster.kill(folder, options.daemon)
        case "pid":
            print(cluster.pid(folder, options.daemon))
    return 0


def _port() -> dict[str, int]:
    text = os.environ.get(PORT_VARIABLE)
    if not text:
        return {}
    if not text.isdecimal() or not 1024 <= int(text) <= 65_000:
        raise SandboxError(f"{PORT_VARIABLE}={text} is not a port from 1024 to 65000.", status=2)
    return {"port": int(text)}
