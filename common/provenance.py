"""Where a number came from: code, versions, hardware."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "torchvision", "detectron2", "numpy")
SOURCES = ("common", "demo", "det_configs", "detection", "launch", "pretrain", "segmentation")
COMMIT = "COMMIT"  # in a snapshot of the code: what the checkout's commit was


def git_commit(root: Path = ROOT) -> str:
    """The commit of the running code, with ``+`` where it differs from it; "" outside git.

    A tracked file that was changed makes it differ, and a Python file of ours that git does not
    know. Of a snapshot it is what it was when that was taken.
    """
    if (root / COMMIT).is_file():
        return (root / COMMIT).read_text().strip()

    def git(*words: str) -> str:
        # Of a colleague's checkout, too, which git refuses by itself.
        command = ["git", "-c", f"safe.directory={root}", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    ours = [f"{name}/*.py" for name in SOURCES]
    try:
        differs = git("status", "--porcelain", "--untracked-files=no") or git(
            "ls-files", "--others", "--exclude-standard", "--", *ours
        )
        return git("rev-parse", "--short=10", "HEAD") + ("+" if differs else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def versions() -> str:
    """Versions of Python and the packages that numbers depend on, as ``name version; ...``."""
    found = [f"python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return "; ".join(found)


def device_name(device: torch.device, processes: int) -> str:
    """For example ``8 x NVIDIA H200`` or ``2 x cpu``."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return f"{processes} x {name}"
