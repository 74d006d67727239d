"""One thread: networks this small take ten times longer on two threads of a busy machine; and
datasets that are forgotten."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """For the session's own process; processes that a test starts see to it themselves."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def registered() -> Iterator[list[str]]:
    """Names of datasets to be forgotten."""
    # Detectron2 looks where the data sets are when it is imported.
    from detectron2.data import DatasetCatalog, MetadataCatalog

    names: list[str] = []
    yield names
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
