"""A small set, drawn once for all tests here."""

from pathlib import Path

import pytest

from demo import Counts, write


@pytest.fixture(scope="session")
def counts() -> Counts:
    return Counts(3, 2, 24, 8, 8, 4, 8, 4, 4)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory, counts: Counts) -> Path:
    return write(tmp_path_factory.mktemp("demo") / "set", counts=counts)
