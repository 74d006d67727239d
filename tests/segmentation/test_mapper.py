"""Crops: their size and padding, image and mask as one, the ratio of the scale, and colours."""

import colorsys
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import segmentation  # noqa: F401  registers the embedded data
from common.errors import UserError
from detection.mapper import UNREADABLE, TestMapper
from segmentation import mapper as module
from segmentation.mapper import CropOrPad, RandomScale, SegmentationMapper, augmentations, distort
from tests.detection.helpers import config

R50, D8 = "pascal_voc_R_50_FCN_30k", "pascal_voc_R_50_FCN_D8_20k"
FILL = np.array([124, 116, 104], np.uint8)  # 123.675, 116.28, 103.53
sizes = st.integers(1, 90)


def encoded(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image whose every pixel tells its label."""
    return np.stack([mask, mask // 2, 255 - mask], axis=2)


def labelled(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 21, (height, width)).astype(np.uint8)


def apply(steps: list[T.Augmentation], mask: NDArray[np.uint8], seed: int) -> Any:
    np.random.seed(seed)
    both = T.AugInput(encoded(mask), sem_seg=mask)
    T.AugmentationList(steps)(both)
    return both


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, sizes, sizes, st.integers(0, 2**31))
def test_a_crop_is_a_window_or_padded(
    height: int, width: int, crop_height: int, crop_width: int, seed: int
) -> None:
    mask = labelled(height, width, seed)
    both = apply([CropOrPad((crop_height, crop_width), FILL, 255)], mask, seed)
    assert both.image.shape == (crop_height, crop_width, 3)
    assert both.sem_seg.shape == (crop_height, crop_width)
    assert both.image.dtype == both.sem_seg.dtype == np.uint8
    seen_height, seen_width = min(height, crop_height), min(width, crop_width)
    window = both.sem_seg[:seen_height, :seen_width]
    windows = np.lib.stride_tricks.sliding_window_view(mask, window.shape)
    assert (windows == window).all(axis=(2, 3)).any()
    outside = np.ones((crop_height, crop_width), bool)
    outside[:seen_height, :seen_width] = False
    assert (both.sem_seg[outside] == 255).all() and (both.image[outside] == FILL).all()
    np.testing.assert_array_equal(both.image[~outside], encoded(both.sem_seg)[~outside])


@pytest.mark.parametrize("seed", range(4))
def test_scaled_image_and_mask_stay_aligned(seed: int) -> None:
    """A mask of large areas and an image that tells it: only outlines are blurred."""
    mask = np.kron(labelled(5, 7, seed), np.ones((40, 40), np.uint8))
    both = apply(
        [RandomScale(0.5, 2), CropOrPad((200, 200), FILL, 255), T.RandomFlip()], mask, seed
    )
    kept = both.sem_seg != 255
    equal = (np.abs(both.image[..., 0].astype(int) - both.sem_seg) <= 1)[kept]
    assert equal.mean() > 0.9


def test_the_scale_is_a_ratio_of_the_images_own_size() -> None:
    ratios = []
    for seed in range(200):
        height, width = apply(
            [RandomScale(0.5, 2)], np.zeros((100, 150), np.uint8), seed
        ).sem_seg.shape
        assert abs(width / height - 1.5) < 0.02
        ratios.append(height / 100)
    assert 0.5 <= min(ratios) < 0.55 and 1.9 < max(ratios) <= 2
    assert abs(np.mean(ratios) - 1.25) < 0.1  # uniform


@pytest.mark.parametrize(
    ("size", "drawn", "expected"),
    [
        ((375, 500), 512.0, (512, 683)),  # 512 / 375 = 1.3653; 500 of these are 682.67
        ((500, 375), 1023.9, (1364, 1023)),  # whole numbers: 1023 / 375 = 2.728
        ((375, 500), 256.0, (256, 341)),
        ((100, 500), 300.0, (240, 1200)),  # the longer is 4 times 300 at most
        ((333, 500), 600.5, (600, 901)),
    ],
)
def test_the_shorter_side_is_drawn_and_the_longer_limited(
    size: tuple[int, int],
    drawn: float,
    expected: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """mmcv's rescale_size of (4 * drawn, drawn), by hand."""
    scale = augmentations(config(D8))[0]
    monkeypatch.setattr(np.random, "uniform", lambda low, high: drawn * (256 <= low < high <= 1024))
    step = scale.get_transform(np.zeros((*size, 3), np.uint8))
    assert (step.new_h, step.new_w) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [((375, 500), (512, 683)), ((500, 333), (769, 512)), ((100, 500), (410, 2048))],
)
def test_a_test_image_has_512_on_its_shorter_side(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    """mmcv's rescale_size of (2048, 512); the size that the prediction must have is the file's."""
    Image.new("RGB", size[::-1]).save(tmp_path / "a.png")
    record = {"file_name": str(tmp_path / "a.png"), "height": size[0], "width": size[1]}
    found = TestMapper(config(D8))(record)
    assert found["image"].shape == (3, *expected)
    assert (found["height"], found["width"]) == size


def largest_share(mask: NDArray[np.uint8]) -> float:
    """Of the pixels that are not ignored, those of the most frequent class."""
    counts = np.bincount(mask[mask != 255], minlength=21)
    return float(counts.max() / counts.sum())


def crop_of(name: str, mask: NDArray[np.uint8], seed: int) -> Any:
    """A crop of 64 by a config's own augmentations, but for the scale."""
    cfg = config(name, "INPUT.CROP.SIZE", [64, 64])
    return apply(augmentations(cfg)[1:], mask, seed).sem_seg


def test_no_class_has_over_three_quarters_of_a_crop() -> None:
    """Of a mask of which a third of the crops would have; the borders are ignored."""
    mask = np.zeros((160, 160), np.uint8)
    mask[:, 50:110] = 7
    mask[:, 48:52] = mask[:, 108:112] = 255
    free = [largest_share(crop_of(R50, mask, seed)) for seed in range(60)]
    held = [largest_share(crop_of(D8, mask, seed)) for seed in range(60)]
    assert 6 < sum(share >= 0.75 for share in free) < 40
    assert max(held) < 0.75


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(0, 2**31))
def test_where_no_crop_is_diverse_any_is_taken(height: int, width: int, seed: int) -> None:
    found = crop_of(D8, np.full((height, width), 5, np.uint8), seed)
    assert found.shape == (64, 64)
    assert (found == 5).sum() == min(height, 64) * min(width, 64)
    assert set(np.unique(found)) <= {5, 255}


