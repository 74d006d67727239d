"""Install Detectron2 into the environment of the Python that runs this file.

Detectron2 has no wheel on the package index. This tool

1. keeps an installed Detectron2 that imports (one built from source has the compiled operators);
2. otherwise fetches the source distribution of release 0.6 (``pb1-detectron2``, a re-upload whose
   Python files are the release's), checks its hash, patches it for current libraries, packs it as
   a pure-Python wheel in ``build/detectron2/`` and installs that (``--source index``);
3. or builds the repository's own code at a pinned commit (``--source git``): this needs a C++
   compiler and takes several minutes, and includes the compiled operators.

    python tools/install_detectron2.py [--source index|git] [--commit HASH]

It needs ``pip`` and, for the first fetch, the command ``unearth`` in the same environment.
"""

import argparse
import ast
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from detectron2_patches import PatchError
from detectron2_wheel import GENERATOR, WHEEL_NAME, repack, tool_tag

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "build" / "detectron2"
CONSTRAINTS = ROOT / "constraints.txt"

SDIST = "pb1-detectron2==0.6"
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"

REPOSITORY = "https://github.com/facebookresearch/detectron2"
COMMIT = "a1ce2f956a1d2212ad672e3c47d53405c2fe4312"
"""A state of the repository's main branch after 0.6; pinned so that two set-ups are the same."""

PROBE = """
import importlib.util
import detectron2, detectron2.checkpoint, detectron2.engine, detectron2.evaluation
from detectron2 import modeling, model_zoo
ops = "with" if importlib.util.find_spec("detectron2._C") else "without"
print(f"Detectron2 {detectron2.__version__} ({ops} compiled operators) at", *detectron2.__path__)
"""


class InstallError(Exception):
    """What went wrong and what to do, in one sentence."""


def last_line(text: str) -> str:
    """Return the last line of a program's complaint, which is where the reason is."""
    return (text.strip().splitlines() or ["no message"])[-1]


def probe() -> str:
    """Return the version and place of the installed Detectron2.

    Raises:
        InstallError: it is not there or does not import.
    """
    done = subprocess.run([sys.executable, "-P", "-c", PROBE], capture_output=True, text=True)
    if done.returncode:
        raise InstallError(last_line(done.stderr))
    return last_line(done.stdout)


def installed_tag() -> str | None:
    """Return which state of this tool packed the installed Detectron2; None if it did not."""
    try:
        wheel = importlib.metadata.distribution("detectron2").read_text("WHEEL") or ""
    except importlib.metadata.PackageNotFoundError:
        return None
    _, found, rest = wheel.partition(f"Generator: {GENERATOR} (")
    return rest.partition(")")[0] if found else None


def is_installed() -> bool:
    """Tell whether some Detectron2 is installed, without importing it."""
    return importlib.util.find_spec("detectron2") is not None


def pip_options() -> dict[str, list[str]]:
    """Return pip's configured options; those of the environment override those of files."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True).stdout
    found: dict[str, dict[str, list[str]]] = {}
    for line in listing.splitlines():
        section_and_name, _, value = line.partition("=")
        section, _, name = section_and_name.rpartition(".")
        if value:
            found.setdefault(section, {})[name] = str(ast.literal_eval(value)).split()
    return found.get("global", {}) | found.get("install", {}) | found.get(":env:", {})


def fetch_command(folder: Path, options: dict[str, list[str]]) -> list[str]:
    """Return the command that downloads the source distribution from pip's own index."""
    command = [sys.executable, "-m", "unearth", "--no-binary"]
    if "index-url" in options:
        for url in options["index-url"] + options.get("extra-index-url", []):
            command += ["--index-url", url]
    for host in options.get("trusted-host", []):
        command += ["--trusted-host", host]
    return [*command, "--download", str(folder), SDIST]


