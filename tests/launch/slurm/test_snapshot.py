"""A job on Slurm runs the code as it was at its submission."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.provenance import ROOT, git_commit
from launch.slurm.executor import snapshot


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    for name in (
        "pretrain/train.py", "det_configs/a.yaml", "pyproject.toml", "README.md", "tests/test_a.py",
        "pretrain/__pycache__/train.pyc",
    ):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("a: 1\n")
    author = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "x"]):
        subprocess.run(["git", "-C", str(root), *author, *words], check=True)
    return root


def taken(folder: Path, checkout: Path) -> Path:
    with snapshot(folder, checkout) as code:
        return code


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


EXPECTED = {"pretrain/train.py", "det_configs/a.yaml", "pyproject.toml", "COMMIT"}


def test_it_holds_the_files_of_jobs_as_they_are_now(checkout: Path, tmp_path: Path) -> None:
    (checkout / "pretrain" / "train.py").write_text("a = 2\n")
    (checkout / "det_configs" / "mine.yaml").write_text("")  # git does not know it
    (checkout / "pretrain" / "checkpoint.pth").write_bytes(b"large")
    code = taken(tmp_path / "code", checkout)
    assert files(code) == EXPECTED | {"det_configs/mine.yaml"}
    commit = git_commit(checkout)
    assert commit.endswith("+") and git_commit(code) == commit
    assert code.name.startswith(commit[:-1] + "-")
    (checkout / "pretrain" / "train.py").write_text("a = 3\n")
    assert (code / "pretrain" / "train.py").read_text() == "a = 2\n"


def test_unchanged_code_is_one_folder(checkout: Path, tmp_path: Path) -> None:
    first = taken(tmp_path / "code", checkout)
    assert taken(tmp_path / "code", checkout) == first
    (checkout / "README.md").write_text("said otherwise")
    said = taken(tmp_path / "code", checkout)  # the same code, but not its commit's mark
    assert said != first and git_commit(said) == git_commit(first) + "+"
    (checkout / "pretrain" / "train.py").write_text("a = 2\n")
    assert taken(tmp_path / "code", checkout) not in (first, said)
    copy = taken(tmp_path / "again", first)  # of a snapshot, for a job's own jobs
    assert files(copy) == EXPECTED and copy.name == first.name


def test_a_refused_submission_leaves_none_of_its_own(checkout: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "code"
    with pytest.raises(ValueError, match="refused"), snapshot(folder, checkout):
        raise ValueError("refused")
    assert not (tmp_path / "runs").exists()
    code = taken(folder, checkout)
    with pytest.raises(ValueError, match="refused"), snapshot(folder, checkout):
        raise ValueError("refused")
    assert files(code) == EXPECTED


def test_a_job_imports_it_from_anywhere(tmp_path: Path) -> None:
    """Neither the working folder nor an editable install of the checkout comes before it."""
    code = taken(tmp_path / "code", ROOT)
    names = ("common", "demo", "detection", "launch.slurm.job", "pretrain.train", "segmentation")
    script = f"from importlib.util import find_spec\nfor n in {names!r}: print(find_spec(n).origin)"
    hold = code / "launch" / "slurm" / "hold_signals.py"
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(hold), sys.executable, "-P", "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(code)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = done.stdout.split()
    assert len(found) == len(names) and all(Path(path).is_relative_to(code) for path in found)
    assert (code / "det_configs" / "demo_R_18_FPN.yaml").exists()
    assert (code / "launch" / "tables" / "published.csv").exists()
