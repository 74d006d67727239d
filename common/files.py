"""Files that are either whole or absent, and their fingerprints."""

import contextlib
import hashlib
import json
import os
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from common.errors import UserError


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary neighbour of ``path``, and rename it into place once it is on the disk.

    A process that is killed, or whose block raises, leaves the old file as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def point(link: Path, target: Path) -> None:
    """Make ``link`` a symbolic link to a file beside it, in place of what it was, atomically."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target.name)
    os.replace(temporary, link)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    with atomic_write(path, "w") as file:
        json.dump(value, file, indent=2, sort_keys=False)
        file.write("\n")


def sha256(path: str | os.PathLike[str]) -> str:
    """The hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def settings_file(name: str) -> Path:
    """The path of a file of the user's settings, which need not be there."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "lewel-transfer" / name


def read_toml(path: Path) -> dict[str, Any]:
    """The contents of a TOML file; nothing if there is none."""
    try:
        return tomllib.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not TOML: {error}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error


def check_writable(folder: Path) -> None:
    """Raise a UserError unless a run folder is writable or could be made; makes nothing."""
    existing = nearest(folder)
    if not existing.is_dir():
        raise UserError(
            f"{existing} is a file where the run folder {folder} needs a folder; "
            "move it or choose another --output-dir."
        )
    if not os.access(existing, os.W_OK | os.X_OK) or os.statvfs(existing).f_flag & os.ST_RDONLY:
        raise UserError(
            f"cannot write the run folder {folder}: no permission in {existing}; "
            "choose another --output-dir."
        )


def check_output(path: Path) -> None:
    """Raise a UserError if a folder, or a file, is in the place of a file to write."""
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder; give the file to write, not its folder.")
    existing = nearest(path.parent)
    if not existing.is_dir():
        raise UserError(f"{existing} is a file where {path} needs a folder; choose another place.")


def nearest(path: Path) -> Path:
    """The first that exists of a path and the folders that it is in."""
    existing = path.absolute()
    while not os.path.exists(existing):  # Path's own raises inside a folder that is not ours
        existing = existing.parent
    return existing
