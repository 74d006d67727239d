"""A real Slurm for the tests in this folder, which are skipped where it is not installed."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from slurm_sandbox import packages
from tests.slurm.sandbox import Sandbox, started

REQUIRE = "LEWEL_REQUIRE_SLURM"
"""In the environment, it turns skipped tests into failed ones."""

HERE = Path(__file__).parent.relative_to(Path(__file__).parents[2]).as_posix()


def obstacle() -> str:
    """Why there can be no Slurm here; empty where there can."""
    missing = packages.missing()
    if missing:
        return f"Slurm is not installed here (missing: {', '.join(missing)})"
    return "Slurm's daemons need root" if os.geteuid() != 0 else ""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    reason = obstacle()
    if reason and os.environ.get(REQUIRE):
        pytest.fail(f"{reason}, and {REQUIRE} is set", pytrace=False)
    if reason:
        pytest.skip(reason)


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
def slurm() -> Iterator[Sandbox]:
    """A cluster of 2 nodes × 2 GPUs with accounting, which commands and submitit find."""
    with (
        started("--nodes", "2", "--gpus-per-node", "2") as sandbox,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("SLURM_CONF", str(sandbox.folder / "slurm.conf"))
        patch.setenv("PATH", packages.search_path())
        yield sandbox
