"""Recommendation: a network gives every item a share of what a person likes, and is judged by where what it did not see stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from launch.config.experiment import Experiment
from launch.config.tasks.recommender_autoencoder import RecommenderAutoencoder
from trainers.data_facts import prepare_once, write_facts
from trainers.datasets import divide, load_splits
from trainers.models.own_networks import build_sized_network, save_sized_network
from trainers.ratings.dataset import PadItems, PeopleDataset, as_vectors, write_people
from trainers.ratings.likes import number_likes, read_catalogue, read_likes
from trainers.ratings.recommender import rank_unseen
from trainers.reading.rows import BadRows
from trainers.reports.rendering import escaped, table
from trainers.tasks import Batch

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

NUM_SHOWN, MAX_SHOWN_ITEMS = 6, 12
"""People, and items of each, that the report shows."""


def build_task(experiment: Experiment) -> RecommenderTask:
    """Returns the task with its ratings read; ranks that call this together share one preparation."""
    return RecommenderTask(experiment, *prepare_once(experiment, prepare))


class RecommenderTask:
    """See trainers.tasks.Task for what each method promises; a sample is a person, the loss is a wanted item's."""

    def __init__(self, experiment: Experiment, folder: Path, info: dict[str, Any]) -> None:
        assert isinstance(experiment.task, RecommenderAutoencoder)
        self.num_samples: dict[str, int] = info["num_samples"]
        self.fingerprint: str = info["fingerprint"]
        self.label_names: list[str] = []
        self.notes: list[str] = list(info["notes"])
        self.items: list[str] = info["items"]
        self.collate = PadItems(len(self.items))
        self.options = experiment.task
        self._popularity = torch.tensor(info["counts"], dtype=torch.float32)
        self._experiment = experiment
        self._folder = folder

    def dataset(self, split: str) -> PeopleDataset:
        hidden = self.options.input_dropout if split == "train" else self.options.held_out
        return PeopleDataset(self._folder / f"{split}.arrow", self.num_samples[split], self._experiment.seed, hidden, split == "train")

    def lengths(self, split: str) -> None:
        """All people cost the same: a score for every item."""
        return

    def build_model(self) -> nn.Module:
        return build_sized_network(self._experiment.model, {"num_items": len(self.items)}, self._experiment.seed)

    def train_loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        return self._losses(self._scores(model, batch), batch).sum(), self._num_wanted(batch).sum()

    def batch_count(self, batch: Batch) -> int:
        return int(self._num_wanted(batch).sum())

    def batch_size_stats(self, batch: Batch) -> tuple[int, int]:
        """People have no padding, and no tokens."""
        return 0, 0

    def evaluate_batch(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        scores, num_wanted = self._scores(model, batch), self._num_wanted(batch)
        popularity = self._popularity.to(scores.device).expand_as(scores)
        hits = (self._hits(ranked, batch) for ranked in (scores, popularity))
        return self._losses(scores, batch), num_wanted.sum(), (*hits, num_wanted)  # type: ignore[return-value]

    def build_metrics(self) -> MetricCollection:
        from torchmetrics import MetricCollection

        from trainers.ratings.ranking import Ndcg, Recall

        metrics = {"recall": Recall(), "ndcg": Ndcg(), "popularity_recall": Recall(of_popularity=True)}
        return MetricCollection(metrics, compute_groups=False)  # which takes metrics for one if their sums agree after the first batch

    def show_sample(self, split: str, index: int, folder: Path) -> str:
        """Returns what the network saw of a person, and what it had to find."""
        sample = self.dataset(split)[0, index]
        return f"likes {self._named(sample['seen'].tolist())}; held out: {self._named(sample['wanted'].tolist())}"

    def illustrate(self, model: nn.Module, split: str, place: Callable[[Batch], Batch], folder: Path | None) -> str:
        """Returns what a few people like beside what they are recommended; what they like indeed is bold."""
        samples, count = self.dataset(split), min(NUM_SHOWN, self.num_samples[split])
        people = [samples[0, number * self.num_samples[split] // count] for number in range(count)]
        batch = place(self.collate(people))
        best = rank_unseen(self._scores(model, batch), batch["seen"], min(self.options.top, MAX_SHOWN_ITEMS)).tolist()
        rows = []
        for person, numbers in zip(people, best, strict=True):
            wanted = set(person["wanted"].tolist())
            shown = ", ".join(f"**{escaped(self.items[n])}**" if n in wanted else escaped(self.items[n]) for n in numbers)
            rows.append((self._named(person["seen"].tolist()), shown, str(len(wanted))))
        return f"## Recommendations\n\nOf the {split} split; bold: held out, and liked indeed.\n\n" + table(
            ("likes", "recommended", "held out"), rows
        )

    def save(self, model: nn.Module, folder: Path, weights: Mapping[str, Tensor]) -> None:
        facts = {"items": self.items, "top": self.options.top}
        save_sized_network(self._experiment.model, {"num_items": len(self.items)}, facts, folder, weights)

    def _scores(self, model: nn.Module, batch: Batch) -> Tensor:
        scores: Tensor = model(as_vectors(batch["seen"], len(self.items))).float()
        return scores

    def _num_wanted(self, batch: Batch) -> Tensor:
        return (batch["wanted"] < len(self.items)).sum(dim=1)

    def _losses(self, scores: Tensor, batch: Batch) -> Tensor:
        """Returns minus the sum of the wanted items' log shares (the multinomial likelihood), float32 [B]."""
        return -(scores.log_softmax(dim=1) * as_vectors(batch["wanted"], len(self.items))).sum(dim=1)

    def _hits(self, scores: Tensor, batch: Batch) -> Tensor:
        best = rank_unseen(scores, batch["seen"], self.options.top)
        return (best[:, :, None] == batch["wanted"][:, None, :]).any(dim=2)

    def _named(self, numbers: list[int]) -> str:
        more = f" and {len(numbers) - MAX_SHOWN_ITEMS} more" if len(numbers) > MAX_SHOWN_ITEMS else ""
        return ", ".join(escaped(self.items[number]) for number in numbers[:MAX_SHOWN_ITEMS]) + more


def prepare(experiment: Experiment, folder: Path) -> None:
    """Reads the ratings, gathers what each person likes, cuts the people into splits, and writes them into `folder`.

    Raises:
        ConfigError: anything about the data that stops the training; with on_bad_row `stop`, every bad row.
    """
    options, data = experiment.task, experiment.data
    assert isinstance(options, RecommenderAutoencoder)
    bad_rows, left_out = BadRows(data.on_bad_row), Counter[str]()
    fields = {name: key for key, names in options.columns().items() for name in names}
    people = {}
    for name, split in load_splits(data, fields, bad_rows).items():
        people[name], counts = read_likes(split, options, bad_rows)
        left_out += counts
    bad_rows.check()
    counted = [f"{count} {what}" for what, count in left_out.most_common()]
    rows = divide(people, data, experiment.seed, left_out=counted)
    catalogue = read_catalogue(rows["train"], options.top)
    numbered, notes = number_likes(rows, catalogue)
    num_samples = {name: write_people(folder / f"{name}.arrow", likes) for name, likes in numbered.items()}
    notes = [f"{what} left out" for what in counted] + notes
    write_facts(folder, num_samples, notes, bad_rows, "rows", items=catalogue.names, counts=catalogue.counts)
