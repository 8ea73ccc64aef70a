from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from launch.config.errors import ConfigError
from launch.config.experiment import Experiment
from tests.tiny import tiny_bert
from tests.tiny_texts import tiny_tagged
from trainers.tasks import Task, build_task
from trainers.tasks.ner import first_pieces

SENTENCES = "good\tB-praise\nwise\tI-praise\nfilm\tO\n\nthe\tO\nplot\tO\nbad\tB-blame\n"


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("model") / "bert")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))


def built(bert: Path, folder: Path, text: str = SENTENCES, validation: str | None = None, max_length: int = 16, **data: Any) -> Task:
    (folder / "train.conll").write_text(text)
    if validation is not None:
        (folder / "dev.conll").write_text(validation)
    splits = {"train": "train.conll", "validation": "dev.conll" if validation is not None else None}
    values = {
        "name": "tiny",
        "model": {"source": str(bert)},
        "task": {"kind": "ner", "max_length": max_length},
        "data": {"source": str(folder), "splits": splits, **data},
        "train": {"duration": "1 epoch", "global_batch_size": 8},
        "optimizer": {"lr": 1e-3},
    }
    return build_task(Experiment.model_validate(values))


def batch_of(task: Any, split: str = "train") -> dict[str, torch.Tensor]:
    dataset = task.dataset(split)
    return task.collate([dataset[0, index] for index in range(task.num_samples[split])])


class Says(torch.nn.Module):
    """Answers every batch with these tags, one a token."""

    def __init__(self, tags: list[list[int]]) -> None:
        super().__init__()
        self.tags = tags

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        logits = torch.nn.functional.one_hot(torch.tensor(self.tags), 5).float() * 9

        class Output:
            pass

        output = Output()
        output.logits = logits[:, : input_ids.shape[1]]  # type: ignore[attr-defined]
        return output


def test_the_first_piece_of_a_word_has_its_tag_and_the_others_have_none(bert: Path, tmp_path: Path) -> None:
    task = built(bert, tmp_path)
    batch = batch_of(task)
    assert task.num_samples == {"train": 2}
    assert batch["labels"].tolist() == [[-100, 3, 4, 0, -100], [-100, 0, 0, 1, -100]]
    assert batch["words"].tolist() == [[-100, 0, 1, 2, -100]] * 2
    assert batch["tags"].tolist() == [[3, 4, 0], [0, 0, 1]]
    assert task.batch_count(batch) == 6
    assert first_pieces([None, 0, 0, 1, 2, 2, None]) == [-100, 0, -100, 1, 2, -100, -100]


def test_the_loss_is_summed_over_words_and_evaluated_sentence_by_sentence(bert: Path, tmp_path: Path) -> None:
    task = built(bert, tmp_path)
    model, batch = task.build_model().eval(), batch_of(task)
    with torch.inference_mode():
        loss, count = task.train_loss(model, batch, 0.0)
        losses, evaluated, _ = task.evaluate_batch(model, batch)
    assert (int(count), int(evaluated)) == (6, 6)
    assert float(losses.sum()) == pytest.approx(float(loss), rel=1e-6)


def test_metrics_count_whole_names(bert: Path, tmp_path: Path) -> None:
    task = built(bert, tmp_path)
    found = [[0, 3, 0, 0, 0], [0, 0, 0, 1, 0]]  # half of "good wise"; "bad"
    metrics = task.build_metrics()
    metrics.update(*task.evaluate_batch(Says(found), batch_of(task))[2])
    values = metrics.compute()
    assert [float(values[name]) for name in ("precision", "recall", "f1")] == [0.5, 0.5, 0.5]
    assert values["confusion_matrix"].tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert task.label_names == ["blame", "praise", "no name"]


def test_names_beyond_the_longest_input_are_missed_and_noted(bert: Path, tmp_path: Path) -> None:
    text = SENTENCES + "\n" + "the\tO\n" * 5 + "good\tB-praise\n"
    task = built(bert, tmp_path, text, max_length=6)
    assert task.notes == ["2 words of 1 sentences are not read: beyond 6 tokens, or unknown to the tokenizer; names there count as missed"]
    metrics = task.build_metrics()
    perfect = [[0, 3, 4, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]]
    metrics.update(*task.evaluate_batch(Says(perfect), batch_of(task))[2])
    assert float(metrics.compute()["recall"]) == pytest.approx(2 / 3)


