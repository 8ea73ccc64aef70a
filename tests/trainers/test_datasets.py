from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launch.config.data import Data
from launch.config.errors import ConfigError
from trainers.datasets import divide, load_splits
from trainers.reading.rows import BadRows, Split


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FULLRANK_CACHE", str(folder))
    return folder


FIELDS = {"text": "task.text", "label": "task.label"}
TRAIN_ONLY = {"validation": None}


def read(source: Path, skip: bool = False, **options: Any) -> tuple[dict[str, Split], BadRows]:
    data = Data.model_validate({"source": str(source), "splits": TRAIN_ONLY, "on_bad_row": "skip" if skip else "stop"} | options)
    bad_rows = BadRows(data.on_bad_row)
    return load_splits(data, FIELDS, bad_rows), bad_rows


def written(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def values(split: Split) -> dict[str, list[Any]]:
    return {name: list(column) for name, column in split.columns.items()}


def errors(caught: pytest.ExceptionInfo[ConfigError]) -> list[str]:
    return [f"{problem.where}: {problem.what}" for problem in caught.value.problems if problem.where]


def test_tsv_has_no_quoting_and_keeps_the_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "a.tsv", 'text\tlabel\nsay "yes\t1\n\n"no"\t0\n')
    split = read(path)[0]["train"]
    assert values(split) == {"text": ['say "yes', '"no"'], "label": ["1", "0"]}
    assert [split.place(0), split.place(1)] == [f"{path}:2", f"{path}:4"]


def test_csv_has_quoting_and_rows_of_several_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", '\ufefflabel,text\r\n1,"one, two\r\nthree"\r\n0,four\r\n')
    split = read(path)[0]["train"]
    assert values(split) == {"text": ["one, two\r\nthree", "four"], "label": ["1", "0"]}
    assert [split.place(0), split.place(1)] == [f"{path}:2", f"{path}:4"]


def test_jsonl_keeps_the_types(tmp_path: Path) -> None:
    split = read(written(tmp_path, "a.jsonl", '{"text": "a", "label": 1, "more": []}\n\n{"label": null, "text": "b"}\n'))[0]["train"]
    assert values(split) == {"text": ["a", "b"], "label": [1, None]}
    assert list(split.rows) == [1, 3]


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(
    ("content", "first"),
    [
        ("text,label\na,1\n", "not valid JSON: Expecting value: line 1 column 1 (char 0)"),
        ('[{"text": "a", "label": 1}]\n', '[{"text": "a", "label": 1}] is not a JSON object'),
    ],
)
def test_jsonl_without_an_object_names_its_lines_and_the_format(tmp_path: Path, content: str, first: str, skip: bool) -> None:
    path = written(tmp_path, "a.csv", content)
    with pytest.raises(ConfigError) as caught:
        read(path, skip, format="jsonl")
    assert (errors(caught)[0], errors(caught)[-1]) == (f"{path}:1: {first}", f"{path}: no line is a JSON object with keys")
    assert caught.value.problems[-1].fix == "data.format=csv"


@pytest.mark.parametrize(("name", "content"), [("a.csv", "text,label\na,1\n"), ("a.jsonl", '{"text": "a", "label": "1"}\n')])
def test_utf_16_is_recognised_and_read_when_it_is_asked_for(tmp_path: Path, name: str, content: str) -> None:
    path = written(tmp_path, name, content.encode("utf-16"))
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert errors(caught) == [f"{path}: begins with the byte order mark of UTF-16, and is no utf-8"]
    assert caught.value.problems[0].fix == "data.encoding=utf-16"
    assert values(read(path, encoding="utf-16")[0]["train"]) == {"text": ["a"], "label": ["1"]}


@pytest.mark.parametrize(("content", "bad"), [("text,label\n", []), ("text,label\na\n", [2])])
def test_a_file_without_a_usable_row_has_no_samples(tmp_path: Path, content: str, bad: list[int]) -> None:
    path = written(tmp_path, "a.csv", content)
    with pytest.raises(ConfigError) as caught:
        read(path, skip=True)
    assert errors(caught)[-1] == f"{path}: the train split has no samples"
    assert [problem.where for problem in caught.value.problems[:-1]] == [f"{path}:{line}" for line in bad]


