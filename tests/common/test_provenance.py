"""The commit that a number is said to come from, and what it was computed on."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from common import provenance
from common.provenance import git_commit, ran_on

GPU = torch.device("cuda", 0)


def git(root: Path, *words: str) -> str:
    author = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    command = ["git", "-C", str(root), *author, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain" / "train.py").write_text("a = 1\n")
    (tmp_path / ".gitignore").write_text("*_local.py\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "x")
    return tmp_path


def test_a_clean_checkout_is_its_commit(checkout: Path) -> None:
    (checkout / "notes.py").write_text("")  # not where jobs look
    (checkout / "pretrain" / "notes.txt").write_text("")
    (checkout / "pretrain" / "mine_local.py").write_text("")  # ignored
    assert git_commit(checkout) == git(checkout, "rev-parse", "--short=10", "HEAD")


@pytest.mark.parametrize("name", ["pretrain/train.py", "pretrain/new.py", "launch/deep/new.py"])
def test_code_that_is_not_committed_is_marked(checkout: Path, name: str) -> None:
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    (checkout / name).write_text("a = 2\n")
    assert git_commit(checkout) == git(checkout, "rev-parse", "--short=10", "HEAD") + "+"


def test_a_snapshot_says_what_its_checkout_was(checkout: Path) -> None:
    (checkout / "COMMIT").write_text("0123456789+\n")
    assert git_commit(checkout) == "0123456789+"


def test_outside_git_there_is_none(tmp_path: Path) -> None:
    assert git_commit(tmp_path) == ""


@pytest.fixture
def detectron2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds a Detectron2 which this process has imported."""
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").write_text("")
    module = ModuleType("detectron2")
    module.__dict__.update(__path__=[str(tmp_path / "detectron2")], __version__="0.6")
    monkeypatch.setitem(sys.modules, "detectron2", module)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def described() -> str:
    (found,) = [words for words in provenance.versions().split("; ") if "detectron2" in words]
    return found


def test_a_detectron2_on_the_path_is_named_in_the_place_of_the_installed_one(
    detectron2: Path,
) -> None:
    assert described() == f"detectron2 0.6 from {detectron2} without compiled operators"
    (detectron2 / "detectron2" / "_C.py").write_text("")
    assert described() == f"detectron2 0.6 from {detectron2} with compiled operators"


def test_a_detectron2_in_a_checkout_has_its_commit(detectron2: Path) -> None:
    git(detectron2, "init", "--quiet")
    git(detectron2, "add", "--all")
    git(detectron2, "commit", "--quiet", "--message", "x")
    commit = git(detectron2, "rev-parse", "--short=10", "HEAD")
    assert described() == f"detectron2 0.6 {commit} without compiled operators"
    (detectron2 / "detectron2" / "__init__.py").write_text("a = 1")
    assert described() == f"detectron2 0.6 {commit}+ without compiled operators"


def test_a_detectron2_that_pip_installed_from_its_repository_has_its_commit(
    detectron2: Path,
) -> None:
    notes = detectron2 / "detectron2-0.6.dist-info"
    notes.mkdir()
    (notes / "METADATA").write_text("Metadata-Version: 2.1\nName: detectron2\nVersion: 0.6\n")
    assert described() == "detectron2 0.6 without compiled operators"  # from an index
    origin = {"url": "x", "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef"}}
    (notes / "direct_url.json").write_text(json.dumps(origin))
    assert described() == "detectron2 0.6 0123456789 without compiled operators"


def test_a_cpu_has_neither_driver_nor_tf32() -> None:
    row = ran_on(torch.device("cpu"), 2, None)
    assert (row["device"], row["precision"]) == ("2 x cpu", "float32")
    assert f"torch {torch.__version__.split('+')[0]}" in row["versions"]


@pytest.mark.parametrize(
    ("capability", "dtype", "allowed", "precision"),
    [
        ((9, 0), None, True, "float32, convolutions in TF32"),
        ((8, 0), None, True, "float32, convolutions in TF32"),
        ((7, 0), None, True, "float32"),  # V100
        ((9, 0), None, False, "float32"),
        ((9, 0), torch.bfloat16, True, "bfloat16"),
        ((7, 0), torch.float16, True, "float16"),
    ],
)
def test_a_gpu_tells_its_driver_and_its_precision(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    dtype: torch.dtype | None,
    allowed: bool,
    precision: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    monkeypatch.setattr(provenance, "DRIVER", tmp_path / "version")
    assert ran_on(GPU, 8, dtype)["device"] == "8 x NVIDIA H200"  # not told in this container
    (tmp_path / "version").write_text("570.86.15\n")
    row = ran_on(GPU, 8, dtype)
    assert (row["device"], row["precision"]) == ("8 x NVIDIA H200, driver 570.86.15", precision)
