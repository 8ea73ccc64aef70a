"""Pictures with what is marked in them: the category of each pixel in colours, boxes with their names."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray
from torch import Tensor

from trainers.images.transforms import IGNORED

NUM_SHOWN = 4
"""Pictures of a split that the report shows."""
_MOST_NAMED = 24
_COLUMN_INCHES, _OPACITY, _GOLDEN = 3.2, 0.65, 0.618034


def spread(num_samples: int, count: int) -> list[int]:
    """Returns `count` samples from all over a split, or all there are."""
    count = min(count, num_samples)
    return [number * num_samples // count for number in range(count)]


def draw_masks(path: Path, rows: Sequence[tuple[Tensor, ...]], label_names: Sequence[str], titles: Sequence[str]) -> None:
    """Writes a row a picture: itself, and once more under each of its masks.

    Args:
        rows: pixels, uint8 [C, H, W], and masks, [H, W], each.
    """
    figure, panels = _panels([row[0] for row in rows], titles)
    areas = np.bincount(np.concatenate([mask.numpy().ravel() for _, *masks in rows for mask in masks]), minlength=IGNORED + 1)[:IGNORED]
    by_area = np.argsort(-areas, kind="stable")
    colours = np.zeros((IGNORED + 1, 3))
    colours[by_area] = [colour_of(rank) for rank in range(IGNORED)]  # what covers most stands first, and its neighbours look most unlike
    for axes, (pixels, *masks) in zip(panels, rows, strict=True):
        plain = _as_picture(pixels)
        axes[0].imshow(plain)
        for panel, mask in zip(axes[1:], masks, strict=True):
            panel.imshow(_coloured(plain, mask.numpy(), colours))
    named = [int(number) for number in by_area[:_MOST_NAMED] if areas[number]]
    figure.legend(
        handles=[Patch(color=colours[number], label=label_names[number]) for number in named],
        loc="outside lower center",
        ncols=min(3 * len(titles) // 2, max(len(named), 1)),  # names of 20 letters fit
        frameon=False,
        fontsize=8,
    )
    _save(figure, path)


def draw_boxes(path: Path, rows: Sequence[tuple[Tensor, Sequence[Mapping[str, Any]]]], label_names: Sequence[str], titles: Sequence[str]) -> None:
    """Writes a row a picture, once with each of its sets of boxes.

    Args:
        rows: pixels, uint8 [C, H, W], and sets of boxes, [N, 4], corners, with labels, [N], from 1, and perhaps scores or is_crowd, [N]; the
            box of a crowd is dashed.
    """
    figure, panels = _panels([pixels for pixels, _ in rows], titles)
    for axes, (pixels, sets) in zip(panels, rows, strict=True):
        for panel, boxes in zip(axes, sets, strict=True):
            panel.imshow(_as_picture(pixels))
            _add_boxes(panel, boxes, label_names)
    _save(figure, path)


def colour_of(number: int) -> tuple[float, float, float]:
    """Returns the colour of a category, red, green and blue from 0 to 1: neighbours are far apart on the circle of hues."""
    return colorsys.hsv_to_rgb(number * _GOLDEN % 1.0, (0.9, 0.6, 0.75)[number % 3], (0.95, 0.85, 0.65)[number // 3 % 3])


def _add_boxes(panel: Axes, boxes: Mapping[str, Any], label_names: Sequence[str]) -> None:
    labels = boxes["labels"].tolist()
    scores = [f" {score:.2f}" for score in boxes["scores"].tolist()] if "scores" in boxes else [""] * len(labels)
    lines = ["--" if is_crowd else "-" for is_crowd in boxes["is_crowd"].tolist()] if "is_crowd" in boxes else ["-"] * len(labels)
    for (left, top, right, bottom), label, score, line in zip(boxes["boxes"].tolist(), labels, scores, lines, strict=True):
        colour, said = colour_of(label - 1), label_names[label - 1] + score
        panel.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.6, linestyle=line))
        box = {"facecolor": colour, "edgecolor": "none", "pad": 0.8}
        panel.text(left, top, said, fontsize=6.5, color="white", va="bottom", bbox=box, parse_math=False, clip_on=True)


def _panels(pictures: Sequence[Tensor], titles: Sequence[str]) -> tuple[Figure, Any]:
    """Returns a figure, and its panels, [pictures][titles]; each row has the height of its picture, within reason."""
    heights = [_COLUMN_INCHES * min(picture.shape[-2] / picture.shape[-1], 1.4) for picture in pictures]
    figure = Figure(figsize=(_COLUMN_INCHES * len(titles), sum(heights) + 0.6), layout="constrained")
    panels = figure.subplots(len(pictures), len(titles), squeeze=False, height_ratios=heights)
    for axes in panels.flat:
        axes.axis("off")
    for axes, title in zip(panels[0], titles, strict=True):
        axes.set_title(title, fontsize=10)
    return figure, panels


def _as_picture(pixels: Tensor) -> NDArray[np.uint8]:
    """Returns uint8 [H, W, 3]."""
    return np.asarray(pixels.expand(3, -1, -1).permute(1, 2, 0).numpy())


def _coloured(plain: NDArray[np.uint8], mask: NDArray[np.integer[Any]], colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the picture in grey under the colours of its categories, [256, 3], as float [H, W, 3] from 0 to 1; grey alone where none is known."""
    grey = np.repeat(plain.mean(axis=2, keepdims=True) / 255, 3, axis=2)
    strength = np.where(mask == IGNORED, 0.0, _OPACITY)[:, :, None]
    return grey * (1 - strength) + colours[mask] * strength


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
