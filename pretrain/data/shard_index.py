"""What WebDataset shards hold, from one look at their tar headers, kept for the next run."""

import json
import logging
import re
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from torchvision.datasets.folder import IMG_EXTENSIONS
from webdataset.tariterators import base_plus_ext, group_by_keys

from common.cache import cached, file_facts
from common.errors import UserError

log = logging.getLogger(__name__)

LAYOUT = 1  # of the cached file; another number has the shards read again
READERS = 8  # shards read at once: on a network disk, time goes into waiting
IMAGES = frozenset(extension.removeprefix(".") for extension in IMG_EXTENSIONS)
CLASSES = frozenset({"cls", "json"})
META = re.compile(r"__[^/]*__($|/)")  # members that WebDataset keeps for itself
BLOCK = 512  # bytes, of a tar file


class Contents(NamedTuple):
    """The images of one shard, in the order of its members.

    Attributes:
        keys: what WebDataset calls them: the member's path up to the first dot of its name.
        labels: class index of each.
        offsets: bytes before each one's image in the shard.
    """

    keys: list[str]
    labels: list[int]
    offsets: list[int]


def read_index(shards: Sequence[Path]) -> list[Contents]:
    """The contents of each shard, from the cache if the shards are the same as then.

    Shards are the same if their paths, sizes and times are (:mod:`common.cache`).

    Raises:
        UserError: if a shard is missing, cut short, or has no images or an image without a class.
    """
    try:
        facts = [LAYOUT, [file_facts(shard) for shard in shards]]
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}.") from error
    return cached("shards", facts, lambda: _scan_all(shards), _contents)


def _contents(parts: list[Any]) -> list[Contents]:
    return [Contents(*part) for part in parts]


def _scan_all(shards: Sequence[Path]) -> list[Contents]:
    log.info("reading the headers of %d shards, once", len(shards))
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(scan, shards))


def scan(shard: Path) -> Contents:
    """The images of a shard: reads headers and class members, skips over everything else.

    Raises:
        UserError: if it is cut short, or has no image, an image without a class, or a name twice.
    """
    contents = Contents([], [], [])
    try:
        for sample in group_by_keys(_headers(shard)):
            offset = image_of(sample)
            if offset is not None:
                contents.keys.append(sample["__key__"])
                contents.labels.append(_label(sample, shard))
                contents.offsets.append(offset)
    except (tarfile.TarError, OSError) as error:
        raise UserError(
            f"{shard} is not a whole tar file ({error}); copy or make it again."
        ) from error
    except ValueError as error:  # group_by_keys: a member that is there twice
        raise UserError(f"{shard}: {error.args[0]}.") from error
    if not contents.keys:
        raise UserError(f"{shard} has no images; expected <key>.jpg and <key>.cls members.")
    if len(set(contents.keys)) < len(contents.keys):
        twice = next(k for k in contents.keys if contents.keys.count(k) > 1)
        raise UserError(f"{shard} has two samples {twice}, not side by side; make it again.")
    return contents


def image_of(sample: dict[str, Any]) -> Any:
    """The first member of a WebDataset sample that is an image; None if there is none."""
    return next((sample[suffix] for suffix in sample if suffix in IMAGES), None)


def _headers(shard: Path) -> Iterator[dict[str, Any]]:
    """What WebDataset groups to samples: of a class its bytes, of other members the offset."""
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            _, suffix = base_plus_ext(member.name)
            if member.isreg() and suffix and not META.match(member.name):
                file = tar.extractfile(member) if suffix.lower() in CLASSES else None
                data = file.read() if file else member.offset
                yield {"fname": member.name, "data": data, "__url__": str(shard)}
        # tarfile ends without a word where a copy broke off between two members.
        assert tar.fileobj is not None
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(BLOCK) != bytes(BLOCK):
            raise tarfile.ReadError(f"it breaks off after {tar.offset} bytes")


def _label(sample: dict[str, Any], shard: Path) -> int:
    key = sample["__key__"]
    try:
        found = sample["cls"] if "cls" in sample else json.loads(sample["json"])["label"]
        label = int(found)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{shard}: no class of sample {key}; expected its number in {key}.cls, or as "
            f'"label" in {key}.json.'
        ) from error
    if label < 0:
        raise UserError(f"{shard}: the class of sample {key} is {label}; classes start at 0.")
    return label
