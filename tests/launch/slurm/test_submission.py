"""Submissions: what Slurm is told, what is left behind, and what a run's live job means."""

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from submitit.core.utils import DelayedSubmission

import demo
from common import locks, runs
from common.errors import UserError
from launch.slurm import executor as submitting
from launch.slurm import following, site, states
from launch.slurm import submission as module
from launch.slurm.executor import job_environment
from launch.slurm.following import follow_all
from launch.slurm.job import Job
from launch.slurm.resources import Resources
from launch.slurm.states import Record
from launch.slurm.submission import launch
from tests.launch.slurm.fake_slurm import FakeSlurm
from tests.launch.slurm.submissions import CPUS, files, job, start


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
    start([one], replace(CPUS, max_requeues=3))
    record = Record.read(one.folder)
    assert record is not None
    assert (record.cluster, record.job_id, record.tasks, record.after) == ("slurm", "101", 2, "")
    assert Path(record.submitit) == one.folder / "submitit" / "101"
    sent = DelayedSubmission.load(Path(record.submitit) / "101_submitted.pkl")
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
    record = Record.read(jobs[2].folder)
    assert record is not None and record.after == "77"
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

    monkeypatch.setattr(submitting.Record, "write", fail)
    with pytest.raises(seen, match=message):
        start([job(tmp_path)], CPUS)
    assert fake_slurm.read("cancelled") == "101\n" and list(tmp_path.iterdir()) == []


