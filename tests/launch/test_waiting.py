"""Jobs that start from a pre-training run that is not finished, before and after it is."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import launch.classify
import launch.transfer
from common import runs
from common.errors import UserError
from common.files import sha256, write_json
from launch.classify import Linear, WeightOptions
from launch.options import CONFIGS, Resources, RunOptions
from launch.slurm import states as slurm
from launch.slurm.job import Job, followers
from launch.slurm.states import Record, State
from pretrain.config import PretrainConfig
from pretrain.evaluation.config import LinearConfig
from tests.launch.slurm.fake_slurm import FakeSlurm
from tests.launch.test_weights import checkpoint

CPUS = Resources("slurm", gpus_per_node=0)
DEBUG = Resources(cluster="debug")
SHORT = (
    *("SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "()", "SOLVER.IMS_PER_BATCH", "2"),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "DATALOADER.NUM_WORKERS", "0"),
    *("TEST.PRECISE_BN.NUM_ITER", "1", "MODEL.RPN.POST_NMS_TOPK_TEST", "5"),
)


@pytest.fixture
def pending(tmp_path: Path, demo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pre-training run that Slurm job 12 has yet to begin."""
    config = PretrainConfig(data="demo", backbone="resnet18", norm="eman").resolve()
    folder = tmp_path / "runs" / "pretrain" / "mine"
    write_json(folder / "config.json", dataclasses.asdict(config))
    Record("slurm", "12", 1, str(folder / "submitit"), "2026-01-01T00:00:00+00:00").write(folder)
    monkeypatch.setattr(slurm, "states", lambda ids: {i: State("PENDING") for i in ids})
    return folder


def sweep(folder: Path, weights: Path, **changes: Any) -> launch.transfer.Command:
    options: dict[str, Any] = {"run": RunOptions(output_dir=folder), "resources": DEBUG} | changes
    configs = (CONFIGS / "demo_R_18_FPN.yaml",)
    return launch.transfer.Command(config=configs, weights=(str(weights),), **options)


def linear(folder: Path, weights: Path, **changes: Any) -> Linear:
    protocol = LinearConfig(data="demo", batch_size=8, epochs=1)
    options: dict[str, Any] = {"run": RunOptions(output_dir=folder), "resources": DEBUG} | changes
    return Linear(WeightOptions(str(weights)), protocol, **options)


def finish(pending: Path, **more: Any) -> Path:
    runs.finish(pending, {})
    return checkpoint(pending / "checkpoint.pth.tar", **more)


def test_a_transfer_has_its_name_before_the_weights_are_there(
    tmp_path: Path, pending: Path
) -> None:
    (before,) = launch.transfer.plan(sweep(tmp_path, pending, lr=(0.01,), seed=3))
    name = "demo_R_18_FPN-mine@200-lr0.01-b4-s3"
    assert before.folder == tmp_path / "runs" / "transfer" / name and before.after == pending
    weights = before.config.weights
    assert (weights.method, weights.norm, weights.sha256) == ("LEWEL_B", "eman", "")
    path = finish(pending)
    for wanted in (pending, path):
        (after,) = launch.transfer.plan(sweep(tmp_path, wanted, lr=(0.01,), seed=3))
        assert (after.folder, after.after) == (before.folder, None)
        assert after.config.weights.sha256 == sha256(path)
    job = launch.classify.plan(linear(tmp_path, pending))
    assert job.folder.name.startswith("resnet18-mine@200-e1-lr")


