"""Checkpoints of strangers: NumPy's numbers are no obstacle, half a file is refused."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common import checkpoints
from common.checkpoints import StandIn
from common.errors import UserError


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_a_file_with_a_numpy_number_is_read_in_both_spellings(tmp_path: Path, module: str) -> None:
    path = tmp_path / "release.pth.tar"
    weight = torch.arange(6.0).view(2, 3)
    torch.save({"epoch": 7, "best_acc1": np.float64(71.9), "state_dict": {"w": weight}}, path)
    other = {"numpy.core.multiarray": "numpy._core.multiarray"}.get(module)
    if other:  # NumPy 2 wrote its own name: put NumPy 1's in its place
        path = _respell(path, other, module)
    loaded = checkpoints.load(path)
    assert isinstance(loaded["best_acc1"], StandIn) and loaded["epoch"] == 7
    assert torch.equal(loaded["state_dict"]["w"], weight)


def _respell(path: Path, before: str, after: str) -> Path:
    """Rewrite a module's name in the pickle of a checkpoint; the legacy format has it inline."""
    legacy = path.with_suffix(".legacy")
    torch.save(torch.load(path, weights_only=False), legacy, _use_new_zipfile_serialization=False)
    data = legacy.read_bytes()
    assert data.count(f"c{before}\n".encode()) == 1
    legacy.write_bytes(data.replace(f"c{before}\n".encode(), f"c{after}\n".encode()))
    return legacy


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.03, 0.1, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_is_named(tmp_path: Path, share: float, zipped: bool) -> None:
    path = tmp_path / "cut.pth.tar"
    state = {"state_dict": {"w": torch.randn(1000)}}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=r"cut\.pth\.tar is not a readable"):
        checkpoints.load(path)


def test_a_text_file_and_a_missing_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match=r"notes\.txt"):
        checkpoints.load(tmp_path / "notes.txt")
    with pytest.raises(UserError, match=r"no checkpoint at .*nothing"):
        checkpoints.load(tmp_path / "nothing")