def by_hand(
    pixel: NDArray[np.uint8],
    brightness: float,
    contrast: float,
    saturation: float | None,
    hue: int | None,
    contrast_last: bool,
) -> list[float]:
    """One RGB pixel in float64, through colorsys; OpenCV's bytes are round(180h), round(255s)."""

    def linear(values: Any, factor: float, offset: float = 0.0) -> list[float]:
        return [float(int(min(max(v * factor + offset, 0), 255))) for v in values]

    rgb = linear(pixel.tolist(), 1.0, brightness)
    if not contrast_last:
        rgb = linear(rgb, contrast)
    for changed in (saturation, None), (None, hue):
        if changed != (None, None):
            h, s, v = colorsys.rgb_to_hsv(*(value / 255 for value in rgb))
            h = (round(h * 180) % 180 + (changed[1] or 0)) % 180
            (s,) = linear([round(s * 255)], 1.0 if changed[0] is None else changed[0])
            rgb = [round(255 * value) for value in colorsys.hsv_to_rgb(h / 180, s / 255, v)]
    return linear(rgb, contrast) if contrast_last else rgb


@pytest.mark.parametrize(
    "drawn",
    [
        (20.3, 1.0, None, None, False),
        (-31.7, 1.37, None, None, False),
        (0.0, 0.5312, None, None, True),
        (0.0, 1.0, 1.42, None, False),
        (0.0, 1.0, 0.51, None, False),
        (0.0, 1.0, None, 17, False),
        (0.0, 1.0, None, -18, False),
        (12.5, 1.21, 0.8, -7, True),
        (-8.1, 0.66, 1.3, 11, False),
    ],
)
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_colours_are_distorted_as_by_hand(drawn: tuple[Any, ...], order: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (25, 20, 3), np.uint8)
    image[0, :3] = ((0, 0, 0), (255, 255, 255), (90, 90, 90))  # without a hue
    names = ("brightness", "contrast", "saturation", "hue", "contrast_last")
    step = 1 if order == "RGB" else -1
    given = np.ascontiguousarray(image[..., ::step])
    found = distort(given, order, **dict(zip(names, drawn, strict=True)))[..., ::step]
    expected = np.array([[by_hand(pixel, *drawn) for pixel in row] for row in image])
    off = np.abs(found - expected)
    # OpenCV computes in fixed point: a hue of k + 0.5 becomes either of two, 9 levels apart.
    assert (off <= 2).mean() > 0.97 and off.max() <= 12
    if drawn[2:4] == (None, None):
        assert not off.any()


