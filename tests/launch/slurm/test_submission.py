"""Submissions: what Slurm is told, and what is left behind."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from submitit.core.utils import DelayedSubmission

import demo
from common import locks, runs
from common.errors import UserError
from launch.slurm import executor as submitting
from launch.slurm import site, states
from launch.slurm import submission as module
from launch.slurm.resources import Resources
from launch.slurm.states import Record
from tests.launch.slurm.fake_slurm import FakeSlurm
from tests.launch.slurm.submissions import CPUS, files, job, record, start


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
    assert f"-I -S {code}/launch/slurm/hold_signals.py" in srun and "-P -u -m submitit" in srun
    assert fake_slurm.environment()["PYTHONPATH"].split(":")[0] == str(code)


def test_a_wckey_is_the_users_or_the_sites(
    tmp_path: Path, fake_slurm: FakeSlurm, no_site: Path
) -> None:
    no_site.parent.mkdir(parents=True)
    no_site.write_text('slurm = { wckey = "sites" }\n')
    for number, words in enumerate((("wckey=vision",), site.resources().slurm)):
        start([job(tmp_path, number)], replace(CPUS, slurm=words))
        told = parameters(fake_slurm.script(101 + number))
        assert told["wckey"] == ("vision", "sites")[number]


def test_gpus_are_those_of_the_type_or_none(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    start([job(tmp_path)], CPUS)
    told = parameters(fake_slurm.script())
    assert told["ntasks-per-node"] == "2" and told["cpus-per-task"] == "3"
    assert not any("gpu" in name or "gres" in name for name in told) and "mem" not in told
    start([job(tmp_path, 1)], Resources("slurm", gpus_per_node=2, slurm=("gres=gpu:a100:2",)))
    told = parameters(fake_slurm.script(102))
    assert told["gres"] == "gpu:a100:2" and "gpus-per-node" not in told


def test_the_run_folder_says_whose_it_is(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    one = job(tmp_path)
    start([one], replace(CPUS, max_requeues=3))
    given = record(one.folder)
    assert (given.cluster, given.job_id, given.tasks, given.after) == ("slurm", "101", 2, "")
    assert Path(given.submitit) == one.folder / "submitit" / "101"
    sent = DelayedSubmission.load(Path(given.submitit) / "101_submitted.pkl")
    assert sent.function == replace(one, max_requeues=3) and sent._timeout_countdown == 3


def test_a_job_waits_for_the_one_of_the_run_that_it_starts_from(
    tmp_path: Path, fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = tmp_path / "runs" / "pretrain" / "x"
    jobs = [job(tmp_path, 0), *(job(tmp_path, seed, after=parent) for seed in (1, 2))]
    with pytest.raises(UserError, match="x: this pre-training is not finished, and no job on Sl"):
        start(jobs, CPUS)
    Record("slurm", "77", 1, "there", "").write(parent)
    fake_slurm.say("queue", "77|PENDING|Priority\n")
    with pytest.raises(UserError, match="Slurm job 77 will leave, and --cluster debug does not"):
        start(jobs, Resources("debug"))
    assert not jobs[0].folder.exists()
    ids = ["101", "102_0", "102_1"]
    assert start(jobs, CPUS) == dict(zip((one.folder for one in jobs), ids, strict=True))
    assert "dependency" not in parameters(fake_slurm.script())
    told = parameters(fake_slurm.script(102))
    assert told["dependency"] == "afterok:77" and told["kill-on-invalid-dep"] == "yes"
    assert "slurm job 102_1 after job 77, run folder: " in capsys.readouterr().out
    assert record(jobs[2].folder).after == "77"
    fake_slurm.say("queue", "77|RUNNING|None\n102_0|PENDING|Dependency\n")
    assert start(jobs[1:2], CPUS) == {jobs[1].folder: "102_0"}  # and is no mistake
    runs.finish(jobs[2].folder, {})  # before the pre-training was started anew
    with pytest.raises(UserError, match=r"s2 is finished, from weights that .*x had before it was"):
        start(jobs[2:], CPUS)


def test_several_jobs_are_one_array(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    jobs = [job(tmp_path, seed) for seed in range(3)]
    some = Resources(gpus_per_node=0, array_parallelism=2)
    assert start(jobs, some) == {job.folder: f"101_{i}" for i, job in enumerate(jobs)}
    told = parameters(fake_slurm.script())
    assert told["array"] == "0-2%2" and "wckey" not in told and not fake_slurm.read("102.sh")
    for number, one in enumerate(jobs):
        assert record(one.folder).job_id == f"101_{number}"
        assert (Path(record(one.folder).submitit) / f"101_{number}_submitted.pkl").exists()


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


def test_without_srun_nothing_is_written(
    tmp_path: Path, fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fake_slurm.folder / "srun").unlink()
    monkeypatch.setenv("PATH", str(fake_slurm.folder))
    with pytest.raises(UserError, match="srun is not"):
        start([job(tmp_path)], CPUS)
    assert list(tmp_path.iterdir()) == []


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


def test_a_job_that_cannot_be_recorded_is_ended(
    tmp_path: Path, fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(submitting.Record, "write", fail)
    with pytest.raises(UserError, match=r"cannot write the run folder .*No space left"):
        start([job(tmp_path)], CPUS)
    assert fake_slurm.read("cancelled") == "101\n" and list(tmp_path.iterdir()) == []


def test_a_command_that_does_not_end_is_a_sentence(
    tmp_path: Path, fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_S", 0.1)
    (tmp_path / "runs").mkdir()
    lock = locks.take(tmp_path / "runs" / module.LOCK)
    assert lock is not None
    with pytest.raises(UserError, match="another command is submitting jobs to "):
        start([job(tmp_path)], CPUS)
    lock.release()
    assert not fake_slurm.read("101.sh")


def test_ctrl_c_takes_effect_once_the_jobs_are_recorded(
    tmp_path: Path, fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_slurm.say("ctrl-c")
    jobs = [job(tmp_path, seed) for seed in range(2)]
    with pytest.raises(KeyboardInterrupt):
        start(jobs, CPUS)
    for one, job_id in zip(jobs, ("101_0", "101_1"), strict=True):
        assert record(one.folder).job_id == job_id
        assert (Path(record(one.folder).submitit) / f"{job_id}_submitted.pkl").exists()
    assert capsys.readouterr().out.count("slurm job 101") == 2
    assert not fake_slurm.read("cancelled")


def test_ctrl_c_in_a_fresh_start_leaves_the_new_run_alone(
    tmp_path: Path, fake_slurm: FakeSlurm
) -> None:
    start([job(tmp_path)], CPUS)
    fake_slurm.say("ctrl-c")
    with pytest.raises(KeyboardInterrupt):
        start([job(tmp_path)], CPUS, fresh=True)
    assert record(job(tmp_path).folder).job_id == "102"
    assert [path.name for path in job(tmp_path).folder.parent.iterdir()] == ["s0"]


def test_a_job_is_submitted_without_our_rank_but_to_our_cluster(
    tmp_path: Path, fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {"RANK": "3", "SLURM_JOB_ID": "7", "SBATCH_QOS": "x", "SUBMITIT_EXECUTOR": "slurm"}
    kept = {"SLURM_CONF": "/etc/slurm/here.conf", "SUBMITIT_PREEMPT_SIGNAL": "USR1"}
    for name, value in (before | kept | {"PYTHONPATH": "/mine"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(demo.datasets.ENVIRONMENT)
    start([job(tmp_path)], replace(CPUS, cluster="slurm"))
    told = fake_slurm.environment()
    assert told.items() >= kept.items() and not before.keys() & told.keys()
    (code,) = (tmp_path / "runs" / "code").iterdir()
    assert told["PYTHONPATH"] == f"{code}:/mine"
    assert told[demo.datasets.ENVIRONMENT] == str(demo.default_root())
    assert {name: os.environ[name] for name in before | kept} == before | kept
    assert os.environ["PYTHONPATH"] == "/mine" and demo.datasets.ENVIRONMENT not in os.environ


def test_a_controller_that_is_down_is_named(
    tmp_path: Path, fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "PAUSE_S", 0.05)
    fake_slurm.say("down")
    with pytest.raises(UserError, match="controller does not answer; try again once `scontrol"):
        start([job(tmp_path)], CPUS)
    assert list(tmp_path.iterdir()) == [] and not fake_slurm.read("101.sh")
