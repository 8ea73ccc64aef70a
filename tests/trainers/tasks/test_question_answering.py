from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from launch.config.errors import ConfigError
from launch.config.experiment import Experiment
from launch.config.tasks import QuestionAnswering
from tests.tiny import tiny_bert
from tests.tiny_texts import tiny_squad
from trainers.tasks import Task, build_task

CONTEXT = "the film is good and the plot is bad"


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("model") / "bert")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))


def built(bert: Path, file: Path, task: dict[str, Any] | None = None, **data: Any) -> Task:
    values = {
        "name": "tiny",
        "model": {"source": str(bert)},
        "task": {"kind": "question_answering", "max_length": 32, "stride": 8} | (task or {}),
        "data": {"source": str(file), "format": "squad", "splits": {"validation": None}} | data,
        "train": {"duration": "1 epoch", "global_batch_size": 8},
        "optimizer": {"lr": 1e-3},
    }
    return build_task(Experiment.model_validate(values))


def one_question(path: Path, answers: object, question: object = "what is it", context: object = CONTEXT, **more: object) -> Path:
    asked = {"id": "1", "question": question, "answers": answers, **more}
    good = {"id": "0", "question": "what is it", "answers": [{"text": "good", "answer_start": 12}]}
    paragraphs = [{"context": CONTEXT, "qas": [good]}, {"context": context, "qas": [asked]}]
    path.write_text(json.dumps({"data": [{"title": "a", "paragraphs": paragraphs}]}))
    return path


def read_answer(task: Any, split: str, window: dict[str, Any], index: int) -> str:
    context = task._questions[split][index]["context"]
    return context[window["starts"][window["first"]] : window["ends"][window["last"]]]


def test_every_answer_is_found_again_in_the_windows_that_hold_it(bert: Path, tmp_path: Path) -> None:
    task: Any = built(bert, tiny_squad(tmp_path / "squad.json", 12), validation_fraction=0.5)
    dataset, num_whole = task.dataset("validation"), 0
    for index in range(len(dataset)):
        sample, answer = dataset[0, index], task._questions["validation"][index]["answers"][0]
        found = {read_answer(task, "validation", window, index) for window in sample["windows"] if window["first"] != window["null"]}
        assert found == {answer}
        num_whole += all(len(window["input_ids"]) <= 32 for window in sample["windows"])
        covered = {place for window in sample["windows"] for place in window["starts"].tolist()} - {-1}
        assert len(covered) == len(task._questions["validation"][index]["context"].split())
    assert num_whole == len(dataset) == 12


def test_whole_articles_are_cut_from_train(bert: Path, tmp_path: Path) -> None:
    task: Any = built(bert, tiny_squad(tmp_path / "squad.json", 12), validation_fraction=0.25, test_fraction=0.25)
    contexts = {
        article["title"]: {p["context"] for p in article["paragraphs"]} for article in json.loads((tmp_path / "squad.json").read_text())["data"]
    }
    for split in ("validation", "test"):
        mine = {task._questions[split][index]["context"] for index in range(task.num_samples[split])}
        touched = [title for title, texts in contexts.items() if texts & mine]
        assert len(touched) == 3
        assert all(contexts[title] <= mine for title in touched)


def test_training_counts_windows_and_evaluation_counts_questions_once(bert: Path, tmp_path: Path) -> None:
    task: Any = built(bert, tiny_squad(tmp_path / "squad.json", 12), validation_fraction=0.5)
    assert task.num_samples["validation"] == 12
    assert task.num_samples["train"] == len(task.dataset("train")) > 12
    model, dataset = task.build_model().eval(), task.dataset("validation")
    batch = task.collate([dataset[0, index] for index in range(5)])
    with torch.inference_mode():
        losses, count, (exact, f1) = task.evaluate_batch(model, batch)
    assert (losses.shape, exact.shape, f1.shape) == ((5,), (5,), (5,))
    assert int(count) == len(batch["row"]) == sum(len(dataset[0, index]["windows"]) for index in range(5))
    assert task.lengths("validation")[:5].sum() == batch["attention_mask"].sum()
    train = task.dataset("train")
    loss, windows = task.train_loss(model, task.collate([train[0, index] for index in range(6)]), 0.0)
    assert (loss.shape, int(windows)) == ((), 6)
    pickle.loads(pickle.dumps((dataset, task.collate)))