def test_half_of_the_images_have_each_distortion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uniform in mmsegmentation's default ranges; a hue of +18 is not among them."""
    drawn: list[dict[str, float]] = []

    def distorted(image: Any, order: str, **kept: float) -> Any:
        drawn.append(kept)
        return image

    monkeypatch.setattr(module, "distort", distorted)
    image = np.zeros((2, 2, 3), np.uint8)
    np.random.seed(0)
    for _ in range(2000):
        module.PhotometricDistortion("RGB").get_transform(image).apply_image(image)
    neutral = {"brightness": 0.0, "contrast": 1.0, "saturation": None, "hue": None}
    ranges = {"brightness": (-32, 32), "contrast": (0.5, 1.5), "saturation": (0.5, 1.5),
              "hue": (-18, 17)}  # fmt: skip
    on = {name: np.array([d[name] != neutral[name] for d in drawn]) for name in neutral}
    on["contrast_last"] = np.array([d["contrast_last"] for d in drawn])
    for name, (low, high) in ranges.items():
        values = np.array([d[name] for d in drawn])[on[name]]
        assert low <= values.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.05 * (high - low)
    for one, other in itertools.combinations(on.values(), 2):
        assert 0.45 < one.mean() < 0.55 and 0.2 < (one & other).mean() < 0.3


def test_padding_is_not_distorted() -> None:
    """It comes last, to the right and the bottom, and is ignored."""
    overrides = ("INPUT.MIN_SIZE_TRAIN", (64, 65), "INPUT.CROP.SIZE", [90, 120])
    record = DatasetCatalog.get("demo_voc_2012_val_sem_seg")[0]
    mapper, means = SegmentationMapper(config(D8, *overrides)), []
    for seed in range(8):
        np.random.seed(seed)
        found = mapper(record)
        seen = found["sem_seg"] != 255
        height, width = int(seen.any(1).sum()), int(seen.any(0).sum())
        assert 64 <= height < 90 and 64 <= width < 120
        assert not seen[height:].any() and not seen[:, width:].any()
        outside = np.ones((90, 120), bool)
        outside[:height, :width] = False
        assert (found["image"].numpy().transpose(1, 2, 0)[outside] == FILL).all()
        means.append(found["image"][:, :height, :width].float().mean().item())
    assert max(means) - min(means) > 10


def test_a_record_becomes_a_crop() -> None:
    record = DatasetCatalog.get("demo_voc_2012_val_sem_seg")[0]
    mapper = SegmentationMapper(config(R50, "INPUT.MIN_SIZE_TRAIN", (1.0, 1.0),
                                       "INPUT.RANDOM_FLIP", "none"))  # fmt: skip
    found = mapper(record)
    with Image.open(record["file_name"]) as image, Image.open(record["sem_seg_file_name"]) as mask:
        width, height = image.size
        pixels, labels = np.array(image), np.array(mask)
    assert (found["width"], found["height"]) == (width, height)
    assert found["image"].shape == (3, 513, 513) and found["image"].dtype == torch.uint8
    assert found["sem_seg"].shape == (513, 513) and found["sem_seg"].dtype == torch.int64
    np.testing.assert_array_equal(found["sem_seg"][:height, :width], labels)
    np.testing.assert_array_equal(found["image"][:, :height, :width], pixels.transpose(2, 0, 1))
    assert (found["sem_seg"][height:] == 255).all() and (found["sem_seg"][:, width:] == 255).all()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("INPUT.MIN_SIZE_TRAIN_SAMPLING", "choice"), r"MIN_SIZE_TRAIN_SAMPLING is choice"),
        (("INPUT.MIN_SIZE_TRAIN", (640,)), r"MIN_SIZE_TRAIN \(640,\)"),
        (("INPUT.CROP.TYPE", "relative"), r"INPUT\.CROP\.TYPE is relative"),
        (("INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", "INPUT.MIN_SIZE_TRAIN", (9,)), "two lengths"),
    ],
)
def test_what_a_config_cannot_ask_for(overrides: tuple[Any, ...], message: str) -> None:
    assert len(augmentations(config(R50))) == 3
    with pytest.raises(UserError, match=message):
        augmentations(config(R50, *overrides))


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    """An image cut short, a mask in colours, one of another size, one that is missing."""
    (record,) = DatasetCatalog.get("demo_voc_2012_train_aug_sem_seg")[:1]
    mapper = SegmentationMapper(config("demo_voc_R_18_FCN"))
    (tmp_path / "cut.jpg").write_bytes(Path(record["file_name"]).read_bytes()[:900])
    with pytest.raises(UNREADABLE, match="truncated"):
        mapper(record | {"file_name": str(tmp_path / "cut.jpg")})
    Image.open(record["sem_seg_file_name"]).convert("RGB").save(tmp_path / "colours.png")
    Image.new("L", (9, 9)).save(tmp_path / "small.png")
    for name in ("colours", "small", "missing"):
        mask = str(tmp_path / f"{name}.png")
        with pytest.raises(UNREADABLE, match=mask):
            mapper(record | {"sem_seg_file_name": mask})
