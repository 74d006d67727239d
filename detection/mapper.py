"""Training images, of which one that cannot be read does not end the job."""

import logging
import multiprocessing
from typing import Any

from detectron2.data import DatasetMapper

log = logging.getLogger("detection")


class SkippingMapper(DatasetMapper):
    """Detectron2's training mapper; an unreadable image is named, counted and passed over.

    Detectron2's loader draws another image where a mapper returns None.
    """

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg, is_train=True)
        self._unreadable = multiprocessing.Value("i", 0)  # shared with the loader's workers

    @property
    def unreadable(self) -> int:
        """How many images could not be read, in this process and its workers."""
        return int(self._unreadable.value)

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any] | None:
        """The image and its annotations; None if the file cannot be read."""
        try:
            return super().__call__(dataset_dict)
        except (OSError, SyntaxError) as error:
            log.warning("skipped an unreadable image: %s (%s)", dataset_dict["file_name"], error)
            with self._unreadable.get_lock():
                self._unreadable.value += 1
            return None