def test_a_split_without_a_name_to_find_is_told(bert: Path, tmp_path: Path) -> None:
    task = built(bert, tmp_path, validation="the\tO\nfilm\tO\n")
    assert task.notes == ["warning: no sentence of the validation split has a name: f1 is 0 there"]


def test_the_illustration_marks_what_was_found(bert: Path, tmp_path: Path) -> None:
    task: Any = built(bert, tmp_path)
    shown = task.illustrate(Says([[0, 3, 0, 0, 0], [0, 0, 0, 1, 0]]), "train", lambda batch: batch, tmp_path)
    assert "| good wise film | good wise (praise) | ~~good (praise)~~ |" in shown
    assert "| the plot bad | bad (blame) | **bad (blame)** |" in shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("good\tB-praise\nwise\n\nbad\tO\n", r"train\.conll:2: 1 column, but there are 2: wise"),
        ("good\tB-praise\nwise\tI-praise\textra\n", r"train\.conll:2: 3 columns, but there are 2"),
        ("good\tB-praise\n\tO\n", r"train\.conll:2: the word is empty"),
        (
            "good\tB-praise\nwise\tpraise\n",
            r"train\.conll:1, word 2: the tag 'praise' is not O, B-TYPE or I-TYPE\n    allowed: O, B-praise, I-praise",
        ),
        ("good\tB-praise\nwise\tX-praise\n", r"word 2: the tag 'X-praise' is not O, B-TYPE or I-TYPE"),
        ("good\tB-praise\nwise\tB-\n", r"word 2: the tag 'B-' is not O, B-TYPE or I-TYPE"),
        ("good\tO\n", r"task\.tags: no word has a tag B-TYPE or I-TYPE in the column 'ner_tags'"),
        ("\n\n", r"train\.conll: data\.source: the file holds no words"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_place(text: str, message: str, bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        built(bert, tmp_path, text)


def test_a_type_that_only_validation_has_is_named(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dev\.conll:1, word 2: the tag 'B-place' is none of the train split's"):
        built(bert, tmp_path, validation="the\tO\nfilm\tB-place\n")


def test_a_name_that_begins_with_i_counts_and_is_noted(bert: Path, tmp_path: Path) -> None:
    task = built(bert, tmp_path, SENTENCES + "\nfilm\tO\nwise\tI-praise\n")
    assert task.notes == [f"1 names begin with I- where B- is usual, and count as names: {tmp_path}/train.conll:9, word 2"]


def test_a_bad_sentence_is_skipped_and_listed(bert: Path, tmp_path: Path) -> None:
    task = built(bert, tmp_path, SENTENCES + "\nbad\n", on_bad_row="skip")
    assert task.num_samples == {"train": 2}
    assert task.notes[0] == "1 rows skipped (data.on_bad_row=skip):"


def test_other_columns_are_read_by_their_names(bert: Path, tmp_path: Path) -> None:
    text = "-DOCSTART- -X- -X- O\n\ngood JJ B-NP B-praise\nfilm NN I-NP O\n"
    task = built(bert, tmp_path, text, columns=["tokens", "pos", "chunk", "ner_tags"])
    assert batch_of(task)["tags"].tolist() == [[1, 0]]


def test_json_lines_of_lists_are_read_too(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"tokens": ["good", "film"], "ner_tags": ["B-praise", "O"]}\n{"tokens": ["a"], "ner_tags": ["O", "O"]}\n')
    values = {
        "name": "tiny",
        "model": {"source": str(bert)},
        "task": {"kind": "ner", "max_length": 16},
        "data": {"source": str(tmp_path / "train.jsonl"), "splits": {"validation": None}},
        "train": {"duration": "1 epoch", "global_batch_size": 8},
        "optimizer": {"lr": 1e-3},
    }
    with pytest.raises(ConfigError, match=r"train\.jsonl:2: 1 words, but 2 tags"):
        build_task(Experiment.model_validate(values))


def test_a_saved_model_finds_names_in_three_lines(bert: Path, tmp_path: Path) -> None:
    from launch.config.tasks import Ner

    (tmp_path / "data").mkdir()
    task: Any = built(bert, tmp_path / "data", tiny_tagged(tmp_path / "t.conll", 20).read_text())
    model = task.build_model()
    task.save(model, tmp_path / "model", model.state_dict())
    scope: dict[str, Any] = {"print": lambda value: scope.update(printed=value)}
    exec("\n".join(line.format(model=tmp_path / "model") for line in Ner.USAGE), scope)
    assert isinstance(scope["printed"], list)
    assert set(model.config.label2id) == {"O", "B-blame", "I-blame", "B-praise", "I-praise"}
