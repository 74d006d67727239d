"""tools/slurm-sandbox without Slurm: what it writes, and what it says where it cannot start."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from slurm_sandbox import configuration, packages, place, processes
from slurm_sandbox.command import main
from slurm_sandbox.layout import Options, Sandbox, SandboxError, default_folder, load

TOOL = Path(__file__).resolve().parents[2] / "tools" / "slurm-sandbox"


def settings(text: str) -> dict[str, str]:
    """The lines ``Name=value`` of a configuration that have no spaces."""
    lines = (line for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines if " " not in line)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOL), *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("verb", ["start", "install"])
def test_without_packages_or_apt_one_sentence_says_so(tmp_path: Path, verb: str):
    result = run(verb, PATH=str(tmp_path), LEWEL_SLURM_SANDBOX=str(tmp_path / "c"))
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("slurm-sandbox: ") and line.endswith(".") and "sbatch" in line
    assert (f"{TOOL} install" if verb == "start" else "apt-get") in line
    assert not (tmp_path / "c").exists()


def test_where_nothing_runs_status_fails_and_stop_has_nothing_to_do(tmp_path: Path):
    folder = str(tmp_path / "c")
    for verb, code in (("status", 1), ("stop", 0), ("kill", 1), ("pid", 1)):
        daemon = ["slurmctld"] if verb in ("kill", "pid") else []
        result = run(verb, *daemon, LEWEL_SLURM_SANDBOX=folder)
        assert result.returncode == code
        assert len(result.stderr.splitlines()) == 1 and folder in result.stderr
    assert not (tmp_path / "c").exists()


def test_install_needs_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "apt-get").write_text("#!/bin/sh\nexit 99\n")
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SandboxError, match="without root") as refused:
        packages.install(accounting=True)
    assert refused.value.status == 2


def test_a_port_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("LEWEL_SLURM_SANDBOX_PORT", "80")
    assert main(["start"]) == 2
    assert "LEWEL_SLURM_SANDBOX_PORT=80" in capsys.readouterr().err


def test_the_configuration_has_what_a_slurm_on_one_machine_needs():
    sandbox = Sandbox(
        Path("/tmp/c"), Options(nodes=2, gpus_per_node=2, cpus_per_node=4, port=20000)
    )
    text = configuration.slurm_conf(sandbox, first_job_id=77, memory_mib=1000)
    found = settings(text)
    assert found["FirstJobId"] == "77"
    assert found["AuthInfo"] == "socket=/tmp/c/run/munge.sock,cred_expire=10"
    assert found["PreemptType"] == "preempt/partition_prio"
    assert found["PreemptMode"] == "REQUEUE"
    assert found["SlurmctldParameters"] == "preempt_send_user_signal"
    assert found["ProctrackType"] == "proctrack/linuxproc"
    assert found["AccountingStorageType"] == "accounting_storage/slurmdbd"
    assert found["AccountingStoragePort"] == "20001"
    assert (
        "NodeName=n2 NodeHostname=n2 NodeAddr=127.0.1.2 Port=20012 CPUs=4 RealMemory=1000 "
        "Gres=gpu:2\n" in text
    )
    main_line, high_line = (line for line in text.splitlines() if line.startswith("Partition"))
    assert "Default=YES" in main_line and "GraceTime=30" in main_line
    assert "PriorityTier=10" in high_line and "PreemptMode=OFF" in high_line
    assert configuration.gres_conf(sandbox) == "NodeName=n[1-2] Name=gpu File=/tmp/c/dev/gpu[0-1]\n"
    assert configuration.hosts(sandbox, "127.0.0.1 localhost\n") == (
        "127.0.0.1 localhost\n127.0.1.1 n1\n127.0.1.2 n2\n"
    )


def test_without_gpus_or_accounting_nothing_speaks_of_them():
    sandbox = Sandbox(Path("/tmp/c"), Options(gpus_per_node=0, accounting=False, port=20000))
    text = configuration.slurm_conf(sandbox, first_job_id=1, memory_mib=1000)
    assert "Gres=" not in text and configuration.gres_conf(sandbox) == ""
    assert settings(text)["AccountingStorageType"] == "accounting_storage/none"
    assert sandbox.daemons == ["munged", "slurmctld", "slurmd.n1", "slurmd.n2"]
    assert "slurmdbd" not in packages.missing(accounting=False)


def test_what_is_written_is_private_where_it_must_be(tmp_path: Path):
    sandbox = Sandbox(tmp_path, Options(port=20000))
    configuration.write_all(sandbox)
    sandbox.save()
    key = tmp_path / "secret" / "munge.key"
    assert key.stat().st_mode & 0o077 == 0 and key.stat().st_size >= 32
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0
    assert (tmp_path / "slurmdbd.conf").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "dev" / "gpu1").resolve() == Path("/dev/null")
    assert load(tmp_path) == sandbox
    before = key.read_text()
    configuration.write_all(sandbox)
    assert key.read_text() == before


@pytest.mark.parametrize("name", ["a b", "x" * 60, "a,b"])
def test_a_folder_that_slurm_or_sockets_cannot_take_is_refused(tmp_path: Path, name: str):
    with pytest.raises(SandboxError, match="LEWEL_SLURM_SANDBOX"):
        place.check_folder(Path("/tmp") / name)


def test_a_folder_with_something_else_in_it_is_refused():
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        place.check_folder(Path(folder))
        (Path(folder) / "thesis.tex").touch()
        with pytest.raises(SandboxError, match="something else"):
            place.check_folder(Path(folder))


def test_the_folder_is_the_named_one_or_the_users_own(tmp_path: Path):
    assert default_folder({"LEWEL_SLURM_SANDBOX": str(tmp_path)}) == tmp_path
    assert default_folder({}).name == f"lewel-slurm-{os.getuid()}"


def test_a_stale_pid_file_names_nobody(tmp_path: Path):
    sandbox = Sandbox(tmp_path, Options())
    sandbox.pid_file("slurmctld").parent.mkdir()
    sandbox.pid_file("slurmctld").write_text(f"{os.getpid()}\n")  # alive, but somebody else
    assert processes.pid_of(sandbox, "slurmctld") is None
    sleeping = [sys.executable, "-c", "input()", f"{tmp_path}/slurm.conf"]
    with subprocess.Popen(sleeping, stdin=subprocess.PIPE) as process:
        sandbox.pid_file("slurmctld").write_text(f"{process.pid}\n")
        assert processes.until(lambda: processes.running(sandbox) != {}, 5)
        assert processes.running(sandbox) == {"slurmctld": process.pid}
        processes.end("slurmctld", process.pid)
        assert processes.running(sandbox) == {}
    assert process.returncode != 0


def test_two_sandboxes_take_different_ports(tmp_path: Path):
    sandbox = Sandbox(tmp_path, Options())
    first = place.free_port(sandbox)
    with socket.socket() as taken:
        taken.bind(("", first + 12))
        taken.listen()
        second = place.free_port(sandbox)
    assert second != first
    assert place.free_port(sandbox) == first


@pytest.mark.parametrize("required", ["", "1"])
def test_slurm_tests_are_skipped_aloud_without_slurm_or_fail_where_they_must_run(
    tmp_path: Path, required: str
):
    tests = [sys.executable, "-m", "pytest", "tests/slurm/test_sandbox.py", "-k", "accounts"]
    result = subprocess.run(
        tests,
        cwd=TOOL.parent.parent,
        env=os.environ | {"PATH": str(tmp_path), "LEWEL_REQUIRE_SLURM": required},
        capture_output=True,
        text=True,
    )
    assert result.returncode == (1 if required else 0), result.stdout
    last = result.stdout.splitlines()[-2]
    assert last.startswith("2 Slurm tests were skipped: ") != bool(required)
    assert ("make test-slurm" in last) != bool(required)
