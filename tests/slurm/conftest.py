"""A real Slurm for the tests in this folder, which are skipped where it is not installed."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.slurm.sandbox.cluster import Sandbox, started
from tests.slurm.sandbox.packages import PATH, obstacle

REQUIRE = "LEWEL_REQUIRE_SLURM"
"""In the environment, it turns skipped tests into failed ones."""

HERE = Path(__file__).parent.relative_to(Path(__file__).parents[2]).as_posix()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter,
) -> Generator[None, None, None]:
    """Say in the last lines of the whole run what was not tested, and how to."""
    yield
    reports = terminalreporter.stats.get("skipped", [])
    count = sum(report.nodeid.startswith(f"{HERE}/") for report in reports)
    if count and (reason := obstacle()):
        terminalreporter.write_line(
            f"{count} Slurm tests were skipped: {reason}; "
            "`make test-slurm` installs it (root, apt) and runs them",
            yellow=True,
        )


@pytest.fixture(scope="session")
def installed() -> None:
    """Skip a test where there can be no Slurm, or fail it where it must run."""
    reason = obstacle()
    if reason and os.environ.get(REQUIRE):
        pytest.fail(f"{reason}, and {REQUIRE} is set", pytrace=False)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def cluster(installed: None) -> Iterator[Sandbox]:
    """A cluster of 2 nodes × 2 GPUs with accounting, which commands and submitit find."""
    with started() as sandbox, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(sandbox.conf))
        patch.setenv("PATH", PATH)
        yield sandbox


@pytest.fixture
def slurm(cluster: Sandbox) -> Iterator[Sandbox]:
    """The cluster; jobs that are left after the test are cancelled."""
    yield cluster
    cluster.cancel_all()
