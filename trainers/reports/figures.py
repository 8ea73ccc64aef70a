"""Draws the pictures of a report: the learning curve, a confusion matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6B7280"
"""Told apart by people with any colour vision (Okabe and Ito, 2008)."""

MANY_COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#111827")
_LINES = ("-", "--", ":")

MOST_CLASSES_WITH_NUMBERS = 12
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.labelcolor": "#374151",
    "axes.edgecolor": "#9CA3AF",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E5E7EB",
    "grid.linewidth": 0.8,
    "xtick.color": "#4B5563",
    "ytick.color": "#4B5563",
    "text.color": "#111827",
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "savefig.dpi": 160,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.constrained_layout.h_pad": 0.1,
}

Records = Sequence[dict[str, Any]]


def draw_learning_curve(path: Path, records: Records, metric: str, mode: str) -> None:
    """Writes the losses, and below them the metric that "best" looks at (where it was evaluated), over optimizer steps."""
    train = [record for record in records if record["split"] == "train"]
    validation = [record for record in records if record["split"] == "validation"]
    judged = [record for record in validation if metric in record and metric != "loss"]
    with _styled():
        figure = Figure(figsize=(7.2, 5.2 if judged else 3.4), layout="constrained")
        panels = list(figure.subplots(2 if judged else 1, 1, sharex=True, squeeze=False, height_ratios=[3, 2] if judged else [1])[:, 0])
        _draw_loss(panels[0], train, validation)
        if judged:
            _draw_metric(panels[1], judged, metric, mode)
        panels[-1].set_xlabel("optimizer step")
        panels[-1].set_xlim(0, max(record["step"] for record in records) * 1.02)
        panels[-1].xaxis.get_major_locator().set_params(integer=True)
        _mark_epochs(panels, records)
        _mark_attempts(panels, records)
        figure.savefig(path)


def draw_confusion_matrix(path: Path, counts: Sequence[Sequence[int]], label_names: Sequence[str], title: str) -> None:
    """Writes a confusion matrix: rows are the true classes; shade and percentage are shares of a row."""
    totals = [sum(row) for row in counts]
    shares = [[count / total if total else 0.0 for count in row] for row, total in zip(counts, totals, strict=True)]
    size = len(label_names)
    is_small = size <= MOST_CLASSES_WITH_NUMBERS
    with _styled({"axes.grid": False, "axes.spines.left": False, "axes.spines.bottom": False}):
        side = min(2.6 + 0.75 * size, 9.0)
        figure = Figure(figsize=(side + 1.0, side), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        if is_small:
            _write_cells(axes, counts, shares)
        names = [_short(name) for name in label_names]
        is_slanted = size > 4 and max(map(len, names)) > 3
        axes.set_xticks(range(size), names, rotation=45 if is_slanted else 0, ha="right" if is_slanted else "center")
        rows = [f"{_short(name)}\nn = {total:,}" if is_small else _short(name) for name, total in zip(label_names, totals, strict=True)]
        axes.set_yticks(range(size), rows)
        axes.tick_params(labelsize=None if is_small else min(8.5, 260 / size))
        axes.set_xticks([edge - 0.5 for edge in range(1, size)], minor=True)
        axes.set_yticks([edge - 0.5 for edge in range(1, size)], minor=True)
        axes.grid(which="minor", color="white", linewidth=2.5 if is_small else 0.5)
        axes.tick_params(which="both", length=0)
        axes.set(xlabel="predicted", ylabel="true", title=title)
        bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=24, format=mpl.ticker.PercentFormatter(1.0))
        bar.outline.set_visible(False)
        bar.set_label("share of the true class")
        figure.savefig(path)


def draw_comparison(path: Path, runs: dict[str, Records]) -> None:
    """Writes the training losses of several runs over each other, and below them the validation losses where there are any."""
    splits = [split for split in ("train", "validation") if any(record["split"] == split for records in runs.values() for record in records)]
    with _styled():
        figure = Figure(figsize=(7.6, 3.0 * len(splits) + 0.6), layout="constrained")
        panels = list(figure.subplots(len(splits), 1, sharex=True, squeeze=False)[:, 0])
        for axes, split in zip(panels, splits, strict=True):
            for number, (name, records) in enumerate(runs.items()):
                points = [(record["step"], record["loss"]) for record in records if record["split"] == split and "loss" in record]
                losses = [loss for _, loss in points]
                shown = smoothed(losses, 1 - 1 / min(max(len(losses) / 12, 2.5), 25)) if split == "train" and len(losses) >= 10 else losses
                line, marker = _LINES[number // len(MANY_COLOURS) % len(_LINES)], "o" if len(points) < 10 else None
                look = {"color": MANY_COLOURS[number % len(MANY_COLOURS)], "linestyle": line, "marker": marker}
                axes.plot([step for step, _ in points], shown, linewidth=1.8, markersize=4, label=_short(name), **look)
            axes.set(title="Training loss (smoothed)" if split == "train" else "Validation loss")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
        panels[-1].set_xlabel("optimizer step")
        panels[-1].set_xlim(left=0)
        figure.savefig(path)


def smoothed(values: Sequence[float], weight: float = 0.9) -> list[float]:
    """Returns the mean of the exponential moving averages from both ends, so that a falling curve is not shown later than it fell."""
    ways = zip(_averaged(values, weight), reversed(_averaged(values[::-1], weight)), strict=True)
    return [(before + after) / 2 for before, after in ways]


def _averaged(values: Sequence[float], weight: float) -> list[float]:
    """Returns the exponential moving average, corrected for its start (Kingma and Ba, 2015)."""
    average, result = 0.0, []
    for count, value in enumerate(values, start=1):
        average = weight * average + (1 - weight) * value
        result.append(average / (1 - weight**count))
    return result


@contextmanager
def _styled(changes: dict[str, Any] | None = None) -> Iterator[None]:
    """No pyplot and no global state: works in any thread and without a display."""
    with mpl.rc_context(_STYLE | (changes or {})):
        yield


def _draw_loss(axes: Axes, train: Records, validation: Records) -> None:
    steps, losses = [record["step"] for record in train], [record["loss"] for record in train]
    if len(train) >= 10:
        axes.plot(steps, losses, color=BLUE, alpha=0.28, linewidth=1, label="training")
        axes.plot(steps, smoothed(losses, 1 - 1 / min(max(len(losses) / 12, 2.5), 25)), color=BLUE, linewidth=2, label="smoothed")
    elif train:
        axes.plot(steps, losses, color=BLUE, linewidth=2, marker="o", markersize=4, label="training")
    if validation:
        points = [record["step"] for record in validation], [record["loss"] for record in validation]
        axes.plot(*points, color=ORANGE, linewidth=1.6, marker="o", markersize=5.5, markeredgecolor="white", label="validation")
    axes.set(title="Loss")
    if train or validation:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2)  # beside the title: no curve is there


def _draw_metric(axes: Axes, judged: Records, metric: str, mode: str) -> None:
    steps, values = [record["step"] for record in judged], [record[metric] for record in judged]
    axes.plot(steps, values, color=ORANGE, linewidth=1.6, marker="o", markersize=5.5, markeredgecolor="white")
    best = (max if mode == "max" else min)(range(len(values)), key=values.__getitem__)
    axes.plot(steps[best], values[best], "o", markersize=11, markerfacecolor="none", markeredgecolor=GREEN, markeredgewidth=1.8)
    right = steps[best] > 0.6 * steps[-1]
    axes.annotate(
        f"best {values[best]:.4f} at step {steps[best]:,}",
        (steps[best], values[best]),
        xytext=(-8 if right else 8, 13 if mode == "max" else -13),  # on the side where no other point is
        textcoords="offset points",
        ha="right" if right else "left",
        va="center",
        color=GREEN,
        fontweight="bold",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
    )
    axes.margins(y=0.25)
    axes.set(title=f"Validation {metric}")


def _mark_epochs(panels: Sequence[Axes], records: Records) -> None:
    """Draws a line at the end of each epoch but the last, while there are few enough to see."""
    last = max(records, key=lambda record: record["step"])
    if not last.get("epoch"):
        return
    steps_per_epoch = last["step"] / last["epoch"]
    ends = [epoch * steps_per_epoch for epoch in range(1, int(last["epoch"] - 1e-6) + 1)]
    for axes in panels if len(ends) <= 20 else ():
        for end in ends:
            axes.axvline(end, color="#9CA3AF", linewidth=0.9, linestyle=(0, (2, 3)), zorder=0.5)
    if 0 < len(ends) <= 20:
        panels[0].annotate(
            "end of epoch 1",
            (ends[0], 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -2),
            textcoords="offset points",
            va="top",
            color=GREY,
            fontsize=8,
        )


def _mark_attempts(panels: Sequence[Axes], records: Records) -> None:
    """Draws a line where each later attempt went on."""
    starts = {attempt: min(record["step"] for record in records if record.get("attempt") == attempt) for attempt in _attempts(records)[1:]}
    for number, (attempt, step) in enumerate(starts.items()):
        for axes in panels:
            axes.axvline(step, color=GREEN, linewidth=0.9, alpha=0.5, zorder=0.6)
        if len(starts) <= 6:
            panels[0].annotate(
                f"attempt {attempt}",
                (step, 0),
                xycoords=("data", "axes fraction"),
                xytext=(3, 3 + 10 * (number % 2)),
                textcoords="offset points",
                va="bottom",
                color=GREEN,
                fontsize=8,
            )


def _attempts(records: Records) -> list[int]:
    return sorted({record["attempt"] for record in records if "attempt" in record})


def _write_cells(axes: Axes, counts: Sequence[Sequence[int]], shares: Sequence[Sequence[float]]) -> None:
    size = 11 if len(counts) <= 4 else 8.5 if len(counts) <= 8 else 7
    for row, (row_counts, row_shares) in enumerate(zip(counts, shares, strict=True)):
        for column, (count, share) in enumerate(zip(row_counts, row_shares, strict=True)):
            axes.text(
                column,
                row,
                f"{count:,}\n{100 * share:.1f} %",
                ha="center",
                va="center",
                color="white" if share > 0.55 else "#111827",
                fontsize=size,
                fontweight="bold" if row == column else "normal",
                linespacing=1.4,
            )


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"
