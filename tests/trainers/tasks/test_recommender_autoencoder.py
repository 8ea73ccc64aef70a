"""Recommendation: the loss against a sum by hand, people cut into splits, and what a run saves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from launch.config.errors import ConfigError
from launch.config.experiment import Experiment
from launch.config.sources import LocalPath
from launch.sizes.samples import count_train_samples
from tests.tiny_ratings import tiny_ratings
from trainers.ratings.recommender import load_recommender
from trainers.tasks.recommender_autoencoder import RecommenderTask, build_task


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))


def experiment(source: Path, **task: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "ratings",
            "model": {"class": "trainers.architectures.item_autoencoder:ItemAutoencoder", "kwargs": {"width": 8}},
            "task": {"kind": "recommender_autoencoder", "top": 3, "min_items": 3} | task,
            "data": {"source": str(source), "splits": {"validation": None}, "validation_fraction": 0.25},
            "train": {"duration": "1 epoch", "global_batch_size": 8},
            "optimizer": {"lr": 0.01},
        }
    )


def built(source: Path, **task: Any) -> RecommenderTask:
    return build_task(experiment(source, **task))


def test_a_sample_is_a_person_and_their_number_is_known_once_prepared(tmp_path):
    path = tiny_ratings(tmp_path / "ratings.csv", 40)
    assert "cut out of the rows" in str(count_train_samples(experiment(path), LocalPath(path)).reason)
    task = built(path)
    assert task.num_samples == {"train": 30, "validation": 10}
    assert count_train_samples(experiment(path), LocalPath(path)).num_samples == 30
    assert task.items == [f"{kind}{number}" for kind in ("even", "odd") for number in range(6)]


def test_the_loss_is_the_log_share_of_each_wanted_item(tmp_path):
    task = built(tiny_ratings(tmp_path / "ratings.csv", 40))
    num_items = len(task.items)
    batch = {"seen": torch.tensor([[0, num_items]]), "wanted": torch.tensor([[1, 2]])}
    scores = torch.arange(num_items, dtype=torch.float32)
    loss, count = task.train_loss(lambda _: scores[None], batch, 0.0)  # type: ignore[arg-type]
    total = sum(math.exp(number) for number in range(num_items))
    assert loss.item() == pytest.approx(2 * math.log(total) - 3, rel=1e-5)
    assert count.item() == task.batch_count(batch) == 2
    losses, _, (hits, popular, num_wanted) = task.evaluate_batch(lambda _: -scores[None], batch)  # type: ignore[arg-type]
    assert losses.shape == (1,)
    assert (hits.tolist(), num_wanted.tolist()) == ([[True, True, False]], [2])
    assert popular.shape == (1, 3)


def test_the_model_and_popularity_stay_apart_where_they_agree_at_first(tmp_path):
    metrics = built(tiny_ratings(tmp_path / "ratings.csv", 40)).build_metrics()
    hit, miss = torch.tensor([[True, False, False]]), torch.tensor([[False, False, False]])
    metrics.update(hit, hit, torch.tensor([1]))
    metrics.update(hit, miss, torch.tensor([1]))
    assert {name: float(value) for name, value in metrics.compute().items()} == {"recall": 1.0, "ndcg": 1.0, "popularity_recall": 0.5}


def test_what_a_run_saved_recommends_in_three_lines_what_goes_together(tmp_path):
    task = built(tiny_ratings(tmp_path / "ratings.csv", 40))
    model = task.build_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    for epoch in range(30):
        optimizer.zero_grad()
        loss, count = task.train_loss(model, task.collate([task.dataset("train")[epoch, index] for index in range(30)]), 0.0)
        (loss / count).backward()
        optimizer.step()
    task.save(model, tmp_path / "model", model.state_dict())
    recommend = load_recommender(tmp_path / "model")
    told = recommend(["odd0", "odd1"])
    assert len(told) == 3
    assert all(name.startswith("odd") for name in told)
    assert not {"odd0", "odd1"} & set(told)
    with pytest.raises(ValueError, match="no items of the training: 'neither'"):
        recommend(["neither"])
    metrics = task.build_metrics()
    metrics.update(*task.evaluate_batch(model, task.collate([task.dataset("validation")[0, index] for index in range(10)]))[2])
    computed = metrics.compute()
    assert computed["recall"] > computed["popularity_recall"]
    shown = task.illustrate(model, "validation", lambda batch: batch, None)
    assert "**odd" in shown or "**even" in shown
    assert task.show_sample("validation", 0, tmp_path).startswith("likes ")


def test_a_rating_that_is_no_number_stops_with_its_line(tmp_path):
    path = tiny_ratings(tmp_path / "ratings.csv", 40)
    with path.open("a") as file:
        file.write("p1,odd9,five\n")
    num_lines = len(path.read_text().splitlines())
    with pytest.raises(ConfigError) as error:
        built(path)
    assert f"{path}:{num_lines}: the rating 'five' is not a number" in str(error.value)


@pytest.mark.parametrize(
    ("task", "left_out"),
    [
        ({"min_rating": 9}, "60 ratings below task.min_rating 9, 10 people with fewer than 3 likes (task.min_items)"),
        ({"min_rating": 0, "min_items": 7}, "10 people with fewer than 7 likes (task.min_items)"),
    ],
)
def test_where_nobody_is_left_it_is_said_why(task: dict[str, Any], left_out: str, tmp_path: Path):
    with pytest.raises(ConfigError) as error:
        built(tiny_ratings(tmp_path / "ratings.csv", 10), **task)
    assert str(error.value).endswith(f"; left out: {left_out}")
