"""What is told to Slurm, and what a submission leaves behind."""

from dataclasses import replace
from pathlib import Path

import pytest
from submitit.core.utils import DelayedSubmission

from common import runs
from common.errors import UserError
from launch.cluster import site, submission
from launch.cluster.records import Record
from launch.cluster.resources import Resources
from tests.launch.cluster.fake_slurm import FakeSlurm
from tests.launch.cluster.submissions import CPUS, files, job, start


def parameters(script: list[str]) -> dict[str, str]:
    words = (line.removeprefix("#SBATCH --") for line in script if line.startswith("#SBATCH --"))
    return dict(word.partition("=")[::2] for word in words)


def test_a_job_is_submitted_with_all_that_was_asked_for(
    tmp_path: Path, fake_slurm: FakeSlurm, no_site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    no_site.parent.mkdir(parents=True)
    no_site.write_text('[env]\nNCCL_SOCKET_IFNAME = "ib0 ib1"\n')
    asked = Resources(
        nodes=2, gpus_per_node=4, cpus_per_gpu=6, mem_gb=1.5, partition="gpu", account="us",
        qos="high", constraint="a|b", exclude="n[1-2]", comment="it's", timeout_min=90,
        slurm=("reservation=x", "exclusive"), signal_delay_s=60,
    )  # fmt: skip
    one = job(tmp_path)
    assert start([one], asked) == {one.folder: "101"}
    assert f"slurm job 101, run folder: {one.folder}\n" in capsys.readouterr().out
    script = fake_slurm.script()
    told = parameters(script)
    assert told.items() >= {
        "nodes": "2", "gpus-per-node": "4", "ntasks-per-node": "4", "cpus-per-task": "6",
        "mem": "1536MB", "partition": "gpu", "account": "us", "qos": "high",
        "constraint": "'a|b'", "exclude": "'n[1-2]'", "time": "90", "reservation": "x",
        "exclusive": "", "signal": "USR2@60", "requeue": "", "job-name": "s0",
    }.items()  # fmt: skip
    assert not told.keys() & {"dependency", "array", "wckey"}
    assert "export NCCL_SOCKET_IFNAME='ib0 ib1'" in script
    (srun,) = (line for line in script if line.startswith("srun"))
    assert "--kill-on-bad-exit=1" in srun and "--cpus-per-task=6" in srun
    (code,) = (tmp_path / "runs" / "code").iterdir()
    assert f"-I -S {code}/launch/cluster/hold_signals.py" in srun and "-P -u -m submitit" in srun
    assert fake_slurm.environment()["PYTHONPATH"].split(":")[0] == str(code)


def test_a_wckey_is_the_users_or_the_sites(
    tmp_path: Path, fake_slurm: FakeSlurm, no_site: Path
) -> None:
    start([job(tmp_path)], replace(CPUS, slurm=("wckey=vision",)))
    assert parameters(fake_slurm.script())["wckey"] == "vision"
    no_site.parent.mkdir(parents=True)
    no_site.write_text('slurm = { wckey = "sites" }\n')
    start([job(tmp_path, 1)], replace(CPUS, slurm=site.resources().slurm))
    assert parameters(fake_slurm.script(102))["wckey"] == "sites"


def test_a_job_on_cpus_asks_for_no_gpus(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    start([job(tmp_path)], CPUS)
    told = parameters(fake_slurm.script())
    assert told["ntasks-per-node"] == "2" and told["cpus-per-task"] == "3"
    assert not any("gpu" in name or "gres" in name for name in told) and "mem" not in told


def test_the_run_folder_says_whose_it_is(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    one = job(tmp_path)
    start([one], CPUS)
    record = Record.read(one.folder)
    assert record is not None
    assert (record.cluster, record.job_id, record.tasks, record.after) == ("slurm", "101", 2, "")
    assert Path(record.submitit) == one.folder / "submitit" / "101"
    assert (Path(record.submitit) / "101_submitted.pkl").exists()


def test_the_number_of_requeues_reaches_the_job(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    one = job(tmp_path)
    start([one], Resources(gpus_per_node=0, max_requeues=3))
    sent = DelayedSubmission.load(one.folder / "submitit" / "101" / "101_submitted.pkl")
    assert sent.function == replace(one, max_requeues=3) and sent._timeout_countdown == 3


def test_several_jobs_are_one_array(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    jobs = [job(tmp_path, seed) for seed in range(3)]
    some = Resources(gpus_per_node=0, array_parallelism=2)
    assert start(jobs, some) == {job.folder: f"101_{i}" for i, job in enumerate(jobs)}
    told = parameters(fake_slurm.script())
    assert told["array"] == "0-2%2" and "wckey" not in told and not fake_slurm.read("102.sh")
    for number, one in enumerate(jobs):
        record = Record.read(one.folder)
        assert record is not None and record.job_id == f"101_{number}"
        assert (Path(record.submitit) / f"101_{number}_submitted.pkl").exists()


@pytest.mark.parametrize("count", [1, 3])
def test_a_refused_job_is_a_sentence_and_leaves_nothing(
    count: int, tmp_path: Path, fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    output_dir = tmp_path / "deep" / "out"
    fake_slurm.say(
        "refusal", "sbatch: error: bad partition\nsbatch: error: Batch job failed: bad\n"
    )
    with pytest.raises(UserError) as error:
        start([job(output_dir, seed) for seed in range(count)], CPUS)
    assert str(error.value) == (
        "Slurm refused the job: bad partition; Batch job failed: bad; "
        "sinfo -o '%P %l %D %c %m %G' shows what there is."
    )
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().err == ""


@pytest.mark.parametrize("fresh", [False, True])
def test_an_earlier_run_is_as_it_was_after_a_refusal(
    fresh: bool, tmp_path: Path, fake_slurm: FakeSlurm
) -> None:
    start([job(tmp_path)], CPUS)
    runs.claim(job(tmp_path).folder, {"seed": 0})
    (job(tmp_path).folder / ".lock").touch()
    before = files(tmp_path)
    fake_slurm.say("refusal", "sbatch: error: no\n")
    with pytest.raises(UserError, match="Slurm refused the job: no; sinfo"):
        start([job(tmp_path)], CPUS, fresh=fresh)
    assert files(tmp_path) == before


def test_without_srun_nothing_is_written(
    tmp_path: Path, fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fake_slurm.folder / "srun").unlink()
    monkeypatch.setenv("PATH", str(fake_slurm.folder))
    with pytest.raises(UserError, match="srun is not"):
        start([job(tmp_path)], CPUS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "seen", "message"),
    [
        (
            OSError(28, "No space left on device"),
            UserError,
            "cannot write the run folder .*No space left",
        ),
        (SystemExit(1), SystemExit, "1"),
    ],
)
def test_a_job_that_cannot_be_recorded_is_ended(
    error: BaseException,
    seen: type[BaseException],
    message: str,
    tmp_path: Path,
    fake_slurm: FakeSlurm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(submission.Record, "write", fail)
    with pytest.raises(seen, match=message):
        start([job(tmp_path)], CPUS)
    assert fake_slurm.read("cancelled") == "101\n" and list(tmp_path.iterdir()) == []


def test_gpus_of_a_type_take_the_place_of_others(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    typed = Resources(gpus_per_node=2, slurm=("gres=gpu:a100:2",), cluster="slurm")
    start([job(tmp_path)], typed)
    script = fake_slurm.script()
    assert "#SBATCH --gres=gpu:a100:2" in script
    assert not any("gpus-per-node" in line for line in script)
