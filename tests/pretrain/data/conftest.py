"""A cache of shard indices that no earlier session filled."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def index_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """``LEWEL_CACHE`` in a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEWEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
