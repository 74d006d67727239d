"""A file is the old one or the new one, whatever happens while it is written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import atomic_write, check_output, check_writable
from tests.folders import forbidden


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path, "w") as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_kill_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    code = (
        "import sys, time\n"
        "from common.files import atomic_write\n"
        "with atomic_write(sys.argv[1], 'w') as file:\n"
        "    file.write('half'); file.flush(); print('writing', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert path.read_text() == "old"


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "file", "w") as file:
        file.write("text")
    (tmp_path / "ordinary").write_text("text")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_a_folder_that_shows_nobody_what_is_in_it_is_named(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.mkdir()
    with (
        forbidden(ours),
        pytest.raises(UserError, match=r"cannot write the run folder \S*/ours/x: no permission in"),
    ):
        check_writable(ours / "x")
    with forbidden(ours):
        check_output(ours / "x.pkl")  # the attempt to write says what is wrong
    assert os.listdir(ours) == []
