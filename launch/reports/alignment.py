"""Alignment maps of a LEWEL pre-training: where each head of the neck pools from."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from common import checkpoints
from common.errors import UserError
from common.run_checkpoints import newest_first
from pretrain.augment import IMAGENET_MEAN, IMAGENET_STD
from pretrain.config import ResolvedConfig
from pretrain.data.images import UNREADABLE
from pretrain.data.locate import open_validation
from pretrain.lewel import Encoder
from pretrain.train import build

GREY = "#8a8a8a"  # of words that are read on white and on black
COUNT = 3  # images by default


class Stage(NamedTuple):
    """A state of the encoder, and its alignment maps of some images."""

    name: str
    maps: Tensor  # (b, heads, dim / heads, h, w), each adding up to 1


def stages(folder: Path, images: Sequence[Image.Image], size: int) -> list[Stage]:
    """The maps of a run's initial weights, and of the checkpoints that it has, oldest first.

    The online network computes them, which is the one that transfers, in eval mode, at images of
    ``size`` pixels a side. Nothing for methods without such maps.

    Raises:
        UserError: if the folder has no checkpoint, or none can be read.
    """
    paths = newest_first(folder, "checkpoint", ".pth.tar")[::-1]
    if not paths:
        raise UserError(f"{folder} has no checkpoint yet; alignment maps need one.")
    inputs = torch.stack([_tensor(image, size) for image in images])
    found: list[Stage] = []
    for path in paths:
        try:
            state = checkpoints.load(path)
        except UserError:  # cut short, or replaced just now by a newer one
            if path == paths[-1] and not found:
                raise
            continue
        names = {field.name for field in fields(ResolvedConfig)}
        config = ResolvedConfig(**{k: v for k, v in state["config"].items() if k in names})
        torch.manual_seed(config.seed)  # as the run began
        model: Any = build(config)
        encoder = getattr(model, "online_net", None)
        if not isinstance(encoder, Encoder):
            return []
        if not found:
            found.append(Stage("initialisation", _maps(encoder, inputs)))
        model.load_state_dict(
            {k.removeprefix("module."): v for k, v in state["state_dict"].items()}
        )
        found.append(Stage(f"epoch {state['epoch']}", _maps(encoder, inputs)))
    return found


@torch.no_grad()
def _maps(encoder: Encoder, inputs: Tensor) -> Tensor:
    features = encoder.eval().backbone(inputs)
    _, maps = encoder.neck.align(features.flatten(2))
    return maps.unflatten(3, features.shape[2:])


def _tensor(image: Image.Image, size: int) -> Tensor:
    steps = [
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]
    return v2.Compose(steps)(square(image, size))


def square(image: Image.Image, size: int) -> Image.Image:
    """The centre of an image, ``size`` pixels a side."""
    resized: Image.Image = v2.functional.resize(image, [size], antialias=True)
    cropped: Image.Image = v2.functional.center_crop(resized, [size, size])
    return cropped


def chosen(maps: Tensor) -> list[int]:
    """Of each head the map that is the least uniform over all images; (heads,) indices."""
    return [int(i) for i in maps.flatten(3).var(3).mean(0).argmax(1)]


def draw(
    images: Sequence[Image.Image],
    found: Sequence[Stage],
    size: int,
    only: int | None = None,
    inches: float = 0.95,
) -> Image.Image:
    """A row for every image, or ``only`` one, and stage: the image, and a map of each head over it.

    The map is the same in all rows: of each head the least uniform one at the last stage. Colours
    run from a map's least to its greatest weight, which is told in multiples of a uniform one.
    """
    which = chosen(found[-1].maps)
    numbers = range(len(images)) if only is None else [only]
    rows, columns = len(numbers) * len(found), 1 + len(which)
    with matplotlib.rc_context({"font.size": 7, "text.color": GREY, "axes.labelcolor": GREY}):
        tight = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
        figure = Figure((inches * columns + 0.2, inches * rows + 0.2), layout=tight)
        axes = figure.subplots(rows, columns, squeeze=False)
        for row, (image, stage) in enumerate((i, s) for i in numbers for s in found):
            plain = np.asarray(square(images[image], size))
            axes[row, 0].imshow(plain)
            axes[row, 0].set_ylabel(stage.name)
            for head, (index, cell) in enumerate(zip(which, axes[row, 1:], strict=True)):
                weights = stage.maps[image, head, index]
                cell.imshow(_overlaid(plain, weights))
                peak = float(weights.max()) * weights.numel()
                cell.text(
                    0.03, 0.04, f"{peak:.2f}×", color="white", transform=cell.transAxes,
                    bbox={"facecolor": "black", "alpha": 0.55, "pad": 1, "linewidth": 0},
                )  # fmt: skip
                if row == 0:
                    cell.set_title(f"head {head + 1}, map {index + 1}", fontsize=7, pad=2)
        for cell in axes.flat:
            cell.set(xticks=[], yticks=[])
            cell.spines[:].set_visible(False)
        return rendered(figure)


def _overlaid(plain: NDArray[np.uint8], weights: Tensor) -> NDArray[np.float64]:
    """A map in colours over the grey image, (size, size, 3)."""
    sized = F.interpolate(weights[None, None], size=plain.shape[:2], mode="bicubic")[0, 0]
    scaled = (sized - weights.min()) / (weights.max() - weights.min()).clamp(min=1e-12)
    heat = matplotlib.colormaps["inferno"](scaled.clamp(0, 1).numpy())[..., :3]
    grey = plain.mean(2, keepdims=True) / 255
    mixed: NDArray[np.float64] = 0.4 * grey + 0.6 * heat
    return mixed


def rendered(figure: Figure, dpi: int = 130) -> Image.Image:
    """A figure's pixels, on a transparent ground."""

    figure.set_dpi(dpi)
    figure.patch.set_alpha(0)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba()))


def default_images(config: dict[str, Any], count: int = COUNT) -> list[Image.Image]:
    """A run's validation images, evenly spaced.

    A UserError if they are not on this machine.
    """
    try:
        source = open_validation(config["data"], config.get("val_data"))
    except (UserError, OSError) as error:
        raise UserError(f"its validation images are not on this machine ({error})") from error
    if source is None:
        raise UserError("it has no validation images")
    indices = np.linspace(0, len(source) - 1, count + 2).astype(int)[1:-1]
    images = [image for image in source.load(list(indices)) if image is not None]
    if not images:
        raise UserError(f"none of the images chosen of {source.description} can be read")
    return images


def read_images(paths: Iterable[Path]) -> list[Image.Image]:
    """Images as RGB; a UserError for one that cannot be read."""
    found = []
    for path in paths:
        try:
            with Image.open(path) as image:
                found.append(image.convert("RGB"))
        except UNREADABLE as error:
            raise UserError(f"{path} cannot be read as an image: {error}.") from error
    return found
