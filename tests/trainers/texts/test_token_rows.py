"""Rows of tokens: nothing lost, nothing too long, few of them."""

from __future__ import annotations

import random

import pytest

from trainers.texts.token_rows import joined_rows, pack, packed_rows, single_rows

TEXTS = [{"input_ids": list(range(start, start + length))} for start, length in ((100, 3), (200, 7), (300, 2), (400, 5))]


def test_joined_rows_are_full_but_for_the_last_and_lose_nothing() -> None:
    rows = [row["input_ids"] for row in joined_rows(TEXTS, 4)]
    assert [len(row) for row in rows] == [4, 4, 4, 4, 1]
    assert [token for row in rows for token in row] == [token for text in TEXTS for token in text["input_ids"]]


def test_a_single_row_is_a_text_and_a_longer_text_is_several() -> None:
    assert [row["input_ids"] for row in single_rows(TEXTS, 5)] == [
        [100, 101, 102],
        [200, 201, 202, 203, 204],
        [205, 206],
        [300, 301],
        [400, 401, 402, 403, 404],
    ]


def test_packed_rows_hold_every_text_whole_and_number_it() -> None:
    rows = list(packed_rows(TEXTS, 10))
    assert [(row["input_ids"], row["segments"]) for row in rows] == [
        ([200, 201, 202, 203, 204, 205, 206, 100, 101, 102], [1] * 7 + [2] * 3),
        ([400, 401, 402, 403, 404, 300, 301], [1] * 5 + [2] * 2),
    ]


def test_what_goes_with_each_token_is_cut_and_packed_with_it() -> None:
    texts = [{"input_ids": [1, 2, 3], "words": [-1, 0, -1]}, {"input_ids": [4, 5], "words": [-1, -1]}]
    assert [row["words"] for row in joined_rows(texts, 4)] == [[-1, 0, -1, -1], [-1]]
    assert [row["words"] for row in packed_rows(texts, 5)] == [[-1, 0, -1, -1, -1]]


@pytest.mark.parametrize("seed", range(5))
def test_packing_holds_every_index_once_and_needs_hardly_more_rows_than_the_tokens_do(seed: int) -> None:
    source = random.Random(seed)
    lengths = [source.randint(1, 60) for _ in range(2000)]
    groups = pack(lengths, 128)
    assert sorted(index for group in groups for index in group) == list(range(2000))
    assert all(sum(lengths[index] for index in group) <= 128 for group in groups)
    assert len(groups) <= 1.01 * sum(lengths) / 128 + 1
