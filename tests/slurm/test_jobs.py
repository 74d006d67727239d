"""Jobs on a real Slurm: two nodes, a pipeline, what is refused, and a cluster without accounts."""

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.errors import UserError
from common.provenance import COMMIT
from launch import results
from tests.slurm.jobs import end, finished, output, pretrain
from tests.slurm.sandbox.cluster import Sandbox, started
from tests.slurm.sandbox.layout import wait_for
from tests.slurm.trial.others import detector
from tests.slurm.trial.runs import following, record

TWO_BY_TWO = "--nodes 2 --tasks-per-node 2 --epochs 2 --workers 0 --name run"


@dataclass(frozen=True)
class Pipeline:
    """A pre-training on two nodes with a transfer after it, when all is over."""

    output_dir: Path
    folder: Path
    environment: dict[str, str]
    refusal: str
    parent: str
    child: str


@pytest.fixture(scope="module")
def pipeline(cluster: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    output_dir = tmp_path_factory.mktemp("pipeline")
    words = f"{TWO_BY_TWO} --then {detector(output_dir, 'mine', 4)}"
    folder = pretrain(output_dir, words)
    mark = folder / "incarnations" / "0001.json"
    wait_for(mark.exists, "start of the pre-training", 60)
    with pytest.raises(UserError) as refused:
        pretrain(output_dir, TWO_BY_TWO)
    environment = Path(f"/proc/{json.loads(mark.read_text())['pid']}/environ").read_bytes()
    parent = end(cluster, folder)
    child = cluster.wait_for_end(following(folder)["job_id"])
    pairs = (word.decode().partition("=") for word in environment.split(b"\0"))
    return Pipeline(
        output_dir, folder, {k: v for k, _, v in pairs}, str(refused.value), parent, child
    )


def test_a_pretraining_on_two_nodes_and_the_transfer_after_it_make_a_row(pipeline: Pipeline):
    metrics = finished(pipeline.folder)
    assert (pipeline.parent, pipeline.child) == ("COMPLETED", "COMPLETED")
    assert metrics["device"] == "4 x cpu" and metrics["restarts"] == 0
    with (pipeline.output_dir / "results" / "transfer.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["config"], row["method"], row["device"]) == ("mine", "LEWEL_B", "2 x cpu")
    assert row["git_commit"] == metrics["git_commit"]


def test_all_four_processes_of_two_nodes_took_part(pipeline: Pipeline):
    logs = [path.name for path in pipeline.folder.glob("log*.txt")]
    assert len(logs) == 4
    assert {pipeline.environment[name] for name in ("SLURM_JOB_NUM_NODES", "SLURM_NTASKS")} == {
        "2", "4",
    }  # fmt: skip


def test_a_job_runs_the_snapshot_of_the_code_and_names_its_commit(pipeline: Pipeline):
    (code,) = (pipeline.output_dir / "runs" / "code").iterdir()
    assert pipeline.environment["PYTHONPATH"].split(os.pathsep)[0] == str(code)
    assert finished(pipeline.folder)["git_commit"] == (code / COMMIT).read_text().strip()


def test_a_run_that_a_live_job_has_is_refused_without_wait(pipeline: Pipeline):
    job = record(pipeline.folder)["job_id"]
    assert f"in use by Slurm job {job}" in pipeline.refusal
    assert "--wait" in pipeline.refusal


def test_a_finished_run_is_recognised_and_submits_nothing(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
):
    job = record(pipeline.folder)["job_id"]
    assert pretrain(pipeline.output_dir, TWO_BY_TWO) == pipeline.folder
    assert "already finished" in capsys.readouterr().out
    assert record(pipeline.folder)["job_id"] == job


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--partition nowhere", "invalid partition"),
        ("--gpus-per-node 3", "node configuration is not available"),
    ],
)
def test_what_slurm_does_not_have_is_refused_in_a_sentence_and_leaves_nothing(
    slurm: Sandbox, tmp_path: Path, words: str, said: str
):
    with pytest.raises(UserError, match=f"(?i)^Slurm refused the job: [^\n]*{said}[^\n]*$"):
        pretrain(tmp_path, f"--name run {words} --batch-size 12")
    assert list(tmp_path.iterdir()) == []
    assert slurm.run("squeue", "-h") == ""


def test_a_pretraining_that_fails_takes_the_transfer_with_it(
    slurm: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = pretrain(
        tmp_path,
        f"--lr 1e30 --epochs 1 --workers 0 --name run --then {detector(tmp_path, 'mine', 4)}",
    )
    parent, child = record(folder)["job_id"], following(folder)["job_id"]
    assert end(slurm, folder) == "FAILED"
    assert slurm.wait_for_end(child) == "CANCELLED"
    said = output(folder)
    assert "not finite" in said and f"cancels what waited for this job: {child}" in said
    capsys.readouterr()
    results.show(tmp_path)
    shown = capsys.readouterr().out
    assert f"cancelled (job {parent}, which it waits for, did not succeed)" in shown
    assert child in shown and "failed" in shown


def test_without_accounts_wait_ends_with_the_status_of_the_job(
    installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with started(nodes=1, gpus_per_node=0, accounting=False) as other:
        monkeypatch.setenv("SLURM_CONF", str(other.conf))
        assert other.call("sacct").returncode != 0
        good = pretrain(tmp_path, "--epochs 1 --workers 0 --name good --wait")
        assert finished(good)["restarts"] == 0
        with pytest.raises(UserError, match="not finite"):
            pretrain(tmp_path, "--lr 1e30 --epochs 1 --workers 0 --name bad --wait")
        folders = (tmp_path / "runs" / "pretrain" / name for name in ("good", "bad"))
        assert [end(other, folder) for folder in folders] == ["COMPLETED", "FAILED"]
