"""A job in its own processes: whose folder it finds."""

from pathlib import Path

import pytest

from common import runs
from common.errors import UserError
from launch.slurm.job import Job
from tests.launch.slurm.submissions import Config


def test_a_job_takes_no_other_runs_result_for_its_own(tmp_path: Path) -> None:
    worked: list[int] = []

    def work(config: Config, folder: Path) -> None:
        worked.append(config.seed)

    folder = tmp_path / "runs" / "semi" / "x"
    runs.claim(folder, {"seed": 1})  # since the job was submitted
    runs.finish(folder, {"kind": "semi"})
    with pytest.raises(UserError, match=r"holds another run: seed \(1 there, 2 now\)"):
        Job("semi", work, Config(2), folder, tmp_path, 1)()
    Job("semi", work, Config(1), folder, tmp_path, 1)()
    (folder / runs.FINAL).unlink()
    Job("semi", work, Config(1), folder, tmp_path, 1)()
    assert worked == [1]
