"""Commands behave as on a machine without Slurm, unless a test brings an ``sbatch`` of its own."""

import shutil
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    which, installed = shutil.which, shutil.which("sbatch")

    def without(name: str, *others: Any, **options: Any) -> str | None:
        found = which(name, *others, **options)
        return None if name == "sbatch" and found == installed else found

    monkeypatch.setattr(shutil, "which", without)
