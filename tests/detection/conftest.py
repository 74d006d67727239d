"""Datasets that are forgotten after a test."""

from collections.abc import Iterator

import pytest


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
