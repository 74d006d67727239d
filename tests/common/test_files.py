"""A file is the old one or the new one, whatever happens while it is written."""

import os
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
