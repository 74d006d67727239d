"""Before the first job a node of Slurm is asked whether it sees the folder that jobs write to."""

from pathlib import Path

import pytest

from common.errors import UserError
from launch.cluster.resources import Resources
from launch.cluster.shared_folder import check_shared
from tests.launch.cluster.fake_slurm import FakeSlurm

RESOURCES = Resources(partition="gpu", account="us", constraint="a|b")


@pytest.fixture
def idle(fake_slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """A cluster with an idle node, of which nothing is remembered."""
    monkeypatch.setenv("LEWEL_CACHE", str(tmp_path / "cache"))
    fake_slurm.say("room", "2\n")
    return fake_slurm


def test_a_folder_that_a_node_sees_is_remembered(idle: FakeSlurm, tmp_path: Path) -> None:
    for _ in range(2):
        check_shared(tmp_path / "out", RESOURCES)
        assert not (tmp_path / "out").exists()  # the probe is gone, and what was made for it
        (asked,) = idle.read("srun.log").splitlines()
    assert "--partition=gpu" in asked and "--account=us" in asked and "--constraint=a|b" in asked
    assert "--nodes=1" in asked and "--immediate=10" in asked and "--qos" not in asked
    check_shared(tmp_path / "out", Resources(partition="other"))
    assert len(idle.read("srun.log").splitlines()) == 2


def test_a_folder_that_it_does_not_see_is_named(idle: FakeSlurm, tmp_path: Path) -> None:
    idle.say("blind")
    (tmp_path / "out").mkdir()
    for _ in range(2):  # that is not remembered
        with pytest.raises(UserError, match=f"compute node n1 does not see {tmp_path}/out; choose"):
            check_shared(tmp_path / "out", RESOURCES)
    assert list((tmp_path / "out").iterdir()) == [] and not (tmp_path / "cache").exists()


def test_what_the_site_prints_is_no_answer(idle: FakeSlurm, tmp_path: Path) -> None:
    idle.say("greeting", "n9\nWelcome to n1, have a lot of fun")
    check_shared(tmp_path / "out", RESOURCES)
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 1
    idle.say("blind")
    with pytest.raises(UserError, match="compute node n1 does not see"):
        check_shared(tmp_path / "out", Resources(partition="other"))


def test_where_none_can_be_asked_nothing_happens(
    idle: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    idle.say("busy")
    check_shared(tmp_path / "out", RESOURCES)
    assert not (tmp_path / "cache").exists() and idle.read("srun.log")
    assert capsys.readouterr().out.count("\n") == 1


def test_no_node_is_asked_where_none_is_free(
    idle: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    idle.say("room", "0\n")
    check_shared(tmp_path / "out", RESOURCES)
    assert not idle.read("srun.log") and not capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_named(idle: FakeSlurm, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match=r"cannot write the run folder .*out"):
        check_shared(tmp_path / "out", RESOURCES)


def test_a_cache_that_cannot_be_written_is_no_matter(idle: FakeSlurm, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    check_shared(tmp_path / "out", RESOURCES)
