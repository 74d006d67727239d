"""Install Detectron2 into the environment of the Python that runs this file.

Detectron2 has no wheel on the package index. This tool

1. keeps an installed Detectron2 that imports (one built from source has the compiled operators);
2. otherwise fetches the source distribution of release 0.6 (``pb1-detectron2``, a re-upload whose
   Python files are the release's), checks its hash, changes it for current libraries
   (``detectron2_patches``), packs it as a pure-Python wheel and installs that;
3. or, with ``--source git``, builds the repository's own code at a pinned commit: this needs a C++
   compiler and takes several minutes, and includes the compiled operators.
"""

import ast
import base64
import hashlib
import importlib.metadata
import importlib.util
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

import detectron2_patches as patches
from common.errors import UserError, command

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"

SDIST = "pb1-detectron2==0.6"
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
REPOSITORY = "https://github.com/facebookresearch/detectron2"
COMMIT = "a1ce2f956a1d2212ad672e3c47d53405c2fe4312"  # after 0.6; pinned: equal set-ups

WHEEL_NAME = "detectron2-0.6-py3-none-any.whl"
DIST_INFO = "detectron2-0.6.dist-info"
TIMESTAMP = (2021, 11, 15, 0, 0, 0)  # of release 0.6; fixed: equal contents, equal files
GENERATOR = "lewel-transfer install_detectron2"
METADATA = """\
Metadata-Version: 2.1
Name: detectron2
Version: 0.6
Summary: Detectron2, modified by lewel-transfer: pure Python, for current libraries
Home-page: https://github.com/facebookresearch/detectron2
Author: FAIR
License: Apache-2.0
License-File: LICENSE
Requires-Python: >=3.9
"""
PROBE = """
import importlib.util
import detectron2, detectron2.checkpoint, detectron2.engine, detectron2.evaluation
from detectron2 import modeling, model_zoo
ops = "with" if importlib.util.find_spec("detectron2._C") else "without"
print(f"Detectron2 {detectron2.__version__} ({ops} compiled operators) at", *detectron2.__path__)
"""


@dataclass(frozen=True)
class Options:
    """The source of Detectron2.

    Attributes:
        source: index is release 0.6 repacked, pure Python; git builds the repository (needs C++).
        commit: Commit of the repository, for --source git.
    """

    source: Literal["index", "git"] = "index"
    commit: str = COMMIT


def tool_tag() -> str:
    """12 hex digits that change with the code that makes the wheel."""
    code = Path(__file__).read_bytes() + Path(patches.__file__).read_bytes()
    return hashlib.sha256(code).hexdigest()[:12]


def repack(sdist: bytes) -> bytes:
    """The wheel made of the source distribution, by the rules of the binary distribution format."""
    with tarfile.open(fileobj=io.BytesIO(sdist)) as archive:
        opened = ((m.name.partition("/")[2], archive.extractfile(m)) for m in archive)
        source = {path: file.read() for path, file in opened if file}
    contents = {
        installed + path.removeprefix(folder): patches.changed(path, content)
        for path, content in source.items()
        for folder, installed in patches.PACKAGES.items()
        if path.startswith(folder)
    }
    contents |= {path: text.encode() for path, text in patches.ADDED.items()}
    contents[f"{DIST_INFO}/LICENSE"] = source["LICENSE"]
    stated = source["pb1_detectron2.egg-info/requires.txt"].decode().split("\n[")[0].split("\n")
    needed = [patches.REQUIREMENTS.get(requirement, requirement) for requirement in stated]
    return pack(contents, [requirement for requirement in needed if requirement])


def pack(files: Mapping[str, bytes], requirements: list[str]) -> bytes:
    """A wheel with ``files``, which names the state of the tool that made it."""
    contents = dict(sorted(files.items()))
    stated = "".join(f"Requires-Dist: {one}\n" for one in requirements)
    contents[f"{DIST_INFO}/METADATA"] = (METADATA + stated).encode()
    contents[f"{DIST_INFO}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: {GENERATOR} ({tool_tag()})\n"
        "Root-Is-Purelib: true\nTag: py3-none-any\n"
    ).encode()
    contents[f"{DIST_INFO}/top_level.txt"] = b"detectron2\n"
    record = ""
    for path, content in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(content)}\n"
    contents[f"{DIST_INFO}/RECORD"] = f"{record}{DIST_INFO}/RECORD,,\n".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, content in contents.items():
            info = zipfile.ZipInfo(path, TIMESTAMP)
            info.external_attr = 0o100644 << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def pip_options() -> dict[str, list[str]]:
    """pip's configured options; those of the environment override those of files."""
    words = [sys.executable, "-m", "pip", "config", "list"]
    found: dict[str, dict[str, list[str]]] = {}
    for line in subprocess.run(words, capture_output=True, text=True).stdout.splitlines():
        section_and_name, _, value = line.partition("=")
        section, _, name = section_and_name.rpartition(".")
        if value:
            found.setdefault(section, {})[name] = str(ast.literal_eval(value)).split()
    return found.get("global", {}) | found.get("install", {}) | found.get(":env:", {})


