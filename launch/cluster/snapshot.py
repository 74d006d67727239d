"""The code of a job on Slurm, as it was at submission: edits made while it queues change nothing.

``runs/code/<commit>-<hash>/`` holds what jobs import, named by its contents, so that submissions
of unchanged code share one folder.
"""

import errno
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import UserError
from common.provenance import COMMIT, ROOT, SOURCES, git_commit

OTHERS = ("LICENSE", "pyproject.toml")
ENDINGS = (".csv", ".json", ".py", ".txt", ".yaml", ".yml")  # of what git does not know
USERS = "submissions"  # in a snapshot: an empty file for each submission
TRIES, PAUSE_S = 100, 0.1


@contextmanager
def snapshot(output_dir: Path, root: Path = ROOT) -> Iterator[Path]:
    """A copy of the code in ``output_dir``, kept for good unless the block raises.

    Then it is deleted if no other submission uses it.

    Raises:
        OSError: if it cannot be written.
    """
    mark = _mark(output_dir / "runs" / "code", root)
    users = mark.parent
    try:
        yield users.parent
    except BaseException:
        with suppress(OSError):
            mark.unlink()
            users.rmdir()  # fails while it has other marks; without it nobody can add one
            shutil.rmtree(users.parent)
            users.parent.parent.rmdir()
        raise


def _mark(snapshots: Path, root: Path) -> Path:
    """Take a snapshot unless there is one, and this submission's mark in it."""
    files = {path: (root / path).read_bytes() for path in _sources(root)}
    commit = git_commit(root)
    files[Path(COMMIT)] = f"{commit}\n".encode()
    digest = hashlib.sha256()
    for path, data in sorted(files.items()):
        digest.update(f"{path}\0{len(data)}\0".encode() + data)
    folder = snapshots / f"{commit.rstrip('+') or 'no-commit'}-{digest.hexdigest()[:8]}"
    for _ in range(TRIES):
        with suppress(FileNotFoundError):  # a submission that was refused is deleting it
            if not folder.exists():
                _write(folder, files)
            mark = folder / USERS / uuid.uuid4().hex
            mark.touch()
            return mark
        time.sleep(PAUSE_S)
    raise UserError(f"{folder} is not whole; delete it.")


def _sources(root: Path) -> list[Path]:
    """What jobs need, relative to ``root``: as git lists it, or by the files' endings."""

    def git(which: str) -> list[Path]:
        command = [
            "git",
            "-c",
            f"safe.directory={root}",
            "-C",
            str(root),
            "ls-files",
            "-z",
            which,
            "--exclude-standard",
            "--",
        ]
        done = subprocess.run([*command, *SOURCES, *OTHERS], capture_output=True, check=True)
        return [Path(os.fsdecode(name)) for name in done.stdout.split(b"\0") if name]

    try:
        known = git("--cached")
        new = git("--others") if known else []
    except (OSError, subprocess.CalledProcessError):
        known = new = []
    if not known:  # an installed package, or a snapshot
        found = (path for name in SOURCES for path in (root / name).rglob("*"))
        new = [path.relative_to(root) for path in found]
        known = [Path(name) for name in OTHERS]
    wanted = {*known, *(path for path in new if path.suffix in ENDINGS)}
    return sorted(path for path in wanted if (root / path).is_file())


def _write(folder: Path, files: dict[Path, bytes]) -> None:
    """Write a snapshot beside its place and move it there, unless another was faster."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix="."))
    try:
        whole = temporary / folder.name  # mkdtemp's folder is for nobody else
        (whole / USERS).mkdir(parents=True)
        for path, data in files.items():
            (whole / path).parent.mkdir(parents=True, exist_ok=True)
            (whole / path).write_bytes(data)
        try:
            whole.rename(folder)
        except OSError as error:  # another submission was faster, and may have deleted it since
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
    finally:
        shutil.rmtree(temporary)
