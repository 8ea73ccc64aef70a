"""Texts of tokens into rows of at most so many tokens: side by side, one after another, or each by itself; pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from itertools import islice

Tokens = dict[str, list[int]]
"""Columns of equal length: input_ids, and what goes with each token."""

TEXTS_PACKED_TOGETHER = 10_000
"""Texts that a row is chosen from; more would pack hardly tighter, and they are in memory."""


def joined_rows(texts: Iterable[Tokens], size: int) -> Iterator[Tokens]:
    """Yields rows of `size` tokens, cut from the texts one after another; the last may be shorter, and nothing is dropped."""
    held: Tokens = {}
    for text in texts:
        for name, values in text.items():
            held.setdefault(name, []).extend(values)
        length = len(held["input_ids"])
        for start in range(0, length - size + 1, size):
            yield {name: values[start : start + size] for name, values in held.items()}
        if length >= size:
            held = {name: values[length - length % size :] for name, values in held.items()}
    if held and held["input_ids"]:
        yield held


def single_rows(texts: Iterable[Tokens], size: int) -> Iterator[Tokens]:
    """Yields a row a text; one that is longer than `size` is cut into several."""
    for text in texts:
        for start in range(0, len(text["input_ids"]), size):
            yield {name: values[start : start + size] for name, values in text.items()}


def packed_rows(texts: Iterable[Tokens], size: int) -> Iterator[Tokens]:
    """Yields rows with the texts of single_rows side by side, as many as fit, and `segments`: which text of the row a token is of, from 1."""
    singles = single_rows(texts, size)
    while together := list(islice(singles, TEXTS_PACKED_TOGETHER)):
        for members in pack([len(text["input_ids"]) for text in together], size):
            row = {name: [value for member in members for value in together[member][name]] for name in together[0]}
            row["segments"] = [number for number, member in enumerate(members, start=1) for _ in together[member]["input_ids"]]
            yield row


def pack(lengths: list[int], size: int) -> list[list[int]]:
    """Returns groups of indices whose lengths add up to at most `size`, every index once.

    Best fit, the longest first: each goes where it leaves the least room, at most 11/9 of the fewest groups that are possible
    (Johnson et al., 1974, doi:10.1137/0203025).
    """
    groups: list[list[int]] = []
    rooms: list[tuple[int, int]] = []
    """(room that is left, group), ascending."""
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        place = bisect_left(rooms, (lengths[index], -1))
        if place < len(rooms):
            room, group = rooms.pop(place)
        else:
            room, group = size, len(groups)
            groups.append([])
        groups[group].append(index)
        insort(rooms, (room - lengths[index], group))
    return groups
