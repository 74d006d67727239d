"""The commit that a number is said to come from."""

import subprocess
from pathlib import Path

import pytest

from common.provenance import git_commit


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
