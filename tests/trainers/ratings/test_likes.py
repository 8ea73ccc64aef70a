"""Ratings become people and their likes; what cannot be used is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from launch.config.errors import ConfigError
from launch.config.tasks.recommender_autoencoder import RecommenderAutoencoder
from trainers.ratings.dataset import PadItems, PeopleDataset, as_vectors, write_people
from trainers.ratings.likes import LIKES, number_likes, read_catalogue, read_likes
from trainers.ratings.ranking import Ndcg, Recall
from trainers.ratings.recommender import rank_unseen
from trainers.reading.rows import BadRows, Split


def options(**values: Any) -> RecommenderAutoencoder:
    return RecommenderAutoencoder(kind="recommender_autoencoder", **{"min_items": 2} | values)


def ratings(*rows: tuple[Any, Any, Any]) -> Split:
    users, items, stars = (list(column) for column in zip(*rows, strict=True))
    return Split({"user": users, "item": items, "rating": stars}, "ratings.csv", range(2, 2 + len(rows)), is_text_file=True)


def people(*likes: list[str]) -> Split:
    return Split({LIKES: list(likes)}, "ratings.csv", range(len(likes)), is_text_file=False)


def test_likes_are_gathered_by_person_and_what_is_left_out_is_counted():
    split = ratings(("ann", "x", "5"), ("bob", "x", 4.0), (3, "y", "5"), ("ann", "y", 2), ("ann", "z", "4"), ("bob", "y", 5))
    found, left_out = read_likes(split, options(), BadRows("stop"))
    assert found.columns[LIKES] == [["x", "z"], ["x", "y"]]
    assert dict(left_out) == {"ratings below task.min_rating 4": 1, "people with fewer than 2 likes (task.min_items)": 1}
    found, _ = read_likes(split, options(rating=None), BadRows("stop"))
    assert found.columns[LIKES] == [["x", "y", "z"], ["x", "y"]]


def test_bad_ratings_are_named_with_their_lines():
    bad_rows = BadRows("skip")
    read_likes(ratings(("ann", "x", 5), (" ", "x", 5), ("ann", None, 5), ("ann", "y", "good"), ("ann", "x", 4)), options(), bad_rows)
    assert [(problem.where, problem.what) for problem in bad_rows.problems] == [
        ("ratings.csv:3", "the user is empty"),
        ("ratings.csv:4", "the item is empty"),
        ("ratings.csv:5", "the rating 'good' is not a number"),
        ("ratings.csv:6", "user 'ann' has rated item 'x' already: ratings.csv:2"),
    ]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (("ann", "x", 10**400), f"the rating 1{'0' * 76}... is not a number"),
        (("ann", "x", "5_0"), "the rating '5_0' is not a number"),
        (("ann", "x", True), "the rating True is not a number"),
        (([1, 2], "x", 5), "the user [1, 2] is not one name"),
        (("ann", {"a": 1}, 5), "the item {'a': 1} is not one name"),
    ],
)
def test_what_is_no_rating_is_no_rating(row: tuple[Any, Any, Any], told: str):
    bad_rows = BadRows("skip")
    read_likes(ratings(row), options(), bad_rows)
    assert [problem.what for problem in bad_rows.problems] == [told]


def test_only_items_of_the_train_split_can_be_recommended():
    rows = {"train": people(["x", "y"], ["y", "z"]), "validation": people(["y", "new", "x"], ["z", "new"])}
    catalogue = read_catalogue(rows["train"], top=2)
    assert (catalogue.names, catalogue.counts) == (["x", "y", "z"], [1, 2, 1])
    numbered, notes = number_likes(rows, catalogue)
    assert numbered == {"train": [[0, 1], [1, 2]], "validation": [[0, 1]]}
    assert notes == [
        "2 likes of the validation split left out: nobody of the train split likes the item",
        "1 people of the validation split left out: fewer than two likes remain",
    ]
    with pytest.raises(ConfigError, match="nobody of the test split likes two items"):
        number_likes(rows | {"test": people(["new", "x"])}, catalogue)
    with pytest.raises(ConfigError, match="3 recommendations count, and the train split has 3 items"):
        read_catalogue(rows["train"], top=3)


def test_what_is_hidden_is_decided_by_seed_epoch_and_index(tmp_path):
    write_people(tmp_path / "a.arrow", [list(range(10)), [3, 5]])
    train = PeopleDataset(tmp_path / "a.arrow", 2, seed=1, hidden=0.5, is_training=True)
    seen = [tuple(train[epoch, 0]["seen"].tolist()) for epoch in (0, 1, 2, 0)]
    assert seen[0] == seen[3]
    assert len(set(seen)) == 3
    assert train[7, 0]["wanted"].tolist() == list(range(10))
    judged = PeopleDataset(tmp_path / "a.arrow", 2, seed=1, hidden=0.3, is_training=False)
    sample = judged[0, 0]
    assert (len(sample["seen"]), len(sample["wanted"])) == (7, 3)
    assert sorted([*sample["seen"].tolist(), *sample["wanted"].tolist()]) == list(range(10))
    assert torch.equal(judged[4, 0]["wanted"], sample["wanted"])
    assert [len(judged[0, 1][name]) for name in ("seen", "wanted")] == [1, 1]


def test_padding_is_no_item():
    batch = PadItems(4)([{"seen": torch.tensor([1]), "wanted": torch.tensor([0, 3])}, {"seen": torch.tensor([0, 2, 3]), "wanted": torch.tensor([1])}])
    assert batch["seen"].tolist() == [[1, 4, 4], [0, 2, 3]]
    assert as_vectors(batch["seen"], 4).tolist() == [[0, 1, 0, 0], [1, 0, 1, 1]]


def test_what_was_seen_is_not_recommended():
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4]])
    assert rank_unseen(scores, torch.tensor([[0, 4], [3, 2]]), top=2).tolist() == [[1, 2], [1, 0]]


def test_recall_and_ndcg_have_exact_values():
    hits = torch.tensor([[True, False, True], [False, False, False]])
    popular = torch.tensor([[False, False, False], [True, True, True]])
    num_wanted = torch.tensor([2, 5])
    measured = {}
    for name, metric in {"recall": Recall(), "popular": Recall(of_popularity=True), "ndcg": Ndcg()}.items():
        metric.update(hits[:1], popular[:1], num_wanted[:1])
        metric.update(hits[1:], popular[1:], num_wanted[1:])
        measured[name] = float(metric.compute())
    assert measured == {"recall": 0.5, "popular": 0.5, "ndcg": pytest.approx((1 + 0.5) / (1 + 0.6309298) / 2)}
