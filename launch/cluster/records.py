"""Who was given a run: ``job.json`` in its run folder, for whoever asks later how it goes."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from common.files import write_json

RECORD = "job.json"


@dataclass(frozen=True)
class Record:
    """The job that was last given a run.

    Attributes:
        cluster: ``slurm`` or ``local``.
        job_id: ``123``, or ``123_4`` for a member of an array.
        tasks: processes of the job.
        submitit: absolute folder of submitit's own files for this job.
        submitted: when, in UTC, ISO 8601 to the second.
        after: the Slurm job that must succeed first, empty for none.
        command: what was typed.
        identity: what makes the run this one, which it is as long as the job is alive; empty where
            that is not known.
    """

    cluster: str
    job_id: str
    tasks: int
    submitit: str
    submitted: str
    after: str = ""
    command: str = ""
    identity: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Say in a run folder that it is this job's, atomically."""
        write_json(folder / RECORD, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "Record | None":
        """The record in a run folder; None if there is none that can be read."""
        try:
            saved = json.loads((folder / RECORD).read_text())
            known = {one.name for one in fields(cls)}  # a newer version may know more
            record = cls(**{name: value for name, value in saved.items() if name in known})
        except (OSError, ValueError, TypeError, AttributeError):
            return None
        kinds = {"tasks": int, "identity": dict}
        values = asdict(record).items()
        sound = all(isinstance(value, kinds.get(name, str)) for name, value in values)
        return record if sound else None
