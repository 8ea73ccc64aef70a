"""Turns the tags of words into numbers, and names those that cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from launch.config.errors import ConfigError, Problem
from launch.config.tasks import Ner
from trainers.reading.rows import BadRows, Split
from trainers.texts.entities import OUTSIDE, tag_names

MAX_PLACES = 3


@dataclass(frozen=True)
class Tags:
    """The tags of every sentence.

    Args:
        types: of names, sorted.
        numbers: split -> for each sentence the numbers of its words' tags (entities.tag_names); None: it cannot be used.
        notes: what a person should know about them, a line each.
    """

    types: list[str]
    numbers: dict[str, list[list[int] | None]]
    notes: list[str]


def read_tags(splits: Mapping[str, Split], options: Ner, bad_rows: BadRows) -> Tags:
    """Returns the tags as numbers; the types are those that the data set names, or those of the train split, sorted.

    Raises:
        ConfigError: the train split marks no name.
    """
    train = splits["train"]
    given = train.class_names.get(options.tags)
    named = given or [tag for tags in train.columns[options.tags] if isinstance(tags, list) for tag in tags if isinstance(tag, str)]
    types = sorted({tag[2:] for tag in named if tag != OUTSIDE and _is_formed(tag)})
    if not types:
        what = f"no word has a tag B-TYPE or I-TYPE in the column {options.tags!r}"
        raise ConfigError(*bad_rows.problems[:1], Problem(what, train.origin, "task.tags", allowed="tags as B-person, I-person, O"))
    numbers = {tag: number for number, tag in enumerate(tag_names(types))}
    reader = _Reader(options, numbers, given, bad_rows)
    result = {name: reader.read(split) for name, split in splits.items()}
    return Tags(types, result, reader.notes())


class _Reader:
    """Reads splits one after the other, and keeps what is to be said of them all."""

    def __init__(self, options: Ner, numbers: Mapping[str, int], given: list[str] | None, bad_rows: BadRows) -> None:
        self._options, self._numbers, self._given, self._bad_rows = options, numbers, given, bad_rows
        self._places: list[str] = []
        self._num_unbegun = 0

    def read(self, split: Split) -> list[list[int] | None]:
        columns = (split.columns[self._options.tokens], split.columns[self._options.tags])
        return [self._sentence(split, index, words, tags) for index, (words, tags) in enumerate(zip(*columns, strict=True))]

    def notes(self) -> list[str]:
        if not self._num_unbegun:
            return []
        more = ", ..." if self._num_unbegun > len(self._places) else ""
        return [f"{self._num_unbegun} names begin with I- where B- is usual, and count as names: {', '.join(self._places)}{more}"]

    def _sentence(self, split: Split, index: int, words: object, tags: object) -> list[int] | None:
        problem = _shape_problem(words, tags)
        if problem is not None or not isinstance(tags, list):
            self._bad_rows.add(split.place(index), problem or "no tags")
            return None
        named = [self._given[tag] if self._given and isinstance(tag, int) and 0 <= tag < len(self._given) else tag for tag in tags]
        result = []
        for place, tag in enumerate(named):
            number = self._numbers.get(tag) if isinstance(tag, str) else None
            if number is None:
                what = f"the tag {tag!r} is none of the train split's" if _is_formed(tag) else f"the tag {tag!r} is not O, B-TYPE or I-TYPE"
                self._bad_rows.add(_word_place(split, index, place), what, ", ".join(self._numbers))
                return None
            result.append(number)
            before = named[place - 1] if place else OUTSIDE
            if tag.startswith("I-") and before[2:] != tag[2:]:
                self._num_unbegun += 1
                if len(self._places) < MAX_PLACES:
                    self._places.append(_word_place(split, index, place))
        return result


def _shape_problem(words: object, tags: object) -> str | None:
    if not isinstance(words, Sequence) or isinstance(words, str) or not isinstance(tags, Sequence) or isinstance(tags, str):
        return "the words and the tags are no lists"
    if len(words) != len(tags):
        return f"{len(words)} words, but {len(tags)} tags"
    if not words:
        return "the sentence is empty"
    return next((f"the word {word!r} is empty, or no text" for word in words if not isinstance(word, str) or not word.strip()), None)


def _is_formed(tag: object) -> bool:
    """Returns whether a tag looks like one; a number that names no class of the data set does not."""
    return isinstance(tag, str) and (tag == OUTSIDE or (tag.startswith(("B-", "I-")) and bool(tag[2:])))


def _word_place(split: Split, index: int, word: int) -> str:
    """Returns where a word stands: its sentence (the line of its first word, in a text file), and its number in it, from 1."""
    return f"{split.place(index)}, word {word + 1}"
