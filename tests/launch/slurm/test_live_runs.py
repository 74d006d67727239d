"""A run that a job has already: it is refused, followed, or left alone."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common import locks, runs
from common.errors import UserError
from launch.slurm import following
from launch.slurm.following import follow_all
from launch.slurm.job import Job
from launch.slurm.resources import Resources
from launch.slurm.states import Record
from launch.slurm.submission import launch
from tests.launch.slurm.fake_slurm import FakeSlurm
from tests.launch.slurm.submissions import CPUS, files, job, record, start


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """A run folder that a job outside Slurm has."""
    folder.mkdir(parents=True)
    lock = locks.take(folder / runs.LOCK)
    assert lock is not None
    yield
    lock.release()


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
    said = f"^{one.folder} is in use by a job that is running; wait for it, end it, or choose "
    with held(one.folder):
        for _ in range(2):  # that no job on Slurm ever had, and that one had which has ended
            before = files(one.folder)
            with pytest.raises(UserError, match=said):
                start([one], CPUS)
            assert files(one.folder) == before and not fake_slurm.read("101.sh")
            Record("slurm", "100", 2, str(one.folder / "submitit" / "100"), "").write(one.folder)
            fake_slurm.say("queue", "100|FAILED|NonZeroExitCode\n")
        fake_slurm.say("queue", "100|RUNNING|None\n")  # then it is this one that holds it
        assert start([one], CPUS, skip_live=True) == {one.folder: "100"}
        fake_slurm.say("queue")  # forgotten, where there are no accounts
        assert start([one], CPUS) == {one.folder: "101"}
    here = job(tmp_path, seed=1)
    with held(here.folder):
        Record("local", "77", 1, str(here.folder / "submitit"), "").write(here.folder)
        before = files(here.folder)
        for cluster in ("local", "debug"):
            with pytest.raises(UserError, match="s1 is in use by a job that is running; wait for"):
                start([here], Resources(cluster, gpus_per_node=0))
        assert files(here.folder) == before


def test_a_sweep_leaves_alone_what_a_job_outside_slurm_has(
    tmp_path: Path, fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [job(tmp_path, seed) for seed in range(3)]
    with held(jobs[1].folder):
        assert start(jobs, CPUS) == {jobs[0].folder: "101_0", jobs[2].folder: "101_1"}
        said = f"left alone: {jobs[1].folder} is in use by a job that is running\n"
        assert said in capsys.readouterr().out and Record.read(jobs[1].folder) is None
        with pytest.raises(UserError, match="s1 is in use by a job that is running; wait"):
            start(jobs[1:2], replace(CPUS, wait=True))  # which could not follow it


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
    assert record(one.folder).identity == {"seed": 5}


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
    context = multiprocessing.get_context("fork")
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
    assert record(job(tmp_path / "out").folder).job_id == "101"
