"""Asking the cluster: Slurm's own clients, with this cluster's environment."""

import os
import subprocess

from slurm_sandbox.layout import Sandbox, SandboxError
from slurm_sandbox.packages import find, search_path
from slurm_sandbox.processes import until

CLIENT_S = 20
"""How long a client may take: it hangs while the controller is down."""

WAIT_S = 60
"""How long a daemon or a node may take until it answers."""

FOREIGN = ("SLURM", "SBATCH", "SRUN", "SALLOC", "SINFO", "SQUEUE", "SACCT", "SCANCEL", "MUNGE")
"""What begins like this in the environment may speak of another cluster, or of a job."""

UP = {"idle", "mixed", "allocated", "completing", "planned"}
"""States of a node that answers and takes jobs."""


def environment(sandbox: Sandbox) -> dict[str, str]:
    """For clients and daemons alike."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return kept | {"PATH": search_path(), "SLURM_CONF": str(sandbox.conf)}


def ask(sandbox: Sandbox, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a client; one that hangs counts as failed."""
    try:
        return subprocess.run(
            [find(command[0]), *command[1:]],
            env=environment(sandbox),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CLIENT_S,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer in {CLIENT_S} s")


def answers(sandbox: Sandbox, *command: str) -> bool:
    """True if the client succeeds."""
    return ask(sandbox, *command).returncode == 0


def node_states(sandbox: Sandbox) -> dict[str, str]:
    """Slurm's word for the state of each node; empty while the controller does not answer."""
    lines = ask(sandbox, "sinfo", "-h", "-N", "-p", "main", "-o", "%N %T").stdout.splitlines()
    return {name: state for name, state in (line.split(maxsplit=1) for line in lines)}


def nodes_up(sandbox: Sandbox) -> bool:
    """True if every node answers and takes jobs."""
    states = node_states(sandbox)
    # - and + are marks: planned for a job, one job completing beside others
    return states.keys() == set(sandbox.node_names) and all(
        state.rstrip("-+") in UP for state in states.values()
    )


def wait_for_nodes(sandbox: Sandbox) -> None:
    """Wait until every node answers and takes jobs.

    Raises:
        SandboxError: if one does not after a minute; with the states.
    """
    if not until(lambda: nodes_up(sandbox), WAIT_S):
        states = ", ".join(" ".join(item) for item in node_states(sandbox).items())
        raise SandboxError(
            f"the nodes did not come up in {WAIT_S} s ({states or 'no answer'}); "
            f"see {sandbox.folder}/log."
        )
