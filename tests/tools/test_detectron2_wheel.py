"""The source archive of Detectron2 0.6, and the wheel that is made of it."""

import base64
import csv
import hashlib
import importlib.metadata
import io
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import parse_wheel_filename

import detectron2_wheel as wheels
import install_detectron2 as installer
from detectron2_patches import PatchError
from tests.tools.archives import tarball


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def test_read_sdist_strips_the_top_folder() -> None:
    archive = tarball((tarfile.TarInfo("pkg-0.6/detectron2/a.py"), b"a"))
    assert wheels.read_sdist(archive) == {"detectron2/a.py": b"a"}


@pytest.mark.parametrize(
    "info",
    [
        tarfile.TarInfo("pkg/../../etc/passwd"),
        tarfile.TarInfo("/etc/passwd"),
        link("pkg/a.py", "/etc/passwd"),
    ],
    ids=["parent", "absolute", "link"],
)
def test_read_sdist_refuses_members_that_leave_the_archive(info: tarfile.TarInfo) -> None:
    with pytest.raises(PatchError, match="not a plain file inside the archive"):
        wheels.read_sdist(tarball((info, b"")))


def test_read_sdist_refuses_a_bomb(monkeypatch) -> None:
    monkeypatch.setattr(wheels, "_MAX_BYTES", 10)
    with pytest.raises(PatchError, match="unpacks to more than 10 bytes"):
        wheels.read_sdist(tarball((tarfile.TarInfo("pkg/a"), b"12345678901")))


def check_record(path: Path) -> None:
    """Check RECORD as the binary distribution format states it, with nothing of the tool's own."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert len(names) == len(set(names))
        record_name = next(name for name in names if name.endswith(".dist-info/RECORD"))
        rows = list(csv.reader(io.StringIO(archive.read(record_name).decode())))
        assert sorted(row[0] for row in rows) == sorted(names)
        for name, digest, size in rows:
            if name == record_name:
                assert (digest, size) == ("", "")
                continue
            content = archive.read(name)
            algorithm, _, value = digest.partition("=")
            expected = hashlib.new(algorithm, content).digest()
            assert base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)) == expected
            assert int(size) == len(content)


def test_wheel_is_one_that_pip_installs(tmp_path: Path) -> None:
    files = {"detectron2/__init__.py": b"x = 1\n", "detectron2/data/a.yaml": b"a: 1\n"}
    path = tmp_path / wheels.WHEEL_NAME
    path.write_bytes(wheels.wheel_bytes(files, ["yacs>=0.1.8"], "abc"))
    check_record(path)
    name, version, _, tags = parse_wheel_filename(path.name)
    assert (name, str(version), {str(tag) for tag in tags}) == (
        "detectron2",
        "0.6",
        {"py3-none-any"},
    )
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*command, "--target", str(target), str(path)], check=True)
    (installed,) = importlib.metadata.distributions(path=[str(target)])
    assert (installed.name, installed.version) == ("detectron2", "0.6")
    assert installed.requires == ["yacs>=0.1.8"]
    assert (target / "detectron2/data/a.yaml").read_bytes() == b"a: 1\n"


def test_equal_contents_make_equal_wheels() -> None:
    first = wheels.wheel_bytes({"b.py": b"1", "a.py": b"2"}, [], "t")
    assert first == wheels.wheel_bytes({"a.py": b"2", "b.py": b"1"}, [], "t")


@pytest.fixture(scope="module")
def real_wheel() -> Path:
    path = installer.CACHE / wheels.tool_tag() / wheels.WHEEL_NAME
    if not path.is_file():
        pytest.skip(f"{path} is not there: the set-up keeps another Detectron2, or was not run")
    return path


def test_real_wheel_has_a_true_record(real_wheel: Path) -> None:
    check_record(real_wheel)


def test_real_wheel_has_what_an_ordinary_install_has(real_wheel: Path) -> None:
    with zipfile.ZipFile(real_wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {"detectron2", "detectron2-0.6.dist-info"}
    assert {
        "detectron2/model_zoo/configs/Base-RCNN-C4.yaml",
        "detectron2/model_zoo/configs/common/optim.py",
        "detectron2/projects/point_rend/point_head.py",
        "detectron2/projects/deeplab/resnet.py",
        "detectron2/projects/panoptic_deeplab/panoptic_seg.py",
        "detectron2-0.6.dist-info/LICENSE",
    } <= names
    assert not [name for name in names if name.endswith((".pyc", ".cpp", ".so"))]


def test_real_wheel_states_requirements_that_hold_today(real_wheel: Path) -> None:
    with zipfile.ZipFile(real_wheel) as archive:
        text = archive.read("detectron2-0.6.dist-info/METADATA").decode()
        generator = archive.read("detectron2-0.6.dist-info/WHEEL").decode()
    stated = Parser().parsestr(text).get_all("Requires-Dist", [])
    requirements = {r.name.lower(): r for r in map(Requirement, stated)}
    assert set(requirements) == set(
        "pillow matplotlib pycocotools termcolor yacs tabulate cloudpickle tqdm tensorboard "
        "fvcore iopath omegaconf hydra-core".split()
    )
    assert requirements["iopath"].specifier.contains("0.1.10")
    assert f"({wheels.tool_tag()})" in generator


def test_real_wheel_has_none_of_the_removed_names(real_wheel: Path) -> None:
    removed = [f"np.{name}{end}" for name in ("bool", "int", "float", "str") for end in "),"]
    removed += ["Image.LINEAR", "pkg_resources", "torch.cuda.amp", "from detectron2 import _C\n\n"]
    with zipfile.ZipFile(real_wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".py"):
                text = archive.read(name).decode()
                compile(text, name, "exec")
                found = [old for old in removed if old in text.replace("# difficult = np", "")]
                assert name.endswith("fast_eval_api.py") or not found, name
