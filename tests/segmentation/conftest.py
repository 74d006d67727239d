"""One thread, as of the tests of detection."""

from tests.detection.conftest import one_thread

__all__ = ["one_thread"]