def test_parquet_and_the_hub_layout_of_a_folder_name_split_and_row(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])})
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    (tmp_path / "hub/data").mkdir(parents=True)
    table.to_parquet(str(tmp_path / "hub/data/train-00000-of-00001.parquet"))
    alone = read(tmp_path / "hub/data/train-00000-of-00001.parquet")[0]["train"]
    assert values(alone) == {"text": ["a", "b"], "label": [1, 0]}
    split = read(tmp_path / "hub")[0]["train"]
    assert values(split) == {"text": ["a", "b"], "label": [1, 0]}
    assert split.class_names == {"label": ["bad", "good"]}
    assert split.place(1) == f"{tmp_path}/hub, split train, row 1"


def test_a_parquet_file_whose_texts_are_no_utf_8_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    offsets = pa.py_buffer(b"".join(end.to_bytes(4, "little") for end in range(3)))
    texts = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"a\xff")])
    pyarrow.parquet.write_table(pa.table({"text": texts, "label": [0, 1]}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a\.parquet: data\.source: is not a whole parquet file: .*Invalid UTF8"):
        read(tmp_path / "a.parquet")


def test_a_split_that_a_hub_folder_does_not_have_names_those_it_has(tmp_path: Path) -> None:
    written(tmp_path, "train.csv", "text,label\na,1\n")
    with pytest.raises(ConfigError, match=r"data.splits.validation: .* has no split 'dev'\n    allowed: train, or null"):
        read(tmp_path, splits={"validation": "dev"})


def test_named_files_of_a_folder_and_columns_of_headerless_files(tmp_path: Path) -> None:
    written(tmp_path, "train.tsv", "good\t1\n")
    written(tmp_path, "dev.tsv", "bad\t0\n")
    splits, _ = read(tmp_path, splits={"train": "train.tsv", "validation": "dev.tsv"}, columns=["text", "label"])
    assert {name: values(split)["text"] for name, split in splits.items()} == {"train": ["good"], "validation": ["bad"]}


def test_a_split_named_without_its_ending_is_found_by_the_format(tmp_path: Path) -> None:
    written(tmp_path, "train.tsv", "text\tlabel\ngood\t1\n")
    assert values(read(tmp_path, format="tsv")[0]["train"])["text"] == ["good"]


BROKEN_TSV = ["3: 1 field, but there are 2 columns: text, label", "4: 3 fields, but there are 2 columns: text, label"]
BROKEN_JSONL = [
    "2: has no 'label'",
    "3: not valid JSON: Expecting ':' delimiter: line 2 column 1 (char 8)",
    "4: [1] is not a JSON object",
    "5: bytes that are not utf-8",
]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.tsv", b"text\tlabel\nx\t1\ny\nz\t0\tmore\n", BROKEN_TSV),
        ("a.tsv", b"text\tlabel\nx\t1\n\xff\xfe\t1\n", ["3: bytes that are not utf-8"]),
        ("a.csv", b'text,label\n"x"y,1\nz,0\n', ["2: not valid: ',' expected after '\"'"]),
        ("a.jsonl", b'{"text": "x", "label": 1}\n{"text": "y"}\n{"text"\n[1]\n\xff\n', BROKEN_JSONL),
    ],
)
def test_broken_rows_are_all_named_by_line_or_skipped_and_listed(name: str, content: bytes, expected: list[str], tmp_path: Path) -> None:
    path = written(tmp_path, name, content)
    expected = [f"{path}:{line}" for line in expected]
    with pytest.raises(ConfigError, match=r"data.on_bad_row=skip to leave them out") as caught:
        read(path)
    assert errors(caught) == expected
    splits, bad_rows = read(path, skip=True)
    assert [f"{problem.where}: {problem.what}" for problem in bad_rows.problems] == expected
    assert len(splits["train"]) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000, "not valid JSON: maximum recursion depth exceeded"),
        ("9" * 5000, "not valid JSON: Exceeds the limit (4300 digits)"),
        ("[" * 900 + "]" * 900, "lists stand in lists more than 20 deep"),
        (r'"\ud800"', r"'\ud800' has half of a character: \ud800 to \udfff stand in pairs"),
        (r'{"said": ["good", "\udfff"]}', r"'\udfff' has half of a character"),
    ],
)
def test_json_that_no_later_step_could_read_is_a_bad_row(text: str, told: str, tmp_path: Path) -> None:
    good = '{"text": "\\ud83d\\ude00", "label": 1}\n'
    path = written(tmp_path, "a.jsonl", f'{good}{{"text": {text}, "label": 1}}\n')
    splits, bad_rows = read(path, skip=True)
    assert values(splits["train"]) == {"text": ["\U0001f600"], "label": [1]}
    assert str(bad_rows.problems[0]).startswith(f"{path}:2: {told}")


