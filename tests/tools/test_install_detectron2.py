"""The installer's command: what it fetches, builds, keeps and refuses."""

import hashlib
import subprocess
import tarfile
from pathlib import Path

import pytest

import detectron2_wheel as wheels
import install_detectron2 as installer
from tests.tools.archives import tarball


def test_wrong_hash_is_one_sentence_and_status_2(monkeypatch, tmp_path: Path, capsys) -> None:
    archive = tarball((tarfile.TarInfo("pkg/a"), b"not Detectron2"))

    def download(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if "--download" in command:
            folder = Path(command[command.index("--download") + 1])
            (folder / "pb1-detectron2-0.6.tar.gz").write_bytes(archive)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(installer.subprocess, "run", download)
    monkeypatch.setattr(installer, "ensure", lambda *_: installer.cached_wheel(tmp_path))
    assert installer.main([]) == 2
    error = capsys.readouterr().err
    assert hashlib.sha256(archive).hexdigest() in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_no_network_names_the_reason(monkeypatch, tmp_path: Path) -> None:
    def fail(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "Traceback\nConnectError: refused\n")

    monkeypatch.setattr(installer.subprocess, "run", fail)
    with pytest.raises(installer.InstallError, match=r"ConnectError: refused.*check the net"):
        installer.cached_wheel(tmp_path)


def test_missing_unearth_names_the_remedy(monkeypatch) -> None:
    monkeypatch.setattr(installer.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(installer.InstallError, match="-m pip install unearth"):
        installer.fetch_sdist()


def test_changed_source_is_refused(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(installer, "fetch_sdist", lambda: tarball((tarfile.TarInfo("p/a"), b"")))
    with pytest.raises(installer.InstallError, match=r"cannot patch .*: not in the source"):
        installer.cached_wheel(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_wheel_is_packed_once(monkeypatch, tmp_path: Path) -> None:
    fetches: list[bytes] = []

    def fetch() -> bytes:
        fetches.append(b"sdist")
        return b"sdist"

    monkeypatch.setattr(installer, "fetch_sdist", fetch)
    monkeypatch.setattr(installer, "repack", lambda sdist, tag: b"wheel")
    first = installer.cached_wheel(tmp_path)
    assert first.read_bytes() == b"wheel" and first == installer.cached_wheel(tmp_path)
    assert len(fetches) == 1 and [p.name for p in tmp_path.iterdir()] == [wheels.tool_tag()]


def test_fetch_uses_the_index_of_pip(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "mirror.example")
    command = installer.fetch_command(tmp_path, installer.pip_options())
    assert command[command.index("--index-url") + 1] == "https://mirror.example/simple"
    assert command[command.index("--trusted-host") + 1] == "mirror.example"
    assert "--index-url" not in installer.fetch_command(tmp_path, {})


def test_git_source_is_built_before_anything_is_removed(monkeypatch) -> None:
    """The repository cannot be reached in a test: this checks the order of pip's commands only."""
    calls = []

    def pip(*arguments: str) -> None:
        calls.append(arguments)
        if arguments[0] == "wheel":
            folder = Path(arguments[arguments.index("--wheel-dir") + 1])
            (folder / "detectron2-0.6-cp311-cp311-linux_x86_64.whl").touch()

    monkeypatch.setattr(installer, "run_pip", pip)
    monkeypatch.setattr(installer, "is_installed", lambda: True)
    installer.install("git", "abc123")
    assert [call[0] for call in calls] == ["wheel", "uninstall", "install"]
    assert calls[0][-1] == "git+https://github.com/facebookresearch/detectron2@abc123"
    assert calls[2][-1].endswith("detectron2-0.6-cp311-cp311-linux_x86_64.whl")
