"""Masks are read as indices, whatever colours a palette gives them."""

from pathlib import Path

import numpy as np
import pytest
from detectron2.data.detection_utils import read_image
from PIL import Image

from demo.voc import palette
from segmentation.masks import read_mask

LABELS = np.array([[0, 1, 20], [255, 7, 15]], np.uint8)


@pytest.fixture
def with_palette(tmp_path: Path) -> Path:
    image = Image.fromarray(LABELS)
    image.putpalette(palette().ravel().tolist())
    image.save(tmp_path / "palette.png")
    return tmp_path / "palette.png"


def test_a_palette_mask_is_read_as_indices(with_palette: Path) -> None:
    assert Image.open(with_palette).mode == "P"
    mask = read_mask(with_palette, 21, 255)
    np.testing.assert_array_equal(mask, LABELS)
    assert mask.dtype == np.uint8 and mask.flags.writeable
    Image.fromarray(LABELS).save(with_palette.with_name("grey.png"))
    np.testing.assert_array_equal(read_mask(with_palette.with_name("grey.png"), 21, 255), LABELS)
    # Detectron2's own mapper reads masks so: as the grey of their colours.
    assert not np.array_equal(read_image(str(with_palette), "L")[..., 0], LABELS)


@pytest.mark.parametrize("kind", ["RGB", "21", "cut", "text", "missing"])
def test_what_is_no_mask_is_named(tmp_path: Path, with_palette: Path, kind: str) -> None:
    path = tmp_path / "mask.png"
    messages = {"RGB": "RGB colours, not class indices", "21": "21 is no index of 21 classes"}
    if kind == "RGB":
        Image.open(with_palette).convert("RGB").save(path)
    elif kind == "21":
        Image.fromarray(LABELS + np.uint8(1)).save(path)  # 255 becomes 0, 20 becomes 21
    elif kind == "cut":
        path.write_bytes(with_palette.read_bytes()[:-30])
    elif kind == "text":
        path.write_text("not an image")
    with pytest.raises(OSError, match=f"^mask {path}: .*{messages.get(kind, '')}"):
        read_mask(path, 21, 255)