def fetch_sdist() -> bytes:
    """Download the source distribution from pip's own index with unearth: pip refuses this one.

    Raises:
        UserError: ``unearth`` is missing, the index cannot be reached, or the hash is wrong.
    """
    if importlib.util.find_spec("unearth") is None:
        raise UserError(
            f"the command unearth, which fetches {SDIST}, is not installed: "
            f"run {sys.executable} -m pip install unearth"
        )
    options = pip_options()
    environment = dict(os.environ)
    if "cert" in options:
        environment.setdefault("SSL_CERT_FILE", options["cert"][0])
    words = [sys.executable, "-m", "unearth", "--no-binary"]
    if "index-url" in options:
        for url in options["index-url"] + options.get("extra-index-url", []):
            words += ["--index-url", url]
    for host in options.get("trusted-host", []):
        words += ["--trusted-host", host]
    with tempfile.TemporaryDirectory() as folder:
        words += ["--download", folder, SDIST]
        done = subprocess.run(words, capture_output=True, text=True, env=environment)
        archives = list(Path(folder).glob("*.tar.gz"))
        if done.returncode or len(archives) != 1:
            raise UserError(
                f"could not fetch {SDIST} from the package index ({last_line(done.stderr)}): "
                "check the network and pip's index-url, then run this again"
            )
        content = archives[0].read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SDIST_SHA256:
        raise UserError(
            f"the index's {SDIST} has sha256 {digest} instead of {SDIST_SHA256}: "
            "it is not the file that was reviewed, so nothing was installed"
        )
    return content


def last_line(text: str) -> str:
    """The last line of a program's complaint, which has the reason."""
    return (text.strip().splitlines() or ["no message"])[-1]


def run_pip(*arguments: str) -> None:
    """Run pip, whose output goes to the terminal.

    Raises:
        UserError: pip failed.
    """
    if subprocess.run([sys.executable, "-m", "pip", *arguments]).returncode:
        raise UserError(f"pip {' '.join(arguments)} failed: its message above says why")


def install(options: Options) -> None:
    """Install Detectron2 with the project's constraints.

    An older one is removed only when its successor's wheel is ready.
    """
    with tempfile.TemporaryDirectory() as folder:
        if options.source == "git":
            source = f"git+{REPOSITORY}@{options.commit}"
            print(f"building {source}; this takes several minutes", flush=True)
            run_pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source)
            (wheel,) = Path(folder).glob("detectron2-*.whl")
        else:
            print(f"fetching {SDIST} and packing it as {WHEEL_NAME}", flush=True)
            wheel = Path(folder, WHEEL_NAME)
            wheel.write_bytes(repack(fetch_sdist()))
        if is_installed():
            run_pip("uninstall", "--yes", "--quiet", "detectron2")
        run_pip("install", "--quiet", "--constraint", str(CONSTRAINTS), str(wheel))


def is_installed() -> bool:
    """True if some Detectron2 is installed; it is not imported."""
    return importlib.util.find_spec("detectron2") is not None


def installed_tag() -> str | None:
    """The state of this tool that packed the installed Detectron2; None if it did not."""
    try:
        wheel = importlib.metadata.distribution("detectron2").read_text("WHEEL") or ""
    except importlib.metadata.PackageNotFoundError:
        return None
    _, found, rest = wheel.partition(f"Generator: {GENERATOR} (")
    return rest.partition(")")[0] if found else None


def probe() -> str:
    """The version and place of the installed Detectron2.

    Raises:
        UserError: it does not import.
    """
    done = subprocess.run([sys.executable, "-P", "-c", PROBE], capture_output=True, text=True)
    if done.returncode:
        raise UserError(
            f"the installed Detectron2 does not import ({last_line(done.stderr)}): mend it, or run "
            f"{sys.executable} -m pip uninstall detectron2 and then this again"
        )
    return last_line(done.stdout)


@command
def main(arguments: list[str] | None = None) -> None:
    """Make sure that a working Detectron2 is installed."""
    options = tyro.cli(Options, description=__doc__, args=arguments)
    tag = installed_tag()
    keep = tag is None or (options.source == "index" and tag == tool_tag())
    if is_installed() and keep:
        print(f"keeping {probe()}")
    else:
        install(options)
        print(f"installed {probe()}")


if __name__ == "__main__":
    main()
