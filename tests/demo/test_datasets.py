"""The set on the disk: whole or absent, drawn once, the same bytes for the same seed."""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.errors import UserError
from demo import CLASSES, Counts, __main__, datasets, default_root, ensure, write

REPOSITORY = Path(datasets.__file__).parents[1]
TINY = Counts(1, 1, 2, 2, 2, 2, 2, 2, 2)


def digest(root: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file():
            total.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def python(code: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, text=True, stdout=subprocess.PIPE
    )


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (digest(write(tmp_path / name, 5, TINY)) for name in ("a", "b"))
    other = digest(write(tmp_path / "b", 6, TINY))  # in place of the former
    assert first == second != other


def test_imagefolder(root: Path, counts: Counts) -> None:
    for split, count in (("train", counts.imagenet_train), ("val", counts.imagenet_val)):
        folders = sorted((root / "imagenet" / split).iterdir())
        assert tuple(folder.name for folder in folders) == CLASSES
        assert all(len(list(folder.glob("*.jpg"))) == count for folder in folders)


def test_two_processes_at_once_draw_one_set(tmp_path: Path) -> None:
    code = f"""
import time
from demo import datasets
datasets.FULL = datasets.Counts(**{dataclasses.asdict(TINY)})
draw = datasets._draw
def slow(*arguments):
    print("drew", flush=True)
    draw(*arguments)
    time.sleep(1)  # so that the other process comes while the lock is held
datasets._draw = slow
datasets.ensure({str(tmp_path / "set")!r})
assert datasets.manifest(datasets.Path({str(tmp_path / "set")!r}))["seed"] == 0
print("done")
"""
    processes = [python(code) for _ in range(2)]
    outputs = sorted(process.communicate(timeout=60)[0].split() for process in processes)
    assert outputs == [["done"], ["drew", "done"]]
    assert digest(tmp_path / "set") == digest(write(tmp_path / "reference", 0, TINY))


def test_a_killed_process_leaves_no_set(tmp_path: Path) -> None:
    root = tmp_path / "set"
    process = python(f"from demo import write; write({str(root)!r})")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".set.partial/imagenet/train/*/*.jpg")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not root.exists()
    write(root, 0, TINY)  # what was left is in nobody's way, and is cleared up
    assert sorted(path.name for path in tmp_path.iterdir()) == [".set.lock", "set"]
    assert digest(root) == digest(write(tmp_path / "reference", 0, TINY))


def test_ensure_keeps_a_set_and_replaces_one_of_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "FULL", TINY)
    root = write(tmp_path / "set", 9, TINY)
    before = digest(root)
    assert ensure(root) == root and digest(root) == before
    found = json.loads((root / "manifest.json").read_text())
    (root / "manifest.json").write_text(json.dumps({**found, "version": -1}))
    (root / "stale").touch()
    ensure(root)
    assert datasets.manifest(root) == {**found, "seed": 0}
    assert not (root / "stale").exists()


def test_another_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match=f"{tmp_path} holds something other.*LEWEL_DEMO_DIR"):
        ensure(tmp_path)
    with pytest.raises(UserError, match=r"cannot draw the embedded data set into .*file/set"):
        (tmp_path / "file").touch()
        write(tmp_path / "file" / "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "manifest.json"]


def test_default_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEWEL_DEMO_DIR", raising=False)
    assert default_root() == REPOSITORY / "data" / "demo"
    monkeypatch.setenv("LEWEL_DEMO_DIR", str(tmp_path))
    assert default_root() == tmp_path


def test_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets, "FULL", TINY)
    monkeypatch.setattr(sys, "argv", ["demo", str(tmp_path / "set")])
    with pytest.raises(SystemExit) as status:
        __main__.main()
    assert not status.value.code
    printed = capsys.readouterr().out
    assert f"(seed 0) in {tmp_path / 'set'}" in printed
    assert "coco_train: 2 images" in printed
    monkeypatch.setattr(sys, "argv", ["demo", str(tmp_path / "set"), "--seed", "-1"])
    with pytest.raises(SystemExit) as status:
        __main__.main()
    assert status.value.code == 2
    assert "error: --seed -1" in capsys.readouterr().err