def test_the_loss_of_a_question_does_not_depend_on_its_batch(bert: Path, tmp_path: Path) -> None:
    task: Any = built(bert, tiny_squad(tmp_path / "squad.json", 12), validation_fraction=0.5)
    model, dataset = task.build_model().eval(), task.dataset("validation")
    with torch.inference_mode():
        together = task.evaluate_batch(model, task.collate([dataset[0, index] for index in range(6)]))
        alone = [task.evaluate_batch(model, task.collate([dataset[0, index]])) for index in range(6)]
    assert together[0].tolist() == pytest.approx([float(losses) for losses, _, _ in alone], rel=1e-5)
    assert together[2][1].tolist() == [float(scores[1]) for _, _, scores in alone]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answers": [{"text": "good", "answer_start": 400}]}, r"the answer 'good' at 400 lies outside of the context of 36 characters"),
        ({"answers": [{"text": "good", "answer_start": -3}]}, r"the answer 'good' at -3 lies outside of the context"),
        ({"answers": [{"text": "good", "answer_start": 4}]}, r"the answer 'good' does not stand at 4: there is 'film'"),
        ({"answers": [{"text": "h", "answer_start": True}]}, r"the answer 'h' at True is empty, or no text at a number"),
        ({"answers": []}, r"there is no answer \(task\.no_answer=true if there may be none\)"),
        ({"answers": [{"text": "", "answer_start": 4}]}, r"the answer '' at 4 is empty"),
        ({"answers": [{"text": "good"}]}, r"has no 'answer_start'"),
        ({"answers": [{"text": "good", "answer_start": 12}], "question": " "}, r"the question is empty"),
        ({"answers": [{"text": "good", "answer_start": 12}], "context": ""}, r"the context is empty"),
        ({"answers": [{"text": "good", "answer_start": 12}], "question": "\u200b\u2060"}, r"the question .* has nothing in it that can be seen"),
        (
            {"answers": [{"text": "good", "answer_start": 12}], "question": "what " * 40},
            r"the question has 40 tokens; task\.max_length and task\.stride leave 20",
        ),
    ],
)
def test_what_cannot_be_used_is_named_with_its_place(changes: dict[str, Any], message: str, bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"squad\.json: data\[0\]\.paragraphs\[1\]\.qas\[0\]: {message}"):
        built(bert, one_question(tmp_path / "squad.json", **changes))


