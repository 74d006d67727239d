"""What is told to Slurm, what a submission leaves behind, and what a run's live job means."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from submitit.core.utils import DelayedSubmission

from common import locks, runs
from common.errors import UserError
from launch.cluster import follow as following
from launch.cluster import submission
from launch.cluster.follow import follow_all
from launch.cluster.jobs import Job
from launch.cluster.records import Record
from launch.cluster.resources import Resources
from launch.cluster.submit import launch
from tests.launch.cluster.fake_slurm import FakeSlurm

CPUS = Resources(gpus_per_node=0, tasks_per_node=2, cpus_per_gpu=3)


@dataclass(frozen=True)
class Config:
    """What a run is told."""

    seed: int = 0

    def identity(self) -> dict[str, Any]:
        return {"seed": self.seed}


def job(output_dir: Path, seed: int = 0) -> Job:
    return Job(print, Config(seed), output_dir / "runs" / "semi" / f"s{seed}", output_dir, 1)


def start(*arguments: Any, **options: Any) -> dict[Path, str]:
    """The job of each run folder that Slurm has been given, now or before."""
    return {job.folder: handle.job_id for job, handle in launch(*arguments, **options)}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


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
    assert "dependency" not in told and "array" not in told
    assert "export NCCL_SOCKET_IFNAME='ib0 ib1'" in script
    (srun,) = (line for line in script if line.startswith("srun"))
    assert "--kill-on-bad-exit=1" in srun and "--cpus-per-task=6" in srun
    (code,) = (tmp_path / "runs" / "code").iterdir()
    assert f"-I -S {code}/launch/cluster/hold_signals.py" in srun and "-P -u -m submitit" in srun
    assert fake_slurm.environment()["PYTHONPATH"].split(":")[0] == str(code)


def test_a_job_on_cpus_asks_for_no_gpus(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    start([job(tmp_path)], CPUS)
    told = parameters(fake_slurm.script())
    assert told["ntasks-per-node"] == "2" and told["cpus-per-task"] == "3"
    assert not any("gpu" in name or "gres" in name for name in told) and "mem" not in told


def test_the_run_folder_says_whose_it_is(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    one = job(tmp_path)
    start([one], CPUS, after="77")
    record = Record.read(one.folder)
    assert record is not None
    assert (record.cluster, record.job_id, record.tasks, record.after) == ("slurm", "101", 2, "77")
    assert Path(record.submitit) == one.folder / "submitit" / "101"
    assert (Path(record.submitit) / "101_submitted.pkl").exists()


def test_a_job_may_depend_on_another(
    tmp_path: Path, fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    start([job(tmp_path)], CPUS, after="77")
    told = parameters(fake_slurm.script())
    assert told["dependency"] == "afterok:77" and told["kill-on-invalid-dep"] == "yes"
    assert "slurm job 101 after job 77, run folder: " in capsys.readouterr().out


def test_the_number_of_requeues_reaches_the_job(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    one = job(tmp_path)
    start([one], Resources(gpus_per_node=0, max_requeues=3))
    sent = DelayedSubmission.load(one.folder / "submitit" / "101" / "101_submitted.pkl")
    assert sent.function == replace(one, max_requeues=3) and sent._timeout_countdown == 3


def test_several_jobs_are_one_array(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    jobs = [job(tmp_path, seed) for seed in range(3)]
    some = Resources(gpus_per_node=0, array_parallelism=2)
    assert start(jobs, some) == {job.folder: f"101_{i}" for i, job in enumerate(jobs)}
    assert parameters(fake_slurm.script())["array"] == "0-2%2" and not fake_slurm.read("102.sh")
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


def test_a_run_that_slurm_has_is_refused(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    one = job(tmp_path)
    start([one], CPUS)
    fake_slurm.say("queue", "101|PENDING|Priority\n")
    before = files(tmp_path)
    for fresh, resources in ((False, CPUS), (True, CPUS), (False, Resources("debug"))):
        with pytest.raises(UserError) as error:
            start([one], resources, fresh)
        follow = "add --wait to follow it, " if resources == CPUS and not fresh else ""
        assert str(error.value) == (
            f"{one.folder} is in use by Slurm job 101 (PENDING); {follow}scancel 101 to end it, or "
            "choose another --name."
        )
    assert files(tmp_path) == before and not fake_slurm.read("102.sh")


def test_a_run_that_slurm_has_may_be_left_alone(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    one = job(tmp_path)
    start([one], CPUS)
    fake_slurm.say("queue", "101|RUNNING|None\n")
    assert start([one], CPUS, skip_live=True) == {one.folder: "101"}
    assert not fake_slurm.read("102.sh")


def test_a_run_whose_job_ended_goes_on_in_another(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    one = job(tmp_path)
    start([one], CPUS)
    fake_slurm.say("queue", "101|FAILED|NonZeroExitCode\n")
    assert start([one], CPUS) == {one.folder: "102"}
    record = Record.read(one.folder)
    assert record is not None and record.job_id == "102"


def test_a_run_that_a_job_outside_slurm_has_is_refused(
    tmp_path: Path, fake_slurm: FakeSlurm
) -> None:
    one = job(tmp_path)
    one.folder.mkdir(parents=True)
    lock = locks.take(one.folder / runs.LOCK)
    assert lock is not None
    for _ in range(2):  # that no job on Slurm ever had, and that one had which has ended
        before = files(one.folder)
        with pytest.raises(UserError) as error:
            start([one], CPUS)
        assert str(error.value) == (
            f"{one.folder} is in use by a job that is running; wait for it, end it, or choose "
            "another --name."
        )
        assert files(one.folder) == before and not fake_slurm.read("101.sh")
        Record("slurm", "100", 2, str(one.folder / "submitit" / "100"), "").write(one.folder)
        fake_slurm.say("queue", "100|FAILED|NonZeroExitCode\n")
    fake_slurm.say("queue", "100|RUNNING|None\n")  # then it is this one that holds it
    assert start([one], CPUS, skip_live=True) == {one.folder: "100"}
    fake_slurm.say("queue")  # forgotten, where there are no accounts
    assert start([one], CPUS) == {one.folder: "101"}
    lock.release()


@pytest.mark.parametrize("cluster", ["slurm", "local"])
def test_a_path_that_slurm_would_read_otherwise_is_refused(
    cluster: Any, tmp_path: Path, fake_slurm: FakeSlurm
) -> None:
    with pytest.raises(UserError, match=r"/100%a/runs/semi/s0 has a % in its path, .*--output-dir"):
        start([job(tmp_path / "100%a")], replace(CPUS, cluster=cluster))
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_typed_again_submits_what_is_neither_finished_nor_alive(
    tmp_path: Path, fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [job(tmp_path, seed) for seed in range(4)]
    start(jobs, CPUS)
    runs.finish(jobs[0].folder, {})
    fake_slurm.say("queue", "101_1|RUNNING|None\n101_2|FAILED|None\n101_3|PENDING|Resources\n")
    capsys.readouterr()
    assert start(jobs, CPUS) == {
        jobs[1].folder: "101_1", jobs[2].folder: "102", jobs[3].folder: "101_3"
    }  # fmt: skip
    assert capsys.readouterr().out.splitlines() == [
        f"already finished: {jobs[0].folder} (--fresh starts it again)",
        f"already submitted: job 101_1 (RUNNING), run folder: {jobs[1].folder}",
        f"already submitted: job 101_3 (PENDING), run folder: {jobs[3].folder}",
        f"slurm job 102, run folder: {jobs[2].folder}",
    ]
    fake_slurm.say("queue", "101_1|RUNNING|None\n102|PENDING|None\n101_3|PENDING|Resources\n")
    assert len(start(jobs, CPUS)) == 3 and not fake_slurm.read("103.sh")


def test_waiting_follows_what_slurm_has_and_what_it_gets(
    tmp_path: Path, fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [job(tmp_path, seed) for seed in range(3)]
    start(jobs[:1], CPUS)
    fake_slurm.say("queue", "101|RUNNING|None\n")
    followed = []

    def follow(handle: Any, one: Job, cancel: bool) -> bool:
        followed.append((handle.job_id, handle.num_tasks, one.config.seed))
        assert handle.paths.submitted_pickle.exists() and not cancel
        if one.config.seed == failing:
            raise UserError("it failed.")
        return one.config.seed != stopped

    monkeypatch.setattr(following, "follow", follow)
    waiting = Resources(gpus_per_node=0, tasks_per_node=2, wait=True)
    failing = stopped = -1
    follow_all(launch(jobs[:1], waiting))
    assert followed == [("101", 2, 0)]
    followed.clear()
    failing = 0  # of which the others hear nothing
    with pytest.raises(UserError, match=r"^it failed\.$"):
        follow_all(launch(jobs, waiting))
    assert followed == [("101", 2, 0), ("102_0", 2, 1), ("102_1", 2, 2)]
    followed.clear()
    fake_slurm.say("queue", "101|RUNNING|None\n102_0|RUNNING|None\n102_1|RUNNING|None\n")
    failing, stopped = -1, 1  # Ctrl-C
    with pytest.raises(SystemExit):
        follow_all(launch(jobs, waiting))
    assert [seed for _, _, seed in followed] == [0, 1]


def test_gpus_of_a_type_take_the_place_of_others(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    typed = Resources(gpus_per_node=2, slurm=("gres=gpu:a100:2",), cluster="slurm")
    start([job(tmp_path)], typed)
    script = fake_slurm.script()
    assert "#SBATCH --gres=gpu:a100:2" in script
    assert not any("gpus-per-node" in line for line in script)
