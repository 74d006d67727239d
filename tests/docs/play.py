"""``python -m tests.docs.play PREPARED``: run commands, each in a copy of a folder.

Commands come as JSON on the standard input: words, such as ``["launch/pretrain.py", "--help"]``,
variables, and whether to run in the folder itself. Their status and output go to standard output.
A command is a fork of this process, which has imported what takes seconds; otherwise it is what
``python`` and these words would be.
"""

import importlib
import json
import os
import runpy
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 600  # of a command, on a busy machine
Command = tuple[list[str], dict[str, str], bool]
HEAVY = (
    *("detection.convert", "detection.train", "segmentation.train", "launch.tables.summary"),
    *("launch.slurm.executor", "pretrain.train", "pretrain.evaluation.classifier"),
)


def enter(words: list[str]) -> None:
    """Become ``python`` with these words."""
    if words[0] == "-c":
        exec(words[1], {})
    elif words[0] == "-m":
        sys.argv = [words[1], *words[2:]]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [str(ROOT / words[0]), *words[1:]]
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")


def child(words: list[str], variables: dict[str, str], here: Path, output: Path) -> int:
    """Run the words in this process, a fork, and return its status."""
    signal.alarm(LIMIT_S)
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(here)
    os.environ.update(variables)
    try:
        enter(words)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def play(command: Command, prepared: Path) -> tuple[int, str]:
    """The status and output of one command."""
    words, variables, keep = command
    with tempfile.TemporaryDirectory(dir=prepared.parent) as scratch:
        here, output = prepared, Path(scratch) / "output.txt"
        if not keep:
            here = Path(scratch) / "here"
            shutil.copytree(prepared, here, symlinks=True, copy_function=os.link)
        pid = os.fork()
        if not pid:
            status = child(words, variables, here, output)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return status, output.read_text()


def main() -> None:
    """Play all of them."""
    prepared = Path(sys.argv[1])
    commands: list[Command] = json.load(sys.stdin)
    for module in HEAVY:
        importlib.import_module(module)
    found = [play(command, prepared) for command in commands]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