def test_gpus_of_a_type_take_the_place_of_others(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    typed = Resources(gpus_per_node=2, slurm=("gres=gpu:a100:2",), cluster="slurm")
    start([job(tmp_path)], typed)
    script = fake_slurm.script()
    assert "#SBATCH --gres=gpu:a100:2" in script
    assert not any("gpus-per-node" in line for line in script)


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


def test_a_run_of_a_job_on_this_machine_is_left_as_it_is(tmp_path: Path) -> None:
    one = job(tmp_path)
    one.folder.mkdir(parents=True)
    Record("local", "77", 1, str(one.folder / "submitit"), "").write(one.folder)
    lock = locks.take(one.folder / runs.LOCK)
    assert lock is not None
    before = files(tmp_path)
    for cluster in ("local", "debug"):
        with pytest.raises(UserError, match="s0 is in use by a job that is running; wait for it"):
            start([one], Resources(cluster, gpus_per_node=0))
    assert files(tmp_path) == before
    lock.release()


def test_a_sweep_leaves_alone_what_a_job_outside_slurm_has(
    tmp_path: Path, fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [job(tmp_path, seed) for seed in range(3)]
    jobs[1].folder.mkdir(parents=True)
    lock = locks.take(jobs[1].folder / runs.LOCK)
    assert lock is not None
    assert start(jobs, CPUS) == {jobs[0].folder: "101_0", jobs[2].folder: "101_1"}
    said = f"left alone: {jobs[1].folder} is in use by a job that is running\n"
    assert said in capsys.readouterr().out and Record.read(jobs[1].folder) is None
    with pytest.raises(UserError, match="s1 is in use by a job that is running; wait"):
        start(jobs[1:2], replace(CPUS, wait=True))  # which could not follow it
    lock.release()


def test_a_pending_run_is_not_taken_for_another_of_its_folder(
    tmp_path: Path, fake_slurm: FakeSlurm
) -> None:
    one = job(tmp_path)
    start([one], CPUS)
    fake_slurm.say("queue", "101|PENDING|Priority\n")
    before = files(tmp_path)
    other = replace(one, config=replace(one.config, seed=5))
    for options in ({"skip_live": True}, {"resources": replace(CPUS, wait=True)}):
        with pytest.raises(UserError, match=r"s0 holds another run: seed \(0 there, 5 now\); use"):
            start([other], **{"resources": CPUS, **options})
    assert files(tmp_path) == before and not fake_slurm.read("102.sh")


def test_a_run_that_was_cancelled_before_it_began_is_nobodys(
    tmp_path: Path, fake_slurm: FakeSlurm
) -> None:
    one = job(tmp_path)
    start([one], CPUS)
    fake_slurm.say("queue", "101|CANCELLED|None\n")
    other = replace(one, config=replace(one.config, seed=5))
    assert start([other], CPUS) == {one.folder: "102"}
    record = Record.read(one.folder)
    assert record is not None and record.identity == {"seed": 5}


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

    def follow(handle: Any, one: Job) -> bool:
        followed.append((handle.job_id, handle.num_tasks, one.config.seed))
        assert handle.paths.submitted_pickle.exists()
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


def typed(output_dir: Path, together: Any, outcomes: Any) -> None:
    """A command, in a process of its own."""
    together.wait()
    try:
        outcomes.put(start([job(output_dir)], CPUS)[job(output_dir).folder])
    except UserError as error:
        outcomes.put(str(error))


def test_of_two_commands_at_the_same_moment_one_submits(
    tmp_path: Path, fake_slurm: FakeSlurm
) -> None:
    fake_slurm.say("slow")
    fake_slurm.say("queue", "101|PENDING|Priority\n")
    context = multiprocessing.get_context("spawn")
    together, outcomes = context.Barrier(2), context.Queue()
    commands = [
        context.Process(target=typed, args=(tmp_path / "out", together, outcomes)) for _ in range(2)
    ]
    for command in commands:
        command.start()
    submitted, refused = sorted((outcomes.get(timeout=60) for _ in commands), key=len)
    for command in commands:
        command.join()
    assert submitted == "101" and "in use by Slurm job 101 (PENDING); add --wait" in refused
    assert not fake_slurm.read("102.sh")
    record = Record.read(job(tmp_path / "out").folder)
    assert record is not None and record.job_id == "101"


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
    (tmp_path / "file").write_text("")
    for cluster in ("slurm", "local"):
        with pytest.raises(UserError, match="cannot write the run folder"):
            start([job(tmp_path / "file")], Resources(cluster, gpus_per_node=0))
    assert not fake_slurm.read("101.sh")


@pytest.mark.parametrize("count", [1, 2])
def test_ctrl_c_takes_effect_once_the_job_is_recorded(
    count: int, tmp_path: Path, fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_slurm.say("ctrl-c")
    jobs = [job(tmp_path, seed) for seed in range(count)]
    with pytest.raises(KeyboardInterrupt):
        start(jobs, CPUS)
    ids = ["101"] if count == 1 else ["101_0", "101_1"]
    for one, job_id in zip(jobs, ids, strict=True):
        record = Record.read(one.folder)
        assert record is not None and record.job_id == job_id
        assert (Path(record.submitit) / f"{job_id}_submitted.pkl").exists()
    assert capsys.readouterr().out.count("slurm job 101") == count
    assert not fake_slurm.read("cancelled")


def test_ctrl_c_in_a_fresh_start_leaves_the_new_run_alone(
    tmp_path: Path, fake_slurm: FakeSlurm
) -> None:
    start([job(tmp_path)], CPUS)
    fake_slurm.say("ctrl-c")
    with pytest.raises(KeyboardInterrupt):
        start([job(tmp_path)], CPUS, fresh=True)
    record = Record.read(job(tmp_path).folder)
    assert record is not None and record.job_id == "102"
    assert [path.name for path in job(tmp_path).folder.parent.iterdir()] == ["s0"]


def test_a_job_is_submitted_without_our_rank_but_to_our_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {"RANK": "3", "SLURM_JOB_ID": "7", "SBATCH_QOS": "x", "SUBMITIT_EXECUTOR": "slurm"}
    kept = {"SLURM_CONF": "/etc/slurm/here.conf", "SUBMITIT_PREEMPT_SIGNAL": "USR1"}
    for name, value in (before | kept).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", "/mine")
    monkeypatch.delenv(demo.datasets.ENVIRONMENT)
    with job_environment(tmp_path):
        assert {name: os.environ[name] for name in kept} == kept
        assert os.environ["PYTHONPATH"] == f"{tmp_path}:/mine"
        assert not before.keys() & os.environ.keys()
        assert os.environ[demo.datasets.ENVIRONMENT] == str(demo.default_root())
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
