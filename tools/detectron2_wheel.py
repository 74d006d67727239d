"""Turn the source distribution of Detectron2 0.6 into a pure-Python wheel, without running it.

The archive is read in memory, patched (:mod:`detectron2_patches`), and written as a wheel by the
rules of the binary distribution format, https://packaging.python.org/specifications/.
"""

import base64
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from detectron2_patches import PatchError, apply_patches, change_requirements

VERSION = "0.6"
WHEEL_NAME = f"detectron2-{VERSION}-py3-none-any.whl"
DIST_INFO = f"detectron2-{VERSION}.dist-info"
GENERATOR = "lewel-transfer install_detectron2"
REQUIRES_PATH = "pb1_detectron2.egg-info/requires.txt"

PROJECTS: Mapping[str, str] = {
    "projects/PointRend/point_rend/": "detectron2/projects/point_rend/",
    "projects/DeepLab/deeplab/": "detectron2/projects/deeplab/",
    "projects/Panoptic-DeepLab/panoptic_deeplab/": "detectron2/projects/panoptic_deeplab/",
}
"""Where the release's setup.py puts the packages of its small projects."""

_MAX_BYTES = 64 * 2**20  # unpacked; the real archive has 3 MiB
_TIMESTAMP = (2021, 11, 15, 0, 0, 0)  # of release 0.6; fixed: equal contents, equal files


def read_sdist(archive: bytes) -> dict[str, bytes]:
    """Return the regular files of a ``.tar.gz``, keyed by their path below its only folder.

    Nothing is written to disk, so no member can escape a folder; odd members are refused all the
    same, because the verified archive has none.

    Raises:
        PatchError: a link, a device, a path that leaves the archive, or far too much data.
    """
    files: dict[str, bytes] = {}
    total = 0
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            if member.isdir():
                continue
            path = PurePosixPath(member.name)
            if not member.isfile() or path.is_absolute() or ".." in path.parts:
                raise PatchError(f"{member.name}: not a plain file inside the archive")
            total += member.size
            if total > _MAX_BYTES:
                raise PatchError(f"the archive unpacks to more than {_MAX_BYTES} bytes")
            content = tar.extractfile(member)
            assert content is not None  # isfile() was true
            files[str(PurePosixPath(*path.parts[1:]))] = content.read()
    return files


def installed_files(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return what the release installs, keyed by its path in site-packages.

    That is the package with its model zoo configs, and three small projects. The top-level package
    ``tools``, which the release also installs, is left out: its name is anybody's.
    """
    result = {}
    for path, content in files.items():
        if path.startswith("detectron2/"):
            result[path] = content
        for source, target in PROJECTS.items():
            if path.startswith(source):
                result[target + path.removeprefix(source)] = content
    return result


def read_requirements(files: Mapping[str, bytes]) -> list[str]:
    """Return the unconditional requirements that the source distribution states."""
    unconditional = files[REQUIRES_PATH].decode().split("\n[")[0]
    return [line for line in unconditional.splitlines() if line]


def metadata(requirements: list[str]) -> str:
    """Return the wheel's METADATA."""
    lines = [
        "Metadata-Version: 2.1",
        "Name: detectron2",
        f"Version: {VERSION}",
        "Summary: Detectron2, modified by lewel-transfer: pure Python, for current libraries",
        "Home-page: https://github.com/facebookresearch/detectron2",
        "Author: FAIR",
        "License: Apache-2.0",
        "License-File: LICENSE",
        "Requires-Python: >=3.9",
        *(f"Requires-Dist: {requirement}" for requirement in requirements),
    ]
    return "\n".join(lines) + "\n"


def _record_line(path: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(content)}"


def wheel_bytes(files: Mapping[str, bytes], requirements: list[str], tag: str) -> bytes:
    """Return a wheel with ``files``; ``tag`` names the state of the tool that made it."""
    contents = dict(sorted(files.items()))
    wheel = (
        f"Wheel-Version: 1.0\nGenerator: {GENERATOR} ({tag})\n"
        "Root-Is-Purelib: true\nTag: py3-none-any\n"
    )
    contents[f"{DIST_INFO}/METADATA"] = metadata(requirements).encode()
    contents[f"{DIST_INFO}/WHEEL"] = wheel.encode()
    contents[f"{DIST_INFO}/top_level.txt"] = b"detectron2\n"
    record = [_record_line(path, content) for path, content in contents.items()]
    record.append(f"{DIST_INFO}/RECORD,,")
    contents[f"{DIST_INFO}/RECORD"] = ("\n".join(record) + "\n").encode()

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in contents.items():
            info = zipfile.ZipInfo(path, _TIMESTAMP)
            info.external_attr = 0o100644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return buffer.getvalue()


def repack(sdist: bytes, tag: str) -> bytes:
    """Return the wheel made of the source distribution.

    Raises:
        PatchError: the source is not the one that the patches were written for.
    """
    source = apply_patches(read_sdist(sdist))
    files = installed_files(source)
    files[f"{DIST_INFO}/LICENSE"] = source["LICENSE"]
    return wheel_bytes(files, change_requirements(read_requirements(source)), tag)


def tool_tag() -> str:
    """Return 12 hex digits that change with the code that makes the wheel."""
    here = Path(__file__)
    code = here.read_bytes() + here.with_name("detectron2_patches.py").read_bytes()
    return hashlib.sha256(code).hexdigest()[:12]
