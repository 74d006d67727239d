"""squeue and sacct that play a part: each of their answers is also a moment of a job."""

from pathlib import Path

DOWN = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
FORGOTTEN = "slurm_load_jobs error: Invalid job id specified"


class PlayedSlurm:
    """Commands on the PATH, which has no others, with an answer for each time they are called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def answers(self, command: str, *scripts: str) -> None:
        """Set what a command does the first time it is called, the second, ...; the last for good.

        The answers of the tests are those that Slurm 22.05 gave.
        """
        for number, script in enumerate(scripts, start=1):
            (self.folder / f"{command}.{number}").write_text(script + "\n")
        path, here = self.folder / command, f"{self.folder}/{command}"
        path.write_text(
            f'#!/bin/sh\nPATH=/usr/bin:/bin\necho "$*" >> {here}.calls\nn=$(wc -l < {here}.calls)\n'
            f"while [ ! -f {here}.$n ]; do n=$((n - 1)); done\n. {here}.$n\n"
        )
        path.chmod(0o755)

    def calls(self, command: str) -> list[str]:
        calls = self.folder / f"{command}.calls"
        return calls.read_text().splitlines() if calls.exists() else []


def rows(*lines: str) -> str:
    return "\n".join(f"echo '{line}'" for line in lines)


def error(text: str, status: int = 1) -> str:
    return f"echo '{text}' >&2\nexit {status}"
