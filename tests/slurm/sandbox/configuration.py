"""The files that Slurm reads: ``slurm.conf`` and its companions, and the nodes' ``/etc/hosts``."""

import os
import time
from pathlib import Path

from tests.slurm.sandbox.layout import Layout


def slurm_conf(sandbox: Layout) -> str:
    """The text of ``slurm.conf``."""
    folder, accounting = sandbox.folder, "slurmdbd" if sandbox.accounting else "none"
    # Ids must differ from one sandbox to the next, or the folder of an older job's results would
    # answer for a new one. They end at 67 million.
    first_job_id = int(time.time()) % 60_000_000 + 1
    return f"""\
ClusterName=sandbox
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={sandbox.port}
SlurmUser=root
AuthType=auth/munge
# A requeued job does not start again before its old credential has expired, by default 120 s.
AuthInfo=socket={sandbox.munge_socket},cred_expire=10
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.own.pid
SlurmdPidFile={folder}/run/slurmd.%n.own.pid
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
AccountingStoragePort={sandbox.port + 1}
AccountingStoragePass={sandbox.munge_socket}

{nodes(sandbox)}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=30 State=UP
PartitionName=high Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF State=UP
"""


def nodes(sandbox: Layout) -> str:
    """The lines of ``slurm.conf`` that describe the nodes; all promise the same memory."""
    gpus = f" Gres=gpu:{sandbox.gpus_per_node}" if sandbox.gpus_per_node else ""
    memory_mib = int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 0.9) // 2**20
    return "\n".join(
        f"NodeName={name} NodeHostname={name} NodeAddr={address(n)} Port={sandbox.port + 1 + n} "
        f"CPUs={sandbox.cpus_per_node} RealMemory={memory_mib}{gpus}"
        for n, name in enumerate(sandbox.node_names, 1)
    )


def address(number: int) -> str:
    """A node's own loopback address."""
    return f"127.0.1.{number}"


def hosts(sandbox: Layout) -> str:
    """The system's ``/etc/hosts`` and the nodes: names must resolve inside jobs, or gloo hangs."""
    own = (f"{address(number)} {name}\n" for number, name in enumerate(sandbox.node_names, 1))
    return Path("/etc/hosts").read_text().rstrip("\n") + "\n" + "".join(own)


def gres_conf(sandbox: Layout) -> str:
    """The stand-in GPUs: ``CUDA_VISIBLE_DEVICES`` needs device files, and links to one will do."""
    if not sandbox.gpus_per_node:
        return ""
    devices = f"{sandbox.folder}/dev/gpu[0-{sandbox.gpus_per_node - 1}]"
    return f"NodeName=n[1-{sandbox.nodes}] Name=gpu File={devices}\n"


def slurmdbd_conf(sandbox: Layout) -> str:
    """The text of ``slurmdbd.conf``, which slurmdbd finds beside ``slurm.conf``."""
    return f"""\
AuthType=auth/munge
AuthInfo=socket={sandbox.munge_socket}
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={sandbox.port + 1}
SlurmUser=root
PidFile={sandbox.folder}/run/slurmdbd.own.pid
LogFile={sandbox.folder}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct
"""


def write(sandbox: Layout) -> None:
    """Make the folders, the key, the devices and every file that Slurm reads."""
    folder = sandbox.folder
    for name in ("run", "log", "state", "dev", *(f"spool/{name}" for name in sandbox.node_names)):
        (folder / name).mkdir(parents=True)
    (folder / "secret").mkdir(mode=0o700)
    for number in range(sandbox.gpus_per_node):
        (folder / "dev" / f"gpu{number}").symlink_to("/dev/null")
    _write_private(folder / "secret" / "munge.key", os.urandom(64).hex())
    _write_private(folder / "slurmdbd.conf", slurmdbd_conf(sandbox))
    sandbox.hosts.write_text(hosts(sandbox))
    (folder / "plugstack.conf").touch()
    (folder / "gres.conf").write_text(gres_conf(sandbox))
    sandbox.conf.write_text(slurm_conf(sandbox))


def _write_private(path: Path, text: str) -> None:
    path.touch(0o600)
    path.write_text(text)