def fetch_sdist() -> bytes:
    """Download the source distribution and return it.

    Raises:
        InstallError: ``unearth`` is missing, the index cannot be reached, or the hash is wrong.
    """
    if importlib.util.find_spec("unearth") is None:
        raise InstallError(
            f"the command unearth, which fetches {SDIST}, is not installed: "
            f"run {sys.executable} -m pip install unearth"
        )
    options = pip_options()
    environment = dict(os.environ)
    if "cert" in options:
        environment.setdefault("SSL_CERT_FILE", options["cert"][0])
    with tempfile.TemporaryDirectory() as folder:
        command = fetch_command(Path(folder), options)
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        archives = list(Path(folder).glob("*.tar.gz"))
        if done.returncode or len(archives) != 1:
            raise InstallError(
                f"could not fetch {SDIST} from the package index ({last_line(done.stderr)}): "
                "check the network and pip's index-url, then run this again"
            )
        content = archives[0].read_bytes()
    check_hash(content)
    return content


def check_hash(content: bytes) -> None:
    """Raise :class:`InstallError` unless ``content`` is the known source distribution."""
    digest = hashlib.sha256(content).hexdigest()
    if digest != SDIST_SHA256:
        raise InstallError(
            f"the index's {SDIST} has sha256 {digest} instead of {SDIST_SHA256}: "
            "it is not the file that was reviewed, so nothing was installed"
        )


def cached_wheel(cache: Path = CACHE) -> Path:
    """Return the packed wheel, making it first if this state of the tool has not made it yet.

    The folder is named after the tool's state and appears complete or not at all.
    """
    tag = tool_tag()
    final = cache / tag / WHEEL_NAME
    if final.is_file():
        return final
    print(f"fetching {SDIST} and packing it as {WHEEL_NAME}", flush=True)
    try:
        content = repack(fetch_sdist(), tag)
    except PatchError as error:
        raise InstallError(f"cannot patch {SDIST}: {error}") from error
    cache.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=cache))
    try:
        (partial / WHEEL_NAME).write_bytes(content)
        partial.chmod(0o755)
        partial.rename(final.parent)
    except OSError:
        if not final.is_file():  # else another set-up was faster, with the same content
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final


def run_pip(*arguments: str) -> None:
    """Run pip, whose output goes to the terminal.

    Raises:
        InstallError: pip failed.
    """
    if subprocess.run([sys.executable, "-m", "pip", *arguments]).returncode:
        raise InstallError(f"pip {' '.join(arguments)} failed: its message above says why")


def built_wheel(commit: str, folder: Path) -> Path:
    """Build the repository's code, with its compiled operators, into ``folder``.

    Raises:
        InstallError: the build failed.
    """
    print(f"building {REPOSITORY} at {commit}; this takes several minutes", flush=True)
    source = f"git+{REPOSITORY}@{commit}"
    run_pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), source)
    return next(folder.glob("detectron2-*.whl"))


def install(source: str, commit: str) -> None:
    """Install Detectron2 from ``source``, with the project's constraints.

    An older one is removed only when its successor's wheel is ready.
    """
    constraints = ["--constraint", str(CONSTRAINTS)] if CONSTRAINTS.is_file() else []
    with tempfile.TemporaryDirectory() as folder:
        wheel = built_wheel(commit, Path(folder)) if source == "git" else cached_wheel()
        if is_installed():
            run_pip("uninstall", "--yes", "--quiet", "detectron2")
        run_pip("install", "--quiet", *constraints, str(wheel))


def ensure(source: str, commit: str) -> str:
    """Make sure that a working Detectron2 is installed; return what :func:`probe` says of it."""
    tag = installed_tag()
    if is_installed():
        wanted = tag is None or (source == "index" and tag == tool_tag())
        try:
            state = probe()
        except InstallError as error:
            if tag is None:
                raise InstallError(
                    f"the installed Detectron2 does not import ({error}): mend it, or run "
                    f"{sys.executable} -m pip uninstall detectron2 and then this again"
                ) from error
        else:
            if wanted:
                return f"keeping {state}"
    install(source, commit)
    try:
        return f"installed {probe()}"
    except InstallError as error:
        raise InstallError(f"Detectron2 was installed but does not import: {error}") from error


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description="Install Detectron2 into this environment.")
    parser.add_argument(
        "--source",
        choices=("index", "git"),
        default="index",
        help="index: release 0.6 repacked, pure Python; git: build the repository (needs C++)",
    )
    parser.add_argument("--commit", default=COMMIT, help="for --source git (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        print(ensure(options.source, options.commit))
    except InstallError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command starts again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
