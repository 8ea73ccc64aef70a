"""BERT's masking: the recipe's shares, whole words, and the same draws wherever a row is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainers.texts.masking import MaskedRows, Recipe, mask
from trainers.texts.tokens import NO_LABEL, TokenDataset, write_tokens

CLS, SEP, MASK = 1, 2, 3
RECIPE = Recipe(0.15, False, MASK, vocabulary=1000, untouched=frozenset({0, CLS, SEP, MASK}), seed=7, stream=0)
ROW = np.concatenate([[CLS], np.arange(500, 900), [SEP]])


def random(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def test_the_share_that_is_guessed_is_exact_and_never_a_token_of_the_tokenizers_own() -> None:
    seen, targets = mask(ROW, None, RECIPE, random())
    guessed = targets != NO_LABEL
    assert guessed.sum() == 60
    assert not guessed[[0, -1]].any()
    assert (targets[guessed] == ROW[guessed]).all()
    assert (seen[~guessed] == ROW[~guessed]).all()


def test_of_ten_guessed_tokens_eight_are_masked_one_is_another_and_one_stays() -> None:
    drawn = [mask(ROW, None, RECIPE, random(seed)) for seed in range(200)]
    guessed = np.concatenate([targets != NO_LABEL for _, targets in drawn])
    seen, ids = np.concatenate([seen for seen, _ in drawn])[guessed], np.concatenate([ROW] * 200)[guessed]
    shares = (seen == MASK).mean(), ((seen != MASK) & (seen != ids)).mean(), (seen == ids).mean()
    assert shares == pytest.approx((0.8, 0.1, 0.1), abs=0.01)


def test_a_row_of_one_word_has_one_target_and_a_row_of_none_has_none() -> None:
    assert mask(np.array([CLS, 77, SEP]), None, RECIPE, random())[1].tolist() == [NO_LABEL, 77, NO_LABEL]
    assert mask(np.array([CLS, SEP]), None, RECIPE, random())[1].tolist() == [NO_LABEL, NO_LABEL]


def test_the_tokens_of_a_word_are_guessed_together_and_words_of_two_texts_are_apart() -> None:
    ids = np.array([CLS, 10, 11, 12, 20, SEP, CLS, 30, 31, SEP])
    words = np.array([-1, 0, 0, 0, 1, -1, -1, 1, 1, -1])
    units = [{1, 2, 3}, {4}, {7, 8}]
    seen = set()
    for seed in range(40):
        _, targets = mask(ids, words, replace(RECIPE, whole_words=True, probability=0.5), random(seed))
        guessed = set(np.flatnonzero(targets != NO_LABEL).tolist())
        assert guessed == set().union(*(unit for unit in units if unit <= guessed))
        seen.add(frozenset(guessed))
    assert len(seen) > 2


def test_a_row_is_masked_by_seed_split_epoch_and_index_alone(tmp_path: Path) -> None:
    rows = [np.random.RandomState(number).randint(100, 1000, 40).tolist() for number in range(6)]
    write_tokens(tmp_path / "rows.arrow", iter([{"input_ids": rows}]))
    first, again = (MaskedRows(TokenDataset(tmp_path / "rows.arrow", 6), RECIPE) for _ in range(2))
    forwards = [first[3, index]["input_ids"].tolist() for index in range(6)]
    assert [again[3, index]["input_ids"].tolist() for index in reversed(range(6))] == forwards[::-1]
    others = (MaskedRows(first.rows, replace(RECIPE, seed=8)), MaskedRows(first.rows, replace(RECIPE, stream=1)))
    assert [other[3, 0]["input_ids"].tolist() == forwards[0] for other in others] == [False, False]
    assert first[4, 0]["input_ids"].tolist() != forwards[0]
