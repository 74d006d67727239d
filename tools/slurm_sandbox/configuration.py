"""What Slurm reads: ``slurm.conf`` and its companions, and the nodes' ``/etc/hosts``."""

import os
import time
from pathlib import Path

from slurm_sandbox.layout import Sandbox, write

FOLDERS = ("run", "log", "state", "spool", "dev")


def slurm_conf(sandbox: Sandbox, first_job_id: int, memory_mib: int) -> str:
    """The text of ``slurm.conf``.

    Args:
        sandbox: the cluster.
        first_job_id: ids count from here; they must differ from one sandbox to the next, or the
            results folder of an older job would answer for a new one.
        memory_mib: of each node; all of them may promise the same memory.
    """
    folder, options = sandbox.folder, sandbox.options
    accounting = "slurmdbd" if options.accounting else "none"
    return f"""\
ClusterName=sandbox
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={options.port}
SlurmUser=root
AuthType=auth/munge
# A requeued job does not start again before its old credential has expired, by default 120 s.
AuthInfo=socket={sandbox.munge_socket},cred_expire=10
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={sandbox.pid_file("slurmctld")}
SlurmdPidFile={sandbox.pid_file("slurmd.%n")}
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
PlugStackConfig={folder}/plugstack.conf
MailProg=/bin/true
MpiDefault=none
FirstJobId={first_job_id}

# It must run in a container: no cgroups, no binding to CPUs, more CPUs than there are.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu

# Tests wait for every one of these.
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
KillWait=10
SlurmdTimeout=15
SlurmctldTimeout=15
ReturnToService=2

# A job in high preempts those in main: at once they get the signal that their --signal names,
# after GraceTime TERM, after KillWait KILL, and they are queued again.
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal

AccountingStorageType=accounting_storage/{accounting}
AccountingStorageHost=127.0.0.1
AccountingStoragePort={options.port + 1}
AccountingStoragePass={sandbox.munge_socket}

{nodes(sandbox, memory_mib)}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=30 State=UP
PartitionName=high Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF State=UP
"""


def nodes(sandbox: Sandbox, memory_mib: int) -> str:
    """The lines of ``slurm.conf`` that describe the nodes."""
    options = sandbox.options
    gpus = f" Gres=gpu:{options.gpus_per_node}" if options.gpus_per_node else ""
    return "\n".join(
        f"NodeName={name} NodeHostname={name} NodeAddr={address(number)} Port={port} "
        f"CPUs={options.cpus_per_node} RealMemory={memory_mib}{gpus}"
        for number, (name, port) in enumerate(
            zip(sandbox.node_names, sandbox.ports[2:], strict=True), 1
        )
    )


def address(number: int) -> str:
    """A node's own loopback address."""
    return f"127.0.1.{number}"


def hosts(sandbox: Sandbox, system: str) -> str:
    """The system's ``/etc/hosts`` and the nodes: names must resolve inside jobs, or gloo hangs."""
    own = (f"{address(number)} {name}\n" for number, name in enumerate(sandbox.node_names, 1))
    return system.rstrip("\n") + "\n" + "".join(own)


def gres_conf(sandbox: Sandbox) -> str:
    """The stand-in GPUs: ``CUDA_VISIBLE_DEVICES`` needs device files, and links to one will do."""
    count = sandbox.options.gpus_per_node
    if not count:
        return ""
    devices = f"{sandbox.folder}/dev/gpu[0-{count - 1}]"
    return f"NodeName=n[1-{sandbox.options.nodes}] Name=gpu File={devices}\n"


def slurmdbd_conf(sandbox: Sandbox) -> str:
    """The text of ``slurmdbd.conf``, which slurmdbd finds beside ``slurm.conf``."""
    return f"""\
AuthType=auth/munge
AuthInfo=socket={sandbox.munge_socket}
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={sandbox.options.port + 1}
SlurmUser=root
PidFile={sandbox.pid_file("slurmdbd")}
LogFile={sandbox.folder}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct
"""


def write_all(sandbox: Sandbox) -> None:
    """Make the folders, the key, the devices and every file that Slurm reads."""
    folder = sandbox.folder
    for name in FOLDERS:
        (folder / name).mkdir(exist_ok=True)
    for name in sandbox.node_names:
        (folder / "spool" / name).mkdir(exist_ok=True)
    secret = folder / "secret"
    secret.mkdir(mode=0o700, exist_ok=True)
    if not (secret / "munge.key").exists():
        write(secret / "munge.key", os.urandom(64).hex(), 0o600)
    for link in (folder / "dev").iterdir():
        link.unlink()
    for number in range(sandbox.options.gpus_per_node):
        (folder / "dev" / f"gpu{number}").symlink_to("/dev/null")
    first_job_id = int(time.time()) % 60_000_000 + 1  # Slurm's ids end at 67 million
    write(sandbox.hosts, hosts(sandbox, Path("/etc/hosts").read_text()))
    write(folder / "plugstack.conf", "")
    write(folder / "gres.conf", gres_conf(sandbox))
    write(folder / "slurmdbd.conf", slurmdbd_conf(sandbox), 0o600)
    write(sandbox.conf, slurm_conf(sandbox, first_job_id, _memory_mib()))


def _memory_mib() -> int:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(total * 0.9) // 2**20
