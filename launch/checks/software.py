"""Checks of Python, packages, PyTorch and Detectron2; nothing of these need be there."""

import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from common import provenance
from launch.checks.check import Check

PYPROJECT = provenance.ROOT / "pyproject.toml"
OURS = "lewel-transfer"


def software() -> Iterator[Check]:
    """Python and the packages that the project names; nothing but the standard library is used."""
    yield Check("Python", "ok", f"{sys.version.split()[0]}, {sys.executable}")
    yield _packages()


def _packages() -> Check:
    wanted = _requirements()
    absent, wrong = [], []
    for requirement in wanted:
        name = re.match(r"[\w.-]+", requirement)
        assert name is not None
        try:
            version = importlib.metadata.version(name[0])
        except importlib.metadata.PackageNotFoundError:
            absent.append(name[0])
            continue
        if "packaging" not in absent and not _fits(requirement, version):
            wrong.append(f"{name[0]} {version}, not {requirement.removeprefix(name[0])}")
    if not absent and not wrong:
        return Check("packages", "ok", f"all {len(wanted)} that are needed")
    found = [f"{', '.join(absent)} not installed"] * bool(absent) + wrong
    return Check("packages", "missing", "; ".join(found), _set_up(), needed=True)


def _requirements() -> list[str]:
    """The project's requirements, without those of its extras."""
    if PYPROJECT.is_file():
        return list(tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"])
    every = importlib.metadata.requires(OURS) or []
    return [one for one in every if "extra ==" not in one]


def _fits(requirement: str, version: str) -> bool:
    from packaging.requirements import Requirement

    return Requirement(requirement).specifier.contains(version, prereleases=True)


def _set_up() -> str:
    """The command that installs what is missing, or uses what is installed already."""
    root = provenance.ROOT
    ours = root / ".venv"
    if (ours / ".setup-complete").exists() and Path(sys.prefix).resolve() != ours.resolve():
        return f"{ours}/bin/python {root}/launch/doctor.py"
    return f"make -C {root} setup" if (root / "Makefile").exists() else f"pip install {OURS}"


def pytorch() -> Check:
    """PyTorch and torchvision, and whether their compiled parts load."""
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except Exception as error:  # of the loader, of versions that do not fit, ...
        return Check("PyTorch", "missing", _first_line(error), _set_up(), needed=True)
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPUs alone"
    versions = f"{torch.__version__} ({built}), torchvision {torchvision.__version__}"
    return Check("PyTorch", "ok", versions)


def detectron2() -> Check:
    """Detectron2, which copy of it, and whether what the published models use of it runs."""
    mend = f"{sys.executable} {provenance.ROOT / 'tools' / 'install_detectron2.py'}"
    try:
        import torch
        from detectron2.layers import ROIAlign, batched_nms

        boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
        batched_nms(boxes, torch.ones(1), torch.zeros(1), 0.5)
        ROIAlign(2, 1.0, 0)(torch.ones(1, 1, 8, 8), torch.cat([torch.zeros(1, 1), boxes], dim=1))
    except Exception as error:
        return Check("Detectron2", "missing", _first_line(error), mend, needed=True)
    found = provenance.versions().partition("; detectron2 ")[2].partition(";")[0]
    if "without compiled" in found:
        found += ", of which the published configs need none (ROIAlign and NMS are torchvision's)"
    return Check("Detectron2", "ok", found)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
