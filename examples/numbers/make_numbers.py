"""Writes numbers in words and in digits: python make_numbers.py FOLDER [--rows 4000] [--seed 0]

FOLDER/train.tsv, validation.tsv and test.tsv, columns words and digits; no number is in two of them. FOLDER/tokenizer knows these words alone.
"""

import argparse
import random
from pathlib import Path

from transformers import BertTokenizer

ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    numbers = random.Random(options.seed).sample(range(10_000), options.rows)
    options.folder.mkdir(parents=True, exist_ok=True)
    first, second = int(0.8 * options.rows), int(0.9 * options.rows)
    for name, part in {"train": numbers[:first], "validation": numbers[first:second], "test": numbers[second:]}.items():
        lines = ["words\tdigits", *(f"{in_words(number)}\t{' '.join(str(number))}" for number in part)]
        (options.folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"0123456789", *ONES, *TENS, "hundred", "thousand"]
    BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)}).save_pretrained(options.folder / "tokenizer")
    (options.folder / "tokenizer" / "config.json").write_text('{"model_type": "t5"}\n', encoding="utf-8")


def in_words(number: int) -> str:
    if number >= 1000:
        return f"{in_words(number // 1000)} thousand" + (f" {in_words(number % 1000)}" if number % 1000 else "")
    if number >= 100:
        return f"{in_words(number // 100)} hundred" + (f" {in_words(number % 100)}" if number % 100 else "")
    if number >= 20:
        return TENS[number // 10 - 2] + (f" {in_words(number % 10)}" if number % 10 else "")
    return ONES[number]


if __name__ == "__main__":
    main()