def test_a_file_of_another_layout_is_refused_with_its_line(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"question": 1}\n{"question": 2}\n')
    with pytest.raises(ConfigError, match=r"a\.json:2: data\.format: is no SQuAD file: Extra data"):
        built(bert, tmp_path / "a.json")
    (tmp_path / "b.json").write_text('{"rows": []}')
    with pytest.raises(ConfigError, match=r"b\.json: data\.format: is no SQuAD file: it has no list 'data' of articles"):
        built(bert, tmp_path / "b.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"data": ' + b"[" * 100_000, r"a\.json: data\.format: is no SQuAD file: maximum recursion depth exceeded"),
        (b'{"data": [' + b"9" * 5000, r"a\.json: data\.format: is no SQuAD file: Exceeds the limit \(4300 digits\)"),
        (b'{"data":\n ["caf\xe9"]}', r"a\.json:2: data\.encoding: bytes that are not utf-8\n    allowed: another one, e\.g\. latin-1"),
        (b'{"data": [{"title": "a", "paragraph": []}]}', r"a\.json: data\[0\]: has no list 'paragraphs'"),
        (b'{"data": [{"paragraphs": [{"context": "a"}]}]}', r"a\.json: data\[0\]\.paragraphs\[0\]: has no list 'qas' of questions"),
    ],
)
def test_a_file_that_cannot_be_read_or_lacks_its_questions_is_refused(content: bytes, message: str, bert: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        built(bert, tmp_path / "a.json")


@pytest.mark.parametrize("title", [[1], {"a": 1}, math.nan])
def test_an_article_whose_name_is_no_text_is_refused_where_articles_are_cut(title: Any, bert: Path, tmp_path: Path) -> None:
    file = tiny_squad(tmp_path / "squad.json", 4)
    content = json.loads(file.read_text())
    content["data"][1]["title"] = title
    file.write_text(json.dumps(content))
    place = r"squad\.json: data\[1\]\.paragraphs\[0\]\.qas\[0\]: "
    with pytest.raises(ConfigError, match=place + r"the title .* is neither a text nor a whole number"):
        built(bert, file, validation_fraction=0.5)


def test_one_article_cannot_be_cut_and_what_helps_is_said(bert: Path, tmp_path: Path) -> None:
    file = tiny_squad(tmp_path / "squad.json", 4)
    file.write_text(file.read_text().replace('"title"', '"name"'))
    with pytest.raises(ConfigError, match=r"task\.article: all questions are of one article, the title '', .*\n    try: task\.article=null, which"):
        built(bert, file, validation_fraction=0.3)
    assert built(bert, file, {"article": None}, validation_fraction=0.25).num_samples["validation"] == 2


def test_a_byte_order_mark_is_no_part_of_a_squad_file(bert: Path, tmp_path: Path) -> None:
    file = tiny_squad(tmp_path / "squad.json", 4)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert built(bert, file).num_samples["train"] >= 8


def test_half_of_a_character_in_a_context_is_named(bert: Path, tmp_path: Path) -> None:
    file = one_question(tmp_path / "squad.json", [{"text": "good", "answer_start": 12}], context="the film is good \ud800")
    with pytest.raises(ConfigError, match=r"qas\[0\]: .* has half of a character"):
        built(bert, file)


def test_a_split_without_a_single_answer_is_told(bert: Path, tmp_path: Path) -> None:
    file = tmp_path / "squad.json"
    file.write_text(json.dumps({"data": [{"paragraphs": [{"context": CONTEXT, "qas": [{"question": "what is it", "answers": []}]}]}]}))
    assert built(bert, file, {"no_answer": True}).notes[0] == "warning: no question of the train split has an answer"


def test_a_question_without_an_answer_is_learned_where_it_may_be(bert: Path, tmp_path: Path) -> None:
    file = one_question(tmp_path / "squad.json", [], is_impossible=True)
    task: Any = built(bert, file, {"no_answer": True, "article": None}, splits={"validation": None})
    train = task.dataset("train")
    windows = [train[0, index] for index in range(len(train))]
    assert [(window["first"], window["last"]) for window in windows] == [(8, 8), (0, 0)]


def test_rows_of_the_hubs_layout_are_read_too(bert: Path, tmp_path: Path) -> None:
    row = {"question": "what", "context": CONTEXT, "answers": {"text": ["good"], "answer_start": [12]}, "title": "a"}
    (tmp_path / "q.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"answers": None}) + "\n")
    with pytest.raises(ConfigError, match=r"q\.jsonl:2: the answers None are not"):
        built(bert, tmp_path / "q.jsonl", format="jsonl")


def test_the_illustration_shows_question_answer_and_what_was_found(bert: Path, tmp_path: Path) -> None:
    task: Any = built(bert, tiny_squad(tmp_path / "squad.json", 12), validation_fraction=0.5)
    with torch.inference_mode():
        shown = task.illustrate(task.build_model().eval(), "validation", lambda batch: batch, tmp_path)
    assert shown.startswith("## Answers")
    assert shown.count("| what is it |") == 12
    assert task.show_sample("validation", 0, tmp_path).startswith("what is it — ")


def test_a_saved_model_answers_in_three_lines(bert: Path, tmp_path: Path) -> None:
    task: Any = built(bert, tiny_squad(tmp_path / "squad.json", 6))
    model = task.build_model()
    task.save(model, tmp_path / "model", model.state_dict())
    scope: dict[str, Any] = {"print": lambda value: scope.update(printed=value)}
    exec("\n".join(line.format(model=tmp_path / "model") for line in QuestionAnswering.USAGE), scope)
    found = scope["printed"]
    assert found["answer"] == "The notes were written by Ada Lovelace in 1843."[found["start"] : found["end"]]
