"""Slurm's commands as shell scripts, for what is told to them; tests/slurm has a real Slurm."""

from collections.abc import Mapping
from pathlib import Path

SCRIPTS = {
    "sbatch": """
        if [ -e "$here/refusal" ]; then cat "$here/refusal" >&2; exit 1; fi
        job=$(( $(cat "$here/last" 2>/dev/null || echo 100) + 1 ))
        echo $job > "$here/last"
        # Ctrl-C goes to all that the terminal's command has started.
        [ -e "$here/ctrl-c" ] && kill -INT $PPID $$
        if [ -e "$here/slow" ]; then /bin/sleep 1; fi
        cp "$1" "$here/$job.sh"
        env > "$here/$job.env"
        echo "Submitted batch job $job"
    """,
    "squeue": """[ -e "$here/down" ] && exit 1; cat "$here/queue" 2>/dev/null; exit 0""",
    "sacct": "exit 1",
    "scancel": """echo "$@" >> "$here/cancelled" """,
    "srun": "exit 0",
    "sleep": "exit 0",
}
DOWN = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
FORGOTTEN = "slurm_load_jobs error: Invalid job id specified"


class FakeSlurm:
    """The commands, in a folder for the PATH, with the files that they read and write."""

    def __init__(self, folder: Path, scripts: Mapping[str, str]) -> None:
        self.folder = folder
        for name, script in scripts.items():
            self._make(name, f'here=$(dirname "$0")\n{script}')

    def _make(self, command: str, script: str) -> None:
        # Another sh may let signals through that were held back.
        (self.folder / command).write_text(f"#!/bin/bash\n{script}\n")
        (self.folder / command).chmod(0o755)

    def say(self, name: str, text: str = "") -> None:
        """Write the file ``name`` that a command looks for."""
        (self.folder / name).write_text(text)

    def read(self, name: str) -> str:
        """A file that a command has written; "" if there is none."""
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def script(self, job: int = 101) -> list[str]:
        """The lines of a submission."""
        return self.read(f"{job}.sh").splitlines()

    def environment(self, job: int = 101) -> dict[str, str]:
        """The environment of a submission."""
        lines = self.read(f"{job}.env").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def answers(self, command: str, *scripts: str) -> None:
        """Set what a command does the first time it is called, the second, ...; the last for good.

        The answers of the tests are those that Slurm 22.05 gave.
        """
        for number, script in enumerate(scripts, start=1):
            self.say(f"{command}.{number}", script + "\n")
        here = f"{self.folder}/{command}"
        self._make(
            command,
            f'PATH=/usr/bin:/bin\necho "$*" >> {here}.calls\nn=$(wc -l < {here}.calls)\n'
            f"while [ ! -f {here}.$n ]; do n=$((n - 1)); done\n. {here}.$n",
        )

    def calls(self, command: str) -> list[str]:
        """The options of each call of a command that :meth:`answers`."""
        return self.read(f"{command}.calls").splitlines()


def rows(*lines: str) -> str:
    """An answer of lines."""
    return "\n".join(f"echo '{line}'" for line in lines)


def error(text: str, status: int = 1) -> str:
    """An answer that is a failure."""
    return f"echo '{text}' >&2\nexit {status}"
