"""Jobs that start from a pre-training run that is not finished, before and after it is."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import launch.classify
import launch.pretrain
import launch.transfer
from common import runs
from common.errors import UserError
from common.files import sha256, write_json
from detection.config import CONFIGS
from launch.awaited import find_pretraining, start_awaited
from launch.classify import WeightOptions
from launch.cluster import slurm
from launch.cluster.jobs import STARTED, Job, followers
from launch.cluster.records import Record
from launch.cluster.slurm import State
from launch.options import Resources, RunOptions
from pretrain.config import PretrainConfig
from pretrain.evaluation.config import LinearConfig
from tests.launch.cluster.fake_slurm import FakeSlurm
from tests.launch.test_weights import checkpoint

DEBUG = Resources(cluster="debug")


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
    return launch.transfer.Command(
        config=(CONFIGS / "demo_R_18_FPN.yaml",),
        weights=(str(weights),),
        run=RunOptions(output_dir=folder),
        resources=DEBUG,
        **changes,
    )


def test_a_transfer_waits_in_a_folder_of_its_own_and_becomes_the_run_that_it_would_have_been(
    tmp_path: Path, pending: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (member,) = launch.transfer.plan(sweep(tmp_path, pending, lr=(0.01,), seed=3), ())
    assert member.source.awaited is not None and member.source.awaited.job_id == "12"
    assert (member.config.weights.method, member.config.weights.norm) == ("LEWEL_B", "eman")
    job = member.job(RunOptions(output_dir=tmp_path))
    assert job.folder.parent == tmp_path / "runs" / "awaiting"

    path = checkpoint(pending / "checkpoint.pth.tar")
    runs.finish(pending, {})
    Record("slurm", "13_1", 1, "there", "2026-01-01T00:00:00+00:00", "12").write(job.folder)
    ran: list[Job] = []
    monkeypatch.setattr(Job, "__call__", lambda job: ran.append(job))
    start_awaited(job.config, job.folder)
    (after,) = launch.transfer.plan(sweep(tmp_path, pending, lr=(0.01,), seed=3), ())
    assert after.source.awaited is None and after.config.weights.sha256 == sha256(path)
    expected = after.job(RunOptions(output_dir=tmp_path))
    assert [dataclasses.replace(job, max_requeues=20) for job in ran] == [expected] and ran[
        0
    ].config.weights.epochs == 200
    assert Path(expected.config.weights.path).is_file()  # converted
    record = Record.read(expected.folder)
    assert record is not None and record.job_id == "13_1"
    started = json.loads((job.folder / STARTED).read_text())
    assert started == {"run": str(expected.folder), "job": "13_1"}


def test_a_linear_evaluation_waits_too(
    tmp_path: Path, pending: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = LinearConfig(data="demo", batch_size=8, epochs=1)
    options = protocol, WeightOptions(str(pending)), RunOptions(output_dir=tmp_path), DEBUG
    planned = launch.classify.plan(*options)
    assert planned.after == "12" and planned.job.folder.parent.name == "awaiting"
    checkpoint(pending / "checkpoint.pth.tar")
    runs.finish(pending, {})
    ran: list[Job] = []
    monkeypatch.setattr(Job, "__call__", lambda job: ran.append(job))
    start_awaited(planned.job.config, planned.job.folder)
    assert [dataclasses.replace(job, max_requeues=20) for job in ran] == [
        launch.classify.plan(*options).job
    ]
    assert ran[0].folder.parent == tmp_path / "runs" / "linear"


def test_no_two_runs_wait_under_one_name(
    tmp_path: Path, pending: Path, fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunOptions("x", tmp_path)
    cpus = Resources(gpus_per_node=0)
    command = dataclasses.replace(sweep(tmp_path, pending), run=run, resources=cpus)
    one = launch.transfer.start(command)
    protocol = LinearConfig(data="demo", batch_size=8, epochs=1)
    other = launch.classify.start(protocol, WeightOptions(str(pending)), run, cpus)
    folders = [*one, other]
    assert [folder.name for folder in folders] == ["transfer-x", "linear-x"]
    assert [job.job_id for job in map(Record.read, folders) if job] == ["101", "102"]
    fake_slurm.say("queue", "101|PENDING|Dependency\n102|PENDING|Dependency\n")
    capsys.readouterr()
    with pytest.raises(
        UserError, match=r"transfer-x holds another run: lr \(0\.02 there, 0\.5 now"
    ):
        launch.transfer.start(dataclasses.replace(command, lr=(0.5,)))
    with pytest.raises(UserError, match=r"linear-x holds another run: epochs \(1 there, 2 now"):
        longer = dataclasses.replace(protocol, epochs=2)
        launch.classify.start(longer, WeightOptions(str(pending)), run, cpus)
    assert launch.transfer.start(command) == one  # nothing new: the same command
    assert "already submitted: job 101" in capsys.readouterr().out


def test_an_edited_config_is_not_taken_for_the_one_that_waits(
    tmp_path: Path, pending: Path, fake_slurm: FakeSlurm
) -> None:
    config = tmp_path / "mine.yaml"
    command = dataclasses.replace(
        sweep(tmp_path, pending), config=(config,), resources=Resources(gpus_per_node=0)
    )
    for iterations in (9, 9, 10):
        config.write_text(
            f"_BASE_: {CONFIGS}/demo_R_18_FPN.yaml\nSOLVER: {{MAX_ITER: {iterations}}}\n"
        )
        if iterations == 9:
            (folder,) = launch.transfer.start(command)
            continue
        with pytest.raises(
            UserError, match=r"/transfer-mine-\S* holds another run: config_hash \("
        ):
            launch.transfer.start(command)
    record = Record.read(folder)
    assert record is not None and record.job_id == "101" and not fake_slurm.read("102.sh")


@pytest.mark.parametrize("finished", [True, False])
def test_a_name_that_has_become_another_runs_is_refused_once_the_weights_are_there(
    tmp_path: Path, pending: Path, finished: bool
) -> None:
    command = dataclasses.replace(sweep(tmp_path, pending), run=RunOptions("x", tmp_path))
    (member,) = launch.transfer.plan(command, ())
    job = member.job(command.run)
    record = Record("slurm", "13", 1, "there", "2026-01-01T00:00:00+00:00", "12")
    record.write(job.folder)
    other = tmp_path / "runs" / "transfer" / "x"
    runs.claim(other, member.config.identity() | {"lr": 0.5})
    if finished:
        runs.finish(other, {"box_AP": 1})
    checkpoint(pending / "checkpoint.pth.tar")
    runs.finish(pending, {})
    before = sorted(other.iterdir())
    with pytest.raises(UserError, match=r"runs/transfer/x holds another run: lr \(0.5 there"):
        job()
    assert sorted(other.iterdir()) == before and not (job.folder / STARTED).exists()


def test_a_name_that_another_run_has_is_refused_before_the_wait(
    tmp_path: Path, pending: Path
) -> None:
    taken = tmp_path / "runs" / "transfer" / "x"
    taken.mkdir(parents=True)
    for fresh in (False, True):
        run = RunOptions("x", tmp_path, fresh)
        command = dataclasses.replace(sweep(tmp_path, pending), run=run)
        with pytest.raises(UserError, match=rf"^{taken} is the folder of another run, for these"):
            launch.transfer.start(command)
    assert not (tmp_path / "runs" / "awaiting").exists()


def test_elsewhere_than_on_slurm_nobody_waits(tmp_path: Path, pending: Path) -> None:
    with pytest.raises(UserError, match="Slurm job 12 will leave, and --cluster debug does not"):
        launch.transfer.start(sweep(tmp_path, pending))
    assert not (tmp_path / "runs" / "awaiting").exists()


def test_that_is_said_before_other_runs_of_the_command_start(
    tmp_path: Path, pending: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch.transfer, "launch", None)  # calling it fails
    both = dataclasses.replace(sweep(tmp_path, pending), weights=("none", str(pending)))
    with pytest.raises(UserError, match="Slurm job 12 will leave, and --cluster debug does not"):
        launch.transfer.start(both)


def test_all_are_submitted_before_any_is_followed(
    tmp_path: Path, pending: Path, followed: list[tuple[str, str]]
) -> None:
    waiting = Resources("slurm", gpus_per_node=0, wait=True)
    both = dataclasses.replace(
        sweep(tmp_path, pending), weights=("none", str(pending)), resources=waiting
    )
    folders = launch.transfer.start(both)
    assert followed == [("101", "102"), ("102", "102")]
    assert [folder.parent.name for folder in folders] == ["transfer", "awaiting"]


def test_a_folder_that_no_job_will_finish_is_refused(
    tmp_path: Path, pending: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_pretraining("checkpoint.pth.tar") is None
    with pytest.raises(UserError, match="is a folder, but no pre-training run"):
        find_pretraining(str(tmp_path))
    monkeypatch.setattr(slurm, "states", lambda ids: {i: State("FAILED") for i in ids})
    with pytest.raises(UserError, match="is not finished, and no job on Slurm has it"):
        find_pretraining(str(pending))
    (pending / "job.json").unlink()
    with pytest.raises(UserError, match="is not finished, and no job on Slurm has it"):
        find_pretraining(str(pending))
    runs.finish(pending, {})
    found = find_pretraining(str(pending))
    assert found is not None and found.job_id == ""


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
        record.write(tmp_path / "runs" / "awaiting" / str(number))
    assert followers(tmp_path, pending) == ["13"]
    with pytest.raises(UserError, match="the loss was not finite"):
        Job(fail, config, pending, tmp_path, 1)()
    assert "Slurm cancels what waited for this job: 13" in capsys.readouterr().out
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    with pytest.raises(UserError, match="--max-requeues 2 is the limit"):
        Job(fail, config, pending, tmp_path, 1, max_requeues=2)()
    assert "Slurm cancels what waited for this job: 13" in capsys.readouterr().out
