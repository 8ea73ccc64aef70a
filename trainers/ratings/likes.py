"""Turns rows of ratings into people and what each of them likes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launch.config.errors import ConfigError, Problem
from launch.config.tasks.recommender_autoencoder import RecommenderAutoencoder
from trainers.reading.numbers import parse_number
from trainers.reading.rows import BadRows, Split, shortened

LIKES = "likes"
"""Column of a split of people: the names of the items that each likes, in the order of the source."""


def read_likes(split: Split, options: RecommenderAutoencoder, bad_rows: BadRows) -> tuple[Split, Counter[str]]:
    """Returns a split whose rows are people, and how many ratings and people were left out, in words.

    Rows without a person, an item or a number, and a second rating of an item by the same person, go to `bad_rows`.
    """
    places: dict[str, dict[str, int]] = {}
    likes: dict[str, list[str]] = {}
    left_out = Counter[str]()
    ratings = split.columns[options.rating] if options.rating is not None else None
    for index, (raw_user, raw_item) in enumerate(zip(split.columns[options.user], split.columns[options.item], strict=True)):
        user, item = _name(raw_user), _name(raw_item)
        rating = options.min_rating if ratings is None else parse_number(ratings[index])
        if user is None or item is None:
            column, raw = (options.user, raw_user) if user is None else (options.item, raw_item)
            what = f"{shortened(repr(raw))} is not one name" if isinstance(raw, list | dict) else "is empty"
            bad_rows.add(split.place(index), f"the {column} {what}")
        elif rating is None:
            raw = None if ratings is None else ratings[index]
            bad_rows.add(split.place(index), f"the {options.rating} {shortened(repr(raw))} is not a number")
        elif item in places.setdefault(user, {}):
            first = split.place(places[user][item])
            bad_rows.add(split.place(index), f"{options.user} {user!r} has rated {options.item} {item!r} already: {first}")
        else:
            places[user][item] = index
            if rating >= options.min_rating:
                likes.setdefault(user, []).append(item)
            else:
                left_out[f"ratings below task.min_rating {options.min_rating:g}"] += 1
    kept = {user: items for user, items in likes.items() if len(items) >= options.min_items}
    if len(places) > len(kept):
        left_out[f"people with fewer than {options.min_items} likes (task.min_items)"] += len(places) - len(kept)
    people = Split({LIKES: list(kept.values())}, split.origin, range(len(kept)), is_text_file=False)
    return people, left_out


@dataclass(frozen=True)
class Catalogue:
    """The items that can be recommended: those of the train split, in the order of their names.

    Args:
        counts: how many people of the train split like each.
    """

    names: list[str]
    counts: list[int]


def read_catalogue(train: Split, top: int) -> Catalogue:
    """Returns the items of the train split.

    Raises:
        ConfigError: there are no more of them than recommendations that count.
    """
    counts = Counter(item for items in train.columns[LIKES] for item in items)
    if len(counts) <= top:
        what = f"{top} recommendations count, and the train split has {len(counts)} items"
        raise ConfigError(Problem(what, train.origin, "task.top", fix=f"task.top={max(1, len(counts) // 10)}"))
    names = sorted(counts)
    return Catalogue(names, [counts[name] for name in names])


def number_likes(rows: Mapping[str, Split], catalogue: Catalogue) -> tuple[dict[str, list[list[int]]], list[str]]:
    """Returns for each split the sorted numbers of each person's likes, and what was left out, in words.

    Of the other splits, items that the train split does not have are left out, and people whom that leaves fewer than two likes.

    Raises:
        ConfigError: nobody is left of a split.
    """
    numbers = {name: number for number, name in enumerate(catalogue.names)}
    numbered, notes = {}, []
    for split, people in rows.items():
        known = [sorted(numbers[item] for item in items if item in numbers) for items in people.columns[LIKES]]
        num_unknown = sum(len(items) for items in people.columns[LIKES]) - sum(map(len, known))
        numbered[split] = [items for items in known if len(items) > 1]
        if num_unknown:
            notes.append(f"{num_unknown} likes of the {split} split left out: nobody of the train split likes the item")
        if len(known) > len(numbered[split]):
            notes.append(f"{len(known) - len(numbered[split])} people of the {split} split left out: fewer than two likes remain")
        if not numbered[split]:
            what = f"nobody of the {split} split likes two items that somebody of the train split likes"
            raise ConfigError(Problem(what, people.origin, f"data.splits.{split}"))
    return numbered, notes


def _name(value: Any) -> str | None:
    """Returns a person's or an item's name, None where it is none; numbers of tables and of data sets mean the same."""
    if value is None or isinstance(value, list | dict) or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value).strip() or None
