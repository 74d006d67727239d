"""Provenance of a number: code, versions, hardware."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "torchvision", "detectron2", "numpy")
SOURCES = ("common", "demo", "det_configs", "detection", "launch", "pretrain", "segmentation")
DRIVER = Path("/sys/module/nvidia/version")
COMMIT = "COMMIT"  # in a snapshot of the code: its checkout's commit


def git_commit(root: Path = ROOT) -> str:
    """The commit of the running code, with ``+`` where the code differs; "" outside git.

    A tracked file that was changed makes it differ, and a Python file of ours that git does not
    know. In a snapshot it is the commit that was written into it.
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


def ran_on(device: torch.device, processes: int, dtype: torch.dtype | None) -> dict[str, str]:
    """Columns of a row: ``versions``, ``device`` and ``precision`` (``dtype`` is autocast's)."""
    return {
        "versions": versions(),
        "device": device_name(device, processes),
        "precision": precision(device, dtype),
    }


def versions() -> str:
    """Versions of Python and the packages that numbers depend on, as ``name version; ...``.

    Behind Detectron2's, in a process that has it, stand the commit of a checkout or of what pip
    fetched, or the place of a copy that is not the installed one, for its head calls itself 0.6,
    too; and whether the compiled operators are there: ``detectron2 0.6 a1ce2f956a with compiled
    operators``.
    """
    found = [f"python {platform.python_version()}"]
    for name in PACKAGES:
        if name == "detectron2" and name in sys.modules:
            found.append(_detectron2())
        elif distribution := _installed(name):
            found.append(f"{name} {distribution.version}")
    return "; ".join(found)


def _installed(name: str) -> importlib.metadata.Distribution | None:
    return next(iter(importlib.metadata.distributions(name=name)), None)


def _detectron2() -> str:
    """The Detectron2 that this process has imported."""
    module = sys.modules["detectron2"]
    root = Path(module.__path__[0]).resolve().parent
    installed = _installed("detectron2")
    if (root / ".git").exists():
        origin = git_commit(root)
    elif installed is None or Path(str(installed.locate_file(""))).resolve() != root:
        origin = f"from {root}"
    else:
        fetched = json.loads(installed.read_text("direct_url.json") or "{}")
        origin = str(fetched.get("vcs_info", {}).get("commit_id", ""))[:10]
    operators = "with" if importlib.util.find_spec("detectron2._C") else "without"
    words = ("detectron2", module.__version__, origin, operators, "compiled operators")
    return " ".join(filter(None, words))


def device_name(device: torch.device, processes: int) -> str:
    """The job's devices, such as ``8 x NVIDIA H200, driver 570.86.15`` or ``2 x cpu``."""
    import torch

    if device.type != "cuda":
        return f"{processes} x cpu"
    driver = f", driver {DRIVER.read_text().strip()}" if DRIVER.is_file() else ""
    return f"{processes} x {torch.cuda.get_device_name(device)}{driver}"


def precision(device: torch.device, dtype: torch.dtype | None) -> str:
    """The type of autocast in which a model computes, or without it ``float32``.

    cuDNN, unless told otherwise, rounds the operands of such convolutions to TF32 on GPUs that
    have it (compute capability 8.0): ``float32, convolutions in TF32``.
    """
    import torch

    if dtype is not None:
        return str(dtype).removeprefix("torch.")
    if device.type != "cuda" or not torch.backends.cudnn.allow_tf32:
        return "float32"
    has_it = torch.cuda.get_device_capability(device) >= (8, 0)
    return "float32, convolutions in TF32" if has_it else "float32"
