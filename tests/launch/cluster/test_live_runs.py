"""What a run's live job means to a command that is typed again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common import locks, runs
from common.errors import UserError
from launch.cluster import follow as following
from launch.cluster.follow import follow_all
from launch.cluster.jobs import Job
from launch.cluster.records import Record
from launch.cluster.resources import Resources
from launch.cluster.submit import launch
from tests.launch.cluster.fake_slurm import FakeSlurm
from tests.launch.cluster.submissions import CPUS, files, job, start


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
