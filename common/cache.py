"""A cache of values that take a while to find, in the folder ``LEWEL_CACHE``."""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from common.files import atomic_write
from common.locks import locked

log = logging.getLogger(__name__)

CACHE = "LEWEL_CACHE"

T = TypeVar("T")


def cache_folder() -> Path:
    """``LEWEL_CACHE``, or ``~/.cache/lewel-transfer``."""
    return Path(os.environ.get(CACHE) or "~/.cache/lewel-transfer").expanduser()


def cached(kind: str, facts: Any, find: Callable[[], T], read: Callable[[Any], T]) -> T:
    """The value that ``find`` returned for the same facts before, or returns now.

    Of several processes one finds it; the others wait. Where nothing can be kept, it is found anew.
    ``kind`` is a folder in the cache; ``facts`` are all that decides the value, as JSON. ``read``
    makes the value of what JSON held; its TypeError or ValueError means that it was another.
    """
    digits = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    file = cache_folder() / kind / f"{digits}.json"
    absent = contextlib.suppress(OSError, ValueError, TypeError)  # or not of our writing
    with absent:
        return read(json.loads(file.read_text()))
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # told below
            file.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(Path(f"{file}.lock")))
        with absent:
            return read(json.loads(file.read_text()))
        value = find()
        try:
            with atomic_write(file, "w") as stream:
                stream.write(json.dumps(value))  # not indented: ImageNet's shards are 1.3 M lines
        except OSError as error:
            log.warning("cannot keep anything in %s (%s); set %s", file.parent, error, CACHE)
        return value


def file_facts(path: Path) -> tuple[str, int, int]:
    """Path, size in bytes and time in nanoseconds, by which a file is taken for the same."""
    stat = path.stat()
    return str(path.absolute()), stat.st_size, stat.st_mtime_ns