def test_only_the_first_of_many_broken_rows_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.on_bad_row: 5 more rows cannot be used") as caught:
        read(written(tmp_path, "a.tsv", "text\tlabel\n" + "x\n" * 25))
    assert len(caught.value.problems) == 21


def test_another_encoding_is_read_as_said(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "1\tcaf\xe9\n".encode("latin-1"))
    assert values(read(path, format="tsv", encoding="latin-1", columns=["label", "text"])[0]["train"])["text"] == ["caf\xe9"]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("words\tlabel\na\t1\n", {}, r"task.text: there is no column 'text'\n    allowed: the columns: words, label\n    try: data.columns="),
        ("text\ttext\tlabel\na\tb\t1\n", {}, "data.columns: the column 'text' stands 2 times"),
        ("text\tlabel\na\t1\n", {"columns": ["text", "label"]}, "a.tsv:1: data.columns: the first line already holds the names"),
        ("", {}, "a.tsv: data.source: the file is empty"),
        ("text\tlabel\na\t1\n", {"splits": {}}, "data.splits.validation: .*a.tsv is one file and has no split 'validation'"),
        ("text\tlabel\na\t1\n", {"format": "parquet"}, "data.format: is no parquet file"),
    ],
)
def test_a_file_that_cannot_be_meant_says_why(content: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read(written(tmp_path, "a.tsv", content), **options)


def test_a_file_whose_format_is_unknown_asks_for_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a.dat: data.format: .*\n    allowed: csv, tsv, jsonl, parquet"):
        read(written(tmp_path, "a.dat", "text\n"))


def test_a_file_of_a_split_that_is_not_there_lists_the_folder(tmp_path: Path) -> None:
    written(tmp_path, "dev.tsv", "text\tlabel\n")
    with pytest.raises(ConfigError, match=r"data.splits.train: there is no .*/train.tsv\n    allowed: a file of the folder: dev.tsv"):
        read(tmp_path, splits={"train": "train.tsv", "validation": None})


def test_a_split_that_is_no_file_beside_one_that_is(tmp_path: Path) -> None:
    written(tmp_path, "dev.tsv", "text\tlabel\na\t1\n")
    with pytest.raises(ConfigError, match=r"data.splits.test: there is no .*/test\n    allowed: a file of the folder: dev.tsv; or null"):
        read(tmp_path, splits={"train": "dev.tsv", "validation": None, "test": "test"})


def test_a_data_set_that_is_not_cached_is_said_so_while_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"data.source: the data set nobody/nothing:x cannot be loaded: the hub's cache does not have it") as caught:
        read(Path("nobody/nothing:x"))
    assert "HF_HOME" in str(caught.value)


def cut(num_rows: int, seed: int = 0, **options: Any) -> dict[str, list[int]]:
    split = Split({"n": list(range(num_rows))}, "a.tsv", range(num_rows), is_text_file=True)
    data = Data.model_validate({"source": "a.tsv", "splits": TRAIN_ONLY} | options)
    return {name: list(part.columns["n"]) for name, part in divide({"train": split}, data, seed).items()}


