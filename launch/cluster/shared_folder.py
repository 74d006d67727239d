"""Whether Slurm's nodes see a folder of this machine: one of them is asked before the first job."""

import hashlib
import os
import re
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common import runs
from common.cache import cache_folder
from common.errors import UserError
from common.files import atomic_write, write_json
from launch.cluster.executor import job_environment
from launch.cluster.resources import Resources
from launch.cluster.slurm import call

IMMEDIATE_S = 10  # for a node to be free
TIMEOUT_S = 25
# A site's own scripts may print as well: $0 tells our lines from theirs, even from one without end.
LOOK = (
    'echo; echo "$0 node $SLURMD_NODENAME"; for i in 1 2 3; do '
    'seen=$(cat "$1" 2>/dev/null) && echo "$0 read $seen" && exit; sleep 1; done'
)


def check_shared(output_dir: Path, resources: Resources) -> None:
    """Raise if a node of the partition does not see ``output_dir``.

    If none can be asked at once, or Slurm will not have it, nothing is known and nothing happens.
    What a node saw is remembered in ``LEWEL_CACHE``.

    Raises:
        UserError: naming the node and the folder; nothing is left there.
    """
    facts = _facts(output_dir, resources)
    if facts is None or _remembered(facts).exists() or not _has_room(resources):
        return
    print(f"asking a node of Slurm whether it sees {output_dir}", flush=True)
    text = uuid.uuid4().hex
    with _token(output_dir / "runs", text) as token:
        node, seen = _ask(token, resources)
    if not node:
        return
    if seen != text:
        raise UserError(
            f"the compute node {node} does not see {output_dir}; choose an --output-dir on a file "
            "system that all nodes share."
        )
    with suppress(OSError):  # then it is asked again
        write_json(_remembered(facts), facts)


@contextmanager
def _token(folder: Path, text: str) -> Iterator[Path]:
    """A file in ``folder`` within the block; folders that were made for it go, too."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    token = folder / f".probe-{text}"
    try:
        try:
            with atomic_write(token, "w") as file:
                file.write(text)
        except OSError as error:
            raise runs.unwritable(folder, error) from error
        yield token
    finally:
        with suppress(OSError):
            token.unlink()
        with suppress(OSError):
            for path in made:
                path.rmdir()


def _facts(output_dir: Path, resources: Resources) -> dict[str, str] | None:
    """What an answer holds for: this machine, the cluster, the partition and the mount."""
    existing = output_dir.absolute()
    while not existing.exists():
        existing = existing.parent
    existing = existing.resolve()
    mount = next(path for path in (existing, *existing.parents) if os.path.ismount(path))
    cluster = os.environ.get("SLURM_CONF")
    if cluster is None:
        answer = _run(["scontrol", "show", "config"])
        named = re.search(r"^ClusterName\s*=\s*(\S+)", answer or "", re.MULTILINE)
        if named is None:
            return None
        cluster = named[1]
    return {
        "host": socket.gethostname(),
        "cluster": cluster,
        "partition": resources.partition or "",
        "mount": str(mount),
        "device": str(existing.stat().st_dev),
    }


def _remembered(facts: dict[str, str]) -> Path:
    name = hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()[:16]
    return cache_folder() / "shared-folders" / f"{name}.json"


def _has_room(resources: Resources) -> bool:
    """Whether a node may be free: asking where none is would wait, or drive others' jobs away."""
    command = ["sinfo", "--noheader", "--responding", "--states=idle,mixed", "--format=%D"]
    if resources.partition:
        command.append(f"--partition={resources.partition}")
    answer = _run(command)
    return any(count.isdigit() and int(count) for count in (answer or "").split())


def _ask(token: Path, resources: Resources) -> tuple[str, str]:
    """The name of the node that answered, "" if none did; and what it read in ``token``."""
    name = f"lewel-probe-{token.name[-8:]}"
    command = ["srun", "--quiet", f"--job-name={name}", f"--immediate={IMMEDIATE_S}", "--chdir=/"]
    command += ["--nodes=1", "--ntasks=1", "--time=1", "--mem=100M"]
    for option in ("partition", "account", "qos", "constraint", "exclude"):
        value = getattr(resources, option)
        if value:
            command.append(f"--{option}={value}")
    answer = _run([*command, "sh", "-c", LOOK, name, str(token)])
    if answer is None:
        _run(["scancel", f"--name={name}"])
        return "", ""
    said = dict(re.findall(rf"^{name} (node|read) (.*)$", answer, re.MULTILINE))
    return said.get("node", "").strip(), said.get("read", "").strip()


def _run(command: list[str]) -> str | None:
    """What a command of Slurm's prints; None if it took too long or is not there."""
    try:
        with job_environment():
            return call(command, TIMEOUT_S).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