def test_a_job_that_waited_records_its_weights_and_is_recognised(
    tmp_path: Path, pending: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = sweep(tmp_path, pending)
    (job,) = launch.transfer.plan(command, SHORT)
    path = finish(pending)
    job()  # as Slurm starts it then
    metrics = json.loads((job.folder / runs.FINAL).read_text())
    assert metrics["weights_sha256"] == sha256(path) and metrics["pretrain_epochs"] == 200
    assert [p.stem for p in (tmp_path / "runs" / "weights").glob("*.pkl")] == [sha256(path)[:16]]
    launch.transfer.submit(launch.transfer.plan(command, SHORT), DEBUG, fresh=False)
    assert "already finished" in capsys.readouterr().out
    path.unlink()
    finish(pending, best_acc1=1.0)  # as after --fresh
    another = r"holds another run: weights_sha256 \('\w+' there, '\w+' "
    with pytest.raises(UserError, match=another):
        launch.transfer.submit(launch.transfer.plan(command, SHORT), DEBUG, fresh=False)
    (job.folder / runs.FINAL).unlink()
    for _ in range(2):  # as Slurm starts it after a requeue
        with pytest.raises(UserError, match=another):
            job()


def test_a_run_of_before_goes_on_under_its_name(tmp_path: Path, pending: Path) -> None:
    path = finish(pending)
    name = f"demo_R_18_FPN-{sha256(path)[:8]}-lr0.02-b4-s0"
    (tmp_path / "runs" / "transfer" / name).mkdir(parents=True)
    (job,) = launch.transfer.plan(sweep(tmp_path, pending))
    assert job.folder.name == name


def test_the_same_command_submits_nothing_new_and_another_is_refused(
    tmp_path: Path, pending: Path, fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    command = sweep(tmp_path, pending, run=RunOptions("x", tmp_path), resources=CPUS)
    (folder,) = launch.transfer.start(command)
    record = Record.read(folder)
    assert record is not None and (record.job_id, record.after) == ("101", "12")
    assert "#SBATCH --dependency=afterok:12" in fake_slurm.read("101.sh")
    fake_slurm.say("queue", "101|PENDING|Dependency\n")
    assert launch.transfer.start(command) == [folder]
    assert "already submitted: job 101" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"x holds another run: lr \(0\.02 there, 0\.5 now"):
        launch.transfer.start(dataclasses.replace(command, lr=(0.5,)))


def test_elsewhere_than_on_slurm_nobody_waits_and_nothing_starts(
    tmp_path: Path, pending: Path
) -> None:
    both = dataclasses.replace(sweep(tmp_path, pending), weights=("none", str(pending)))
    with pytest.raises(UserError, match="Slurm job 12 will leave, and --cluster debug does not"):
        launch.transfer.start(both)
    with pytest.raises(UserError, match="Slurm job 12 will leave, and --cluster debug does not"):
        launch.classify.start(linear(tmp_path, pending))
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"pretrain"}


def test_all_are_submitted_before_any_is_followed(
    tmp_path: Path, pending: Path, followed: list[tuple[str, str]]
) -> None:
    both = dataclasses.replace(
        sweep(tmp_path, pending),
        weights=("none", str(pending)),
        resources=dataclasses.replace(CPUS, wait=True),
    )
    folders = launch.transfer.start(both)
    assert followed == [("101", "102"), ("102", "102")]
    assert [folder.parent.name for folder in folders] == ["transfer", "transfer"]


def test_a_folder_that_no_job_will_finish_is_refused(
    tmp_path: Path, pending: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="is a folder, but no pre-training run"):
        launch.transfer.start(sweep(tmp_path, tmp_path))
    monkeypatch.setattr(slurm, "states", lambda ids: {i: State("FAILED") for i in ids})
    for _ in range(2):
        with pytest.raises(UserError, match="is not finished, and no job on Slurm has it"):
            launch.transfer.start(sweep(tmp_path, pending))
        (pending / "job.json").unlink(missing_ok=True)


def test_a_run_that_fails_names_those_that_wait_for_it(
    tmp_path: Path,
    pending: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = PretrainConfig(data="demo").resolve()

    def fail(config: object, folder: Path) -> None:
        raise UserError("the loss was not finite")

    for number, after in ((13, "12"), (14, "7")):
        record = Record("slurm", str(number), 1, "there", "2026-01-01T00:00:00+00:00", after)
        record.write(tmp_path / "runs" / "transfer" / str(number))
    assert followers(tmp_path, pending) == ["13"]
    job = Job("pretrain", fail, config, pending, tmp_path, 1, max_requeues=2)
    with pytest.raises(UserError, match="the loss was not finite"):
        job()
    assert "Slurm cancels what waited for this job: 13" in capsys.readouterr().out
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    with pytest.raises(UserError, match="--max-requeues 2 is the limit"):
        job()
    assert "Slurm cancels what waited for this job: 13" in capsys.readouterr().out