def test_fractions_are_disjoint_complete_and_the_same_for_the_same_seed() -> None:
    parts = cut(100, seed=1, validation_fraction=0.1, test_fraction=0.2)
    assert {name: len(part) for name, part in parts.items()} == {"train": 70, "validation": 10, "test": 20}
    assert sorted(n for part in parts.values() for n in part) == list(range(100))
    assert all(part == sorted(part) for part in parts.values())
    assert parts["validation"] == [17, 33, 36, 65, 69, 80, 81, 82, 84, 93]
    assert cut(100, seed=1, validation_fraction=0.1, test_fraction=0.2) == parts
    assert cut(100, seed=2, validation_fraction=0.1, test_fraction=0.2) != parts


def test_a_share_of_train_leaves_the_other_splits_as_they_are_and_holds_every_smaller_share() -> None:
    whole = cut(100, seed=1, validation_fraction=0.1, test_fraction=0.2)
    half, tenth = (cut(100, seed=1, validation_fraction=0.1, test_fraction=0.2, train_fraction=share) for share in (0.5, 0.1))
    assert (len(half["train"]), len(tenth["train"])) == (35, 7)
    assert set(tenth["train"]) < set(half["train"]) < set(whole["train"])
    assert {**half, "train": []} == {**tenth, "train": []} == {**whole, "train": []}
    assert len(cut(10, train_fraction=0.3)["train"]) == 3
    with pytest.raises(ConfigError, match=r"data.train_fraction: the train split has no samples: 0.01 of 3 rows is none"):
        cut(3, train_fraction=0.01)


def test_what_belongs_together_is_not_torn_apart() -> None:
    titles = [f"article {n // 3}" for n in range(30)]
    split = Split({"title": titles, "n": list(range(30))}, "a.tsv", range(30), is_text_file=True)
    data = Data.model_validate({"source": "a.tsv", "splits": TRAIN_ONLY, "validation_fraction": 0.2, "test_fraction": 0.1})
    parts = {name: list(part.columns["n"]) for name, part in divide({"train": split}, data, 1, by="title").items()}
    assert {name: len(part) for name, part in parts.items()} == {"train": 21, "validation": 6, "test": 3}
    assert sorted(n for part in parts.values() for n in part) == list(range(30))
    assert all({titles[n] for n in parts["train"]}.isdisjoint({titles[n] for n in parts[name]}) for name in ("validation", "test"))


def test_a_share_of_too_few_units_says_what_is_counted() -> None:
    train = Split({"title": ["a"] * 12}, "a.json", range(12), is_text_file=False)
    with pytest.raises(ConfigError, match=r"validation split has no samples: 0\.3 of 1 different values of the column 'title' is none"):
        divide({"train": train}, Data(source="x", validation_fraction=0.3), 0, by="title")


def test_the_limit_counts_after_the_cut() -> None:
    assert {name: len(part) for name, part in cut(100, validation_fraction=0.3, limit=20).items()} == {"train": 20, "validation": 20}


def test_an_empty_split_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"a.tsv: data.validation_fraction: the validation split has no samples: 0.01 of 3 rows is none"):
        cut(3, validation_fraction=0.01)
    with pytest.raises(ConfigError, match=r"a.tsv: data.splits.train: the train split has no samples"):
        cut(0)


def test_text_files_are_read_without_the_datasets_library_or_pandas(tmp_path: Path) -> None:
    path = written(tmp_path, "a.tsv", "text\tlabel\na\t1\n")
    code = (
        "import sys; from launch.config.data import Data\n"
        "from trainers.datasets import load_splits; from trainers.reading.rows import BadRows\n"
        f"data = Data.model_validate({{'source': {str(path)!r}, 'splits': {{'validation': None}}}})\n"
        f"load_splits(data, {FIELDS!r}, BadRows('stop'))\n"
        "print({'datasets', 'pandas', 'torch', 'transformers'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_skipped_rows_are_counted_and_the_first_three_named():
    bad_rows = BadRows("skip")
    for line in (2, 5, 9, 11, 12):
        bad_rows.add(f"train.tsv:{line}", "the text is empty")
    named = [f"train.tsv:{line}: the text is empty" for line in (2, 5, 9)]
    assert bad_rows.notes("rows") == ["5 rows skipped (data.on_bad_row=skip):", *named, "and 2 more"]
