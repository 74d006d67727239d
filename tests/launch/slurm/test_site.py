"""A site's settings are typed once: in a file or in variables."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from common.errors import UserError
from launch.options import Resources, parse, resources
from launch.slurm import site
from tests.launch.slurm.fake_slurm import FakeSlurm

SETTINGS = """
partition = "gpu"
mem-gb = 480
gpus_per_node = 4
timeout-min = 2880
slurm = { reservation = "x", nice = 100, exclusive = true, hold = false }

[env]
NCCL_SOCKET_IFNAME = "ib0"
LEWEL_DIST_TIMEOUT_MIN = 60
"""


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        epochs: Epochs.
    """

    epochs: int = 1
    resources: Resources = field(default_factory=resources)


def settings_in(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(text)


@pytest.fixture
def settings(no_site: Path) -> None:
    settings_in(no_site, SETTINGS)


def parsed(*words: str) -> Resources:
    return parse(Command, "command", list(words)).resources


def test_the_file_has_the_defaults(no_site: Path, fake_slurm: FakeSlurm) -> None:
    assert parsed() == Resources() and site.environment() == {}
    settings_in(no_site, SETTINGS)
    words = ("reservation=x", "nice=100", "exclusive")
    found = Resources(partition="gpu", mem_gb=480, gpus_per_node=4, timeout_min=2880, slurm=words)
    assert parsed() == found
    assert site.environment() == {"NCCL_SOCKET_IFNAME": "ib0", "LEWEL_DIST_TIMEOUT_MIN": "60"}


def test_typed_comes_before_variables_before_the_file(
    settings: None, fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEWEL_SLURM_PARTITION", "variable")
    monkeypatch.setenv("LEWEL_SLURM_MEM_GB", "12.5")
    monkeypatch.setenv("LEWEL_SLURM_SLURM", "nice=1 'begin=now+1hour'")
    monkeypatch.setenv("SBATCH_PARTITION", "below")
    monkeypatch.setenv("SBATCH_ACCOUNT", "below")
    found = parsed("--mem-gb", "3", "--gpus-per-node=2")
    assert (found.partition, found.account) == ("variable", "below")
    assert (found.mem_gb, found.gpus_per_node, found.timeout_min) == (3, 2, 2880)
    assert found.slurm == ("nice=1", "begin=now+1hour")
    assert parsed("--partition", "None").partition is None


def test_help_shows_them(
    settings: None, fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        parsed("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0
    assert "(default: gpu, this site's)" in shown and "(default: 480, this site's)" in shown
    assert "(default: reservation=x nice=100 exclusive, this site's)" in shown


def test_a_job_elsewhere_has_what_was_typed(settings: None, fake_slurm: FakeSlurm) -> None:
    """Eight GPUs of the cluster's nodes are not this machine's."""
    assert parsed("--cluster", "local") == Resources("local")
    assert parsed("--cluster", "debug", "--tasks_per_node=1", "--timeout-min", "2880") == Resources(
        "debug", tasks_per_node=1, timeout_min=2880
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('partitoin = "gpu"', r"partitoin: is no setting; those are nodes, .*env"),
        ('cluster = "slurm"', r"cluster: is no setting"),
        ("partition = 3", r"partition: must be text"),
        ('nodes = "2"', r"nodes: must be a whole number"),
        ("nodes = true", r"nodes: must be a whole number"),
        ("nodes = 0", r"nodes: must be at least 1"),
        ("mem-gb = -1", r"mem-gb: must be more than 0"),
        ("slurm = 3", r"slurm: must be a list or table"),
        ('slurm = { time = "1" }', r"slurm: time=1: time is set otherwise; use --timeout-min"),
        ("nodes 2", r"slurm\.toml is not TOML: .*line 1"),
        ("env = 3", r"env: must be a table"),
        ("[env]\nX = [1]", r"env\.X: must be text or a number"),
        ("[env]\nX = true", r"env\.X: must be text or a number"),
        ('[env]\n"A B" = 1', r"env\.A B: cannot be set here"),
        ("[env]\nMASTER_PORT = 1", r"env\.MASTER_PORT: cannot be set here"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(
    no_site: Path, fake_slurm: FakeSlurm, text: str, message: str
) -> None:
    settings_in(no_site, text)
    with pytest.raises(UserError, match=message) as error:  # out of tyro, as it is
        parsed()
        site.environment()
    assert str(error.value).startswith(str(no_site))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("LEWEL_SLURM_NODES", "many", r"LEWEL_SLURM_NODES=many: must be a whole number"),
        ("LEWEL_SLURM_NODES", "0", r"LEWEL_SLURM_NODES=0: must be at least 1"),
        ("LEWEL_SLURM_MEM_GB", "all", r"LEWEL_SLURM_MEM_GB=all: must be a number"),
        ("LEWEL_SLURM_SLURM", "x=", r"LEWEL_SLURM_SLURM=x=: x=: has no value"),
        ("LEWEL_SLURM_PARTITON", "x", r"LEWEL_SLURM_PARTITON is no setting; those are"),
    ],
)
def test_what_is_wrong_with_a_variable_is_named(
    name: str, text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(UserError, match=message):
        resources()
