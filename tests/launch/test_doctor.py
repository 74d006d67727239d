"""The doctor: what is there, what is missing, what mends it, and whether a job can run."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from launch import doctor
from launch.checks import machine, slurm, software
from launch.checks.check import Check
from launch.options import CONFIGS
from launch.slurm.site import file as site_file
from pretrain.lewel import LEWEL
from pretrain.optimizer import LARS, parameter_groups
from tests.detection.helpers import config
from tests.launch.slurm.fake_slurm import FakeSlurm, error, rows

SINFO = ("gpu*|infinite|2|gpu:a100:2(S:0-1),nvme:1", "cpu|1-00:00:00|30|(null)")


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder without variables that name data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IMAGENET_DIR", raising=False)
    return tmp_path


def lines_of(output: str) -> dict[str, str]:
    """Mark and text of each check by its name."""
    checks = [
        line for line in output.splitlines() if line[:8].strip() in ("ok", "warning", "missing")
    ]
    return {
        line[9:].partition(":")[0]: f"{line[:8].strip()}{line[9:].partition(':')[2]}"
        for line in checks
    }


def test_nothing_installed_is_said_by_the_command_itself(nowhere: Path) -> None:
    """-S hides what is installed, and with it tyro, which reads the command line."""
    command = [sys.executable, "-S", str(CONFIGS.parent / "launch" / "doctor.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    found = lines_of(done.stdout)
    assert (done.returncode, done.stderr, set(found)) == (1, "", {"Python", "packages"})
    assert found["packages"].startswith("missing ") and " tyro," in found["packages"]
    assert "to mend it: " in done.stdout and "cannot run without packages" in done.stdout


def test_a_package_that_is_old_or_absent_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text('[project]\ndependencies = ["torch>=99", "numpy>=1", "not-there>=1"]\n')
    monkeypatch.setattr(software, "PYPROJECT", pyproject)
    _, packages = software.software()
    torches = f"torch {importlib.metadata.version('torch')}, not >=99"
    assert packages.found == f"not-there not installed; {torches}" and packages.stops


def test_without_data_the_main_job_cannot_run_and_is_told_what_mends_it(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("demo.ensure", lambda: pytest.fail("the doctor draws nothing"))
    assert doctor.run(["--config", "demo_R_18_FPN"]) == 0  # the others do not decide
    found = lines_of(capsys.readouterr().out)
    assert found["ImageNet train"].startswith("missing no training images: give --data")
    assert found["Slurm"] == "ok no sbatch on the PATH: local jobs only"
    assert found["Detectron2"].startswith("ok 0.6") and "compiled operators" in found["Detectron2"]
    assert {
        found[name].partition(" ")[0] for name in ("Python", "packages", "PyTorch", "disk")
    } == {"ok"}
    assert doctor.run([]) == 1
    shown = capsys.readouterr().out
    assert "to mend it: export IMAGENET_DIR=" in shown
    assert shown.splitlines()[-1].startswith(
        "pretrain.py, then transfer.py --config coco_R_50_FPN_1x_infomin: cannot run without "
        "ImageNet train"
    )
    assert not [*nowhere.iterdir()]


def test_real_slices_are_counted_beside_the_whole(
    nowhere: Path,
    real_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("IMAGENET_DIR", str(real_data / "imagenet"))
    assert doctor.run([]) == 0
    shown = capsys.readouterr().out
    found = lines_of(shown)
    train = f"{real_data}/imagenet/train"
    assert found["ImageNet train"] == (
        f"warning 800 of 1,281,167 images in 10 of 1,000 classes, {train}"
    )
    assert found["ImageNet val"].startswith("warning 200 of 50,000 images in 10 of 1,000 classes")
    expected = {
        "coco_2017_train": "70 of 118,287 images, 70 of them with objects",
        "coco_2017_val": "50 of 5,000 images, 50 of them with objects",
        "voc_2007_trainval": "60 of 5,011 images listed",
        "voc_2007_test": "60 of 4,952 images listed",
        "voc_2012_trainval": "62 of 11,540 images listed",
        "voc_2012_train_aug_sem_seg": "65 of 10,582 images listed with masks",
        "voc_2012_val_sem_seg": "45 of 1,449 images listed with masks",
    }
    assert {name: found[name] for name in expected} == {
        name: f"warning {text}" for name, text in expected.items()
    }
    assert shown.endswith("can run\n")


VAL_OF_2012 = """
import sys
from pathlib import Path
import segmentation
from detection.config import read
from launch.checks.datasets import of_config
from launch.options import CONFIGS
config = read(CONFIGS / "pascal_voc_R_50_FCN_D8_20k.yaml").cfg
print(*of_config(config, {"voc_2012_train_aug_sem_seg"}, True), sep="\\n")
Path(sys.argv[1], "VOC2012", "SegmentationClass", "7.png").unlink()
print(*of_config(config, {"voc_2012_train_aug_sem_seg"}, True), sep="\\n")
"""


def test_a_whole_set_is_ok_and_one_file_less_is_not(tmp_path: Path) -> None:
    names = [str(number) for number in range(1_449)]
    for folder, ending in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
        (tmp_path / "VOC2012" / folder).mkdir(parents=True)
        for name in names:
            (tmp_path / "VOC2012" / folder / f"{name}.{ending}").touch()
    lists = tmp_path / "VOC2012" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("\n".join(names))
    environment = os.environ | {"DETECTRON2_DATASETS": str(tmp_path)}  # read at import
    done = subprocess.run(
        [sys.executable, "-c", VAL_OF_2012, str(tmp_path)],
        env=environment | {"PYTHONPATH": str(CONFIGS.parent)},
        capture_output=True,
        text=True,
    )
    whole, less, mend = done.stdout.splitlines()
    assert whole == "ok       voc_2012_val_sem_seg: 1,449 images listed with masks", done.stderr
    assert less.startswith("warning ") and less.endswith("; 1 of their files are not on the disk")
    assert mend.strip() == (
        "to mend it: curl http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"
        f"VOCtrainval_11-May-2012.tar | tar x --strip-components=1 -C {tmp_path}"
    )


def test_a_checkpoint_has_the_size_that_the_disk_is_compared_with(tmp_path: Path) -> None:
    def stepped(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}

    lewel = LEWEL("resnet18", proj_dim=16, hidden_dim=64)
    torch.save(stepped(lewel, LARS(parameter_groups(lewel, 0.0), lr=0.1)), tmp_path / "lewel")
    assert (tmp_path / "lewel").stat().st_size == pytest.approx(machine.size_of(lewel), rel=0.01)

    from detectron2.modeling import build_model
    from detectron2.solver import build_optimizer

    cfg = config("demo_R_18_FPN", "MODEL.DEVICE", "cpu")
    detector = build_model(cfg)
    torch.save(stepped(detector, build_optimizer(cfg, detector)), tmp_path / "detector")
    size = machine.size_of_transfer(cfg)
    assert (tmp_path / "detector").stat().st_size == pytest.approx(size, rel=0.01)


def test_a_full_disk_stops_the_job(tmp_path: Path) -> None:
    assert machine.disk(tmp_path, {"a": 1000}).mark == "ok"
    full = machine.disk(tmp_path, {"a": 10**15, "b": 10**15})
    assert full.stops and "6000000.0 GB: 3 x 1000000.00 GB (a) + 3 x" in full.found


def test_the_kind_of_a_file_system_is_the_kernels() -> None:
    kinds = {"/proc": "proc", "/dev/shm": "tmpfs", "/proc/sys/fs": "proc"}
    for place in ("/", "/tmp", os.getcwd()):
        told = subprocess.run(
            ["findmnt", "-n", "-o", "FSTYPE", "-T", place], capture_output=True, text=True
        )
        kinds[place] = told.stdout.split()[-1]
    for place, kind in kinds.items():
        assert f" is on {kind}" in machine.shared("it", Path(place)).found
    assert machine.shared("it", Path("/proc")).mark == "warning"


def checks(played: FakeSlurm) -> dict[str, Check]:
    return {check.name: check for check in slurm.slurm()}


def test_partitions_and_gpus_are_shown_and_what_mends_a_job_for_more_does(
    played: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in ("sbatch", "srun", "sacct"):
        played.answers(command, "exit 0")
    played.answers("sinfo", rows(*SINFO))
    found = checks(played)
    assert (
        found["Slurm"].mark == "warning" and "a job asks for 8 GPUs a node" in found["Slurm"].found
    )
    subprocess.run(
        ["/bin/bash", "-c", found["Slurm"].mend], check=True, env={"PATH": "/bin:/usr/bin"}
    )
    found = checks(played)
    assert found["Slurm"] == Check(
        "Slurm",
        "ok",
        "partitions gpu* (2 nodes, gpu:a100:2(S:0-1),nvme:1, limit infinite), "
        "cpu (30 nodes, no GPUs, limit 1-00:00:00)",
    )
    assert found["accounting"].mark == "ok"
    assert found["site settings"].found == str(site_file())
    monkeypatch.setenv("LEWEL_SLURM_PARTITION", "a100")
    assert "the site's, a100, is not there" in checks(played)["Slurm"].found


def test_what_ails_slurm_is_said(played: FakeSlurm, no_site: Path) -> None:
    played.answers("sbatch", "exit 0")
    assert "sbatch is on the PATH but srun is not" in checks(played)["Slurm"].found
    played.answers("srun", "exit 0")
    played.answers("sinfo", error("slurm_load_partitions: Unable to contact slurm controller"))
    found = checks(played)["Slurm"]
    assert found.mark == "missing" and not found.stops and found.mend == "scontrol ping"
    assert found.found.endswith("Unable to contact slurm controller")
    played.answers("sinfo", rows(*SINFO))
    played.answers("sacct", error("Slurm accounting storage is disabled"))
    assert checks(played)["accounting"].mark == "warning"
    no_site.parent.mkdir()
    no_site.write_text("partitoin = 3\n")
    wrong = checks(played)["site settings"]
    assert wrong.stops and "partitoin: is no setting" in wrong.found


def test_a_config_that_is_not_there_is_refused_at_once() -> None:
    command = [sys.executable, str(CONFIGS.parent / "launch" / "doctor.py"), "--config", "nope"]
    done = subprocess.run(command, capture_output=True, text=True)
    said = "error: --config nope: no such file; see det_configs/.\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)
