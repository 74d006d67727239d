"""A job on Slurm runs the code, and the config, as they were at its submission."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import segmentation  # noqa: F401  registers FCN
from common.provenance import ROOT, git_commit
from launch.cluster.snapshot import USERS, snapshot

CONFIGS = ROOT / "det_configs"


def git(root: Path, *words: str) -> None:
    author = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "-C", str(root), *author, *words], check=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    for name, text in {
        "pretrain/train.py": "a = 1\n",
        "pretrain/data/list.bin": "tracked\n",
        "det_configs/a.yaml": "VERSION: 2\n",
        "pyproject.toml": "",
        "README.md": "",
        "tests/test_a.py": "",
        ".gitignore": "*_local.py\nruns/\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "x")
    return root


def files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != USERS
    }


EXPECTED = {"pretrain/train.py", "det_configs/a.yaml", "pyproject.toml", "COMMIT"}


def test_it_holds_what_jobs_need_as_it_is_now(checkout: Path, tmp_path: Path) -> None:
    (checkout / "pretrain" / "train.py").write_text("a = 2\n")
    (checkout / "pretrain" / "new.py").write_text("b = 1\n")
    (checkout / "pretrain" / "mine_local.py").write_text("")  # git ignores it
    (checkout / "pretrain" / "checkpoint.pth").write_bytes(b"large")  # nobody asked for it
    with snapshot(tmp_path, checkout) as code:
        assert files(code) == EXPECTED | {"pretrain/new.py", "pretrain/data/list.bin"}
    commit = git_commit(checkout)
    assert commit.endswith("+") and git_commit(code) == commit
    assert code.parent == tmp_path / "runs" / "code" and code.name.startswith(commit[:-1] + "-")
    (checkout / "pretrain" / "train.py").write_text("a = 3\n")
    assert (code / "pretrain" / "train.py").read_text() == "a = 2\n"


def test_unchanged_code_is_one_folder(checkout: Path, tmp_path: Path) -> None:
    def taken() -> Path:
        with snapshot(tmp_path, checkout) as code:
            return code

    first = taken()
    assert taken() == first
    (checkout / "README.md").write_text("said otherwise")
    said = taken()  # the same code, but not its commit's mark
    assert said != first and git_commit(said) == git_commit(first) + "+"
    (checkout / "pretrain" / "train.py").write_text("a = 2\n")
    assert taken() not in (first, said)


def test_without_git_the_files_are_known_by_their_endings(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".git").rename(checkout / "history")
    (checkout / "pretrain" / "__pycache__").mkdir()
    (checkout / "pretrain" / "__pycache__" / "train.pyc").write_bytes(b"")
    with snapshot(tmp_path, checkout) as code:
        assert files(code) == EXPECTED and git_commit(code) == ""
    with snapshot(tmp_path / "again", code) as copy:  # of a snapshot, for a job's own jobs
        assert files(copy) == EXPECTED and copy.name == code.name


def test_many_at_once_share_it_whole(checkout: Path, tmp_path: Path) -> None:
    def take(_: int) -> set[str]:
        with snapshot(tmp_path, checkout) as code:
            return files(code)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(take, range(16)))
    assert all(names == EXPECTED | {"pretrain/data/list.bin"} for names in found)
    (only,) = (tmp_path / "runs" / "code").iterdir()
    assert len(list((only / USERS).iterdir())) == 16


def refused(output_dir: Path, checkout: Path, meanwhile: Callable[[], None]) -> None:
    with pytest.raises(ValueError, match="refused"), snapshot(output_dir, checkout):
        meanwhile()
        raise ValueError("refused")


def test_a_refused_submission_leaves_none(checkout: Path, tmp_path: Path) -> None:
    refused(tmp_path, checkout, lambda: None)
    assert not (tmp_path / "runs" / "code").exists()


def test_another_submissions_stays(checkout: Path, tmp_path: Path) -> None:
    kept: list[Path] = []

    def another() -> None:
        with snapshot(tmp_path, checkout) as code:
            kept.append(code)

    refused(tmp_path, checkout, another)
    refused(tmp_path, checkout, lambda: None)
    assert files(kept[0]) >= EXPECTED


def test_some_refused_and_some_not_at_once(checkout: Path, tmp_path: Path) -> None:
    """Whoever was not refused finds the whole snapshot, also after the others' deletions."""

    def take(number: int) -> Path | None:
        try:
            with snapshot(tmp_path, checkout) as code:
                if number % 4:
                    raise ValueError
                return code
        except ValueError:
            return None

    with ThreadPoolExecutor(8) as pool:
        kept = [code for code in pool.map(take, range(64)) if code]
    assert len(kept) == 16 and all(files(code) >= EXPECTED for code in kept)


def test_a_job_imports_it_from_anywhere(tmp_path: Path) -> None:
    """Neither the working folder nor an editable install of the checkout comes before it."""
    with snapshot(tmp_path) as code:
        pass
    names = ("common", "demo", "detection", "launch.cluster.jobs", "pretrain.train", "segmentation")
    script = f"import importlib\nfor n in {names!r}: print(importlib.import_module(n).__file__)"
    hold = code / "launch" / "cluster" / "hold_signals.py"
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
