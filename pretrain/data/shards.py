"""Images in WebDataset shards: tar files whose members ``<key>.jpg`` and ``<key>.cls`` are one.

Found by one look at the tar headers, which is kept for the next run.
"""

import itertools
import json
import logging
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from common.cache import cached, file_facts
from common.errors import UserError

log = logging.getLogger(__name__)

LAYOUT = 2  # of the cached file; another number has the shards read again
READERS = 8  # shards read at once: on a network disk, time goes into waiting
CLASSES = ("cls", "json")
# torchvision's IMG_EXTENSIONS, here for commands that answer without it.
IMAGE_SUFFIXES = frozenset(".jpg .jpeg .png .ppm .bmp .pgm .tif .tiff .webp".split())
BLOCK = 512  # bytes, of a tar file


class Contents(NamedTuple):
    """The images of one shard, in the order of its members."""

    stamp: tuple[int, int]  # size in bytes and time in nanoseconds of the shard
    keys: list[str]  # WebDataset's: the member's path up to the first dot of its name
    labels: list[int]
    offsets: list[int]  # in bytes
    sizes: list[int]  # in bytes


class Member(NamedTuple):
    """A file in a shard: where it is, and of a class what it says."""

    key: str
    suffix: str
    offset: int
    size: int
    content: bytes


def read_index(shards: Sequence[Path]) -> list[Contents]:
    """The contents of each shard, cached for as long as its path, size and time are the same."""
    try:
        facts = [LAYOUT, [file_facts(shard) for shard in shards]]
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}.") from error
    return cached("shards", facts, lambda: _scan_all(shards), _contents)


def _contents(parts: list[Any]) -> list[Contents]:
    return [Contents(tuple(stamp), *rest) for stamp, *rest in parts]


def _scan_all(shards: Sequence[Path]) -> list[Contents]:
    log.info("reading the headers of %d shards, once", len(shards))
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(scan, shards))


def scan(shard: Path) -> Contents:
    """The images of a shard: reads headers and class members, skips over everything else."""
    try:
        stat = shard.stat()
        members = list(_members(shard))
    except (tarfile.TarError, OSError) as error:
        raise UserError(
            f"{shard} is not a whole tar file ({error}); copy or make it again."
        ) from error
    contents = Contents((stat.st_size, stat.st_mtime_ns), [], [], [], [])
    for key, group in itertools.groupby(members, lambda member: member.key):
        sample: dict[str, Member] = {}
        for member in group:
            if member.suffix in sample:
                raise UserError(f"{shard} has {key}.{member.suffix} twice; make it again.")
            sample[member.suffix] = member
        image = next((sample[s] for s in sample if f".{s}" in IMAGE_SUFFIXES), None)
        if image is not None:
            contents.keys.append(key)
            contents.labels.append(_label(shard, key, sample))
            contents.offsets.append(image.offset)
            contents.sizes.append(image.size)
    if not contents.keys:
        raise UserError(f"{shard} has no images; expected <key>.jpg and <key>.cls members.")
    if len(set(contents.keys)) < len(contents.keys):
        twice = next(k for k in contents.keys if contents.keys.count(k) > 1)
        raise UserError(f"{shard} has two samples {twice}, not side by side; make it again.")
    return contents


def _members(shard: Path) -> Iterator[Member]:
    """Files of a shard that WebDataset would group to samples."""
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            folder, slash, name = member.name.rpartition("/")
            stem, dot, suffix = name.partition(".")
            key, suffix = folder + slash + stem, suffix.lower()
            top = member.name.partition("/")[0]
            own = top.startswith("__") and top.endswith("__")  # WebDataset's
            if member.isreg() and key and dot and not own:
                file = tar.extractfile(member) if suffix in CLASSES else None
                content = file.read() if file else b""
                yield Member(key, suffix, member.offset_data, member.size, content)
        # tarfile ends without a word where a copy broke off between two members.
        assert tar.fileobj is not None
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(BLOCK) != bytes(BLOCK):
            raise tarfile.ReadError(f"it breaks off after {tar.offset} bytes")


def _label(shard: Path, key: str, sample: dict[str, Member]) -> int:
    try:
        if "cls" in sample:
            label = int(sample["cls"].content)
        else:
            label = int(json.loads(sample["json"].content)["label"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{shard}: no class of sample {key}; expected its number in {key}.cls, or as "
            f'"label" in {key}.json.'
        ) from error
    if label < 0:
        raise UserError(f"{shard}: the class of sample {key} is {label}; classes start at 0.")
    return label


def class_names(folder: Path, classes: int) -> list[str]:
    """A line of ``classes.txt`` for each class; their numbers if there is no such file."""
    file = folder / "classes.txt"
    if not file.is_file():
        return [str(label) for label in range(classes)]
    names = [line.strip() for line in file.read_text().splitlines()]
    if len(names) < classes:
        raise UserError(f"{file} has {len(names)} lines for {classes} classes; add the others.")
    return names
