"""The part of a report that shows what a classifier looked at: coloured words, pictures with the places that counted."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainers.reports.rendering import escaped, table

NUM_EXPLAINED = 4
"""Samples of a split that the report explains."""
MAX_TOKENS = 160
"""Of a text; what stands behind is not drawn."""
CHARACTERS_A_LINE = 88


def explained_indices(num_samples: int) -> list[int]:
    """Returns samples from all over a split."""
    count = min(NUM_EXPLAINED, num_samples)
    return [number * num_samples // count for number in range(count)]


def draw_words(path: Path, words: Sequence[str], added: Sequence[float]) -> None:
    """Writes the words of a text, green where they speak for the class and purple where against; the darkest is the one that counts most."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    lines, places = 0, list[tuple[int, int]]()
    column = 0
    for word in words[:MAX_TOKENS]:
        if column and column + len(word) > CHARACTERS_A_LINE:
            lines, column = lines + 1, 0
        places.append((lines, column))
        column += len(word) + 1
    largest = max(map(abs, added), default=0.0) or 1.0
    figure = Figure(figsize=(9.0, 0.34 * (lines + 1) + 0.1))
    axes = figure.add_axes((0.01, 0.0, 0.98, 1.0))
    axes.set(xlim=(0, CHARACTERS_A_LINE + 1), ylim=(lines + 0.75, -0.75))
    axes.axis("off")
    for word, share, (line, start) in zip(words, added, places, strict=False):
        colour = colormaps["PRGn"](0.5 + 0.35 * share / largest)
        box = {"facecolor": colour, "edgecolor": "none", "boxstyle": "square,pad=0.15"}
        axes.text(start + 0.5, line, word, family="DejaVu Sans Mono", fontsize=10.5, va="center", bbox=box, parse_math=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(action="ignore"):  # of letters that the font lacks: they are boxes
        figure.savefig(path, dpi=120)


def draw_places(path: Path, pixels: Tensor, places: Tensor) -> None:
    """Writes a picture, and beside it the same with the places that counted: uint8 [C, H, W], float [H, W] from 0 to 1."""
    from matplotlib import colormaps
    from PIL import Image

    plain = pixels.expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()
    heat = (colormaps["inferno"](places.cpu().numpy())[..., :3] * 255).astype(np.uint8)
    mixed = (0.45 * plain + 0.55 * heat).astype(np.uint8)
    both = np.concatenate([plain, mixed], axis=1)
    scale = max(1, 160 // both.shape[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(both).resize((both.shape[1] * scale, both.shape[0] * scale), Image.Resampling.NEAREST).save(path)


def explained_texts(split: str, folder: Path, samples: Sequence[dict[str, Any]]) -> str:
    """Returns the section, after drawing each sample.

    Args:
        samples: index, words, added (of each word, to the logit of `predicted`), predicted, label, logit, baseline (of the text without words).
    """
    rows = []
    for sample in samples:
        path = folder / f"{split}-words-{sample['index']}.png"
        draw_words(path, sample["words"], sample["added"])
        order = np.argsort([-abs(share) for share in sample["added"]])[:3]
        strongest = ", ".join(f"{escaped(sample['words'][number])} {sample['added'][number]:+.2f}" for number in order)
        link = f"![words of {split} {sample['index']}]({folder.name}/{path.name})"
        gained = f"{sample['baseline']:+.2f} → {sample['logit']:+.2f} (words: {sum(sample['added']):+.2f})"
        rows.append((link, escaped(sample["predicted"]), escaped(sample["label"]), gained, strongest))
    told = (
        f"Of the {split} split, by integrated gradients: how much each word adds to the logit of the predicted class (green) "
        "or takes from it (purple), beginning from the text without words."
    )
    return f"## What the model looks at\n\n{told}\n\n" + table(("text", "predicted", "true", "logit without words → with them", "strongest"), rows)


def explained_pictures(split: str, folder: Path, samples: Sequence[dict[str, Any]]) -> str:
    """Returns the section, after drawing each sample: index, pixels (uint8 [C, H, W]), places (float [H, W]), predicted, label."""
    rows = []
    for sample in samples:
        path = folder / f"{split}-places-{sample['index']}.png"
        draw_places(path, sample["pixels"], sample["places"])
        link = f"![places of {split} {sample['index']}]({folder.name}/{path.name})"
        rows.append((link, escaped(sample["predicted"]), escaped(sample["label"])))
    told = f"Of the {split} split, by Grad-CAM: the places that speak for the predicted class, bright."
    return f"## What the model looks at\n\n{told}\n\n" + table(("picture", "predicted", "true"), rows)


def pieces(tokenizer: Any, ids: Tensor) -> tuple[list[str], Tensor]:
    """Returns the tokens of a text as they are written, and which of them are special, bool [T]."""
    special = torch.tensor([number in tokenizer.all_special_ids and number != tokenizer.unk_token_id for number in ids.tolist()])
    words = [tokenizer.convert_tokens_to_string([token]).strip() or token for token in tokenizer.convert_ids_to_tokens(ids.tolist())]
    return words, special
