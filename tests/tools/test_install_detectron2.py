"""The Detectron2 installer: its wheel, its downloads, its refusals."""

import base64
import hashlib
import importlib.metadata
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import parse_wheel_filename

import detectron2_patches as patches
import install_detectron2 as installer


def source(**changed: str) -> bytes:
    """A source archive that has what the installer looks for, and nothing else."""
    requirements = "\n".join(["yacs>=0.1.8", *patches.REQUIREMENTS, "", "[all]", "panopticapi"])
    files = {
        "LICENSE": "Apache",
        "pb1_detectron2.egg-info/requires.txt": requirements,
        "detectron2/model_zoo/configs/a.yaml": "a: 1\n",
        "projects/DeepLab/deeplab/resnet.py": "x = 1\n",
        "projects/DeepLab/train_net.py": "x = 1\n",
        "tools/plain_train_net.py": "x = 1\n",
        "detectron2/layers/deform_conv.py": "from detectron2 import _C\n",
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, text in (files | changed).items():
            info = tarfile.TarInfo(f"pb1-detectron2-0.6/{path}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def test_the_wheel_is_one_that_pip_installs(tmp_path: Path) -> None:
    wheel = tmp_path / installer.WHEEL_NAME
    wheel.write_bytes(installer.repack(source()))
    name, version, _, tags = parse_wheel_filename(wheel.name)
    assert (name, str(version)) == ("detectron2", "0.6")
    assert {str(tag) for tag in tags} == {"py3-none-any"}
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*command, "--target", str(site), str(wheel)], check=True)
    (installed,) = importlib.metadata.distributions(path=[str(site)])
    assert (installed.name, installed.version) == ("detectron2", "0.6")
    assert installed.requires == ["yacs>=0.1.8", "iopath>=0.1.7"]
    assert {path.name for path in site.iterdir()} == {"detectron2", "detectron2-0.6.dist-info"}
    assert (site / "detectron2/model_zoo/configs/a.yaml").read_text() == "a: 1\n"
    assert (site / "detectron2/projects/deeplab/resnet.py").read_text() == "x = 1\n"
    text = (site / "detectron2/layers/deform_conv.py").read_text()
    assert text.startswith("from detectron2.utils.compiled_ops import _C\n")
    assert "# Modified by" in text
    with zipfile.ZipFile(wheel) as archive:  # pip has written RECORD anew
        contents = {name: archive.read(name) for name in archive.namelist()}
    rows = contents.pop("detectron2-0.6.dist-info/RECORD").decode().splitlines()
    assert rows.pop() == "detectron2-0.6.dist-info/RECORD,,"
    for row, (path, content) in zip(rows, contents.items(), strict=True):
        filename, digest, size = row.split(",")
        expected = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        assert (filename, digest, int(size)) == (path, f"sha256={expected}", len(content))


def test_equal_sources_make_equal_wheels() -> None:
    assert installer.repack(source()) == installer.repack(source())


def test_a_source_without_a_text_that_changes_stops_the_set_up() -> None:
    with pytest.raises(AssertionError, match=r"deform_conv\.py: 'detectron2 import _C'"):
        installer.repack(source(**{"detectron2/layers/deform_conv.py": "import torch\n"}))


def answered(
    monkeypatch: pytest.MonkeyPatch, archive: bytes = b"", status: int = 0, error: str = ""
) -> list[list[str]]:
    """Let unearth download ``archive``; the commands that are run."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if "--download" in command and archive:
            folder = Path(command[command.index("--download") + 1])
            (folder / "pb1-detectron2-0.6.tar.gz").write_bytes(archive)
        return subprocess.CompletedProcess(command, status, "", error)

    monkeypatch.setattr(installer.subprocess, "run", run)
    monkeypatch.setattr(installer, "is_installed", lambda: False)
    return commands


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence with which the command ends."""
    with pytest.raises(SystemExit) as ended:
        installer.main([])
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and line.startswith("error: ")
    return line


def test_a_wrong_hash_is_refused(monkeypatch, capsys) -> None:
    commands = answered(monkeypatch, archive=b"not Detectron2")
    assert hashlib.sha256(b"not Detectron2").hexdigest() in refusal(capsys)
    assert not [command for command in commands if "install" in command]


def test_no_network_names_the_reason(monkeypatch, capsys) -> None:
    answered(monkeypatch, status=1, error="Traceback\nConnectError: refused\n")
    line = refusal(capsys)
    assert "ConnectError: refused" in line and "check the network" in line


def test_missing_unearth_names_the_remedy(monkeypatch, capsys) -> None:
    monkeypatch.setattr(installer.importlib.util, "find_spec", lambda _: None)
    assert "-m pip install unearth" in refusal(capsys)


def test_the_index_is_pips(monkeypatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "mirror.example")
    options = installer.pip_options()
    monkeypatch.setattr(installer, "pip_options", lambda: options)
    commands = answered(monkeypatch, archive=b"x")
    with pytest.raises(installer.UserError, match="sha256"):
        installer.fetch_sdist()
    (command,) = commands
    assert command[command.index("--index-url") + 1] == "https://mirror.example/simple"
    assert command[command.index("--trusted-host") + 1] == "mirror.example"
    monkeypatch.setattr(installer, "pip_options", dict)
    with pytest.raises(installer.UserError, match="sha256"):
        installer.fetch_sdist()
    assert "--index-url" not in commands[1]


def test_the_repositorys_code_is_built_before_anything_is_removed(monkeypatch) -> None:
    """The repository cannot be reached in a test: this checks the order of pip's commands only."""
    calls = []

    def pip(*arguments: str) -> None:
        calls.append(arguments)
        if arguments[0] == "wheel":
            folder = Path(arguments[arguments.index("--wheel-dir") + 1])
            (folder / "detectron2-0.6-cp311-cp311-linux_x86_64.whl").touch()

    monkeypatch.setattr(installer, "run_pip", pip)
    monkeypatch.setattr(installer, "is_installed", lambda: True)
    installer.install(installer.Options("git", "abc123"))
    assert [call[0] for call in calls] == ["wheel", "uninstall", "install"]
    assert calls[0][-1] == "git+https://github.com/facebookresearch/detectron2@abc123"
    assert calls[2][-1].endswith("detectron2-0.6-cp311-cp311-linux_x86_64.whl")
