from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader

from launch.config.errors import ConfigError
from launch.config.experiment import Experiment
from launch.config.prepared import prepared_dir, read_data_facts, read_prepared
from launch.config.tasks import TextClassification
from tests.tiny import tiny_bert, tiny_sentences
from trainers.reports.rendering import escaped
from trainers.tasks import Task, build_task


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("model") / "bert")


@pytest.fixture
def values(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An experiment's values on 40 tiny sentences, and an empty cache."""
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))
    return {
        "name": "tiny",
        "model": {"source": str(bert)},
        "task": {"kind": "text_classification", "text": "text", "label": "label", "max_length": 16},
        "data": {"source": str(tiny_sentences(tmp_path / "tiny.tsv", 40)), "splits": {"validation": None}, "validation_fraction": 0.25},
        "train": {"duration": "1 epoch", "global_batch_size": 8},
        "optimizer": {"lr": 1e-3},
    }


def experiment(values: dict[str, Any], **changes: Any) -> Experiment:
    """Returns the experiment with dotted keys (__ for the dot) changed."""
    changed = {name: dict(value) if isinstance(value, dict) else value for name, value in values.items()}
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            changed[section][name] = value
        else:
            changed[section] = value
    return Experiment.model_validate(changed)


def first_batch(task: Task, split: str = "train", size: int = 8) -> dict[str, torch.Tensor]:
    dataset = task.dataset(split)
    return task.collate([dataset[0, index] for index in range(size)])  # type: ignore[index]


def test_samples_are_tokenised_counted_and_split(values: dict[str, Any], tmp_path: Path) -> None:
    task = build_task(experiment(values))
    assert task.num_samples == {"train": 30, "validation": 10}
    assert task.label_names == ["0", "1"]
    assert task.notes == []
    lengths = task.lengths("train")
    assert lengths is not None
    assert [len(task.dataset("train")[3, index]["input_ids"]) for index in range(30)] == list(lengths)
    assert list(build_task(experiment(values, task__max_length=6)).lengths("train")) == [min(length, 6) for length in lengths]


def test_packed_texts_lose_what_padded_ones_lose_and_no_padding_is_counted(values: dict[str, Any]) -> None:
    values["model"]["dropout"] = 0.0
    losses, counts = [], []
    for packing in (False, True):
        task = build_task(experiment(values, task__packing=packing))
        batch, model = first_batch(task), task.build_model().train()
        losses.append(float(task.train_loss(model, batch, 0.0)[0].detach()))
        counts.append(task.batch_size_stats(batch))
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    (real, padded), packed = counts
    assert real < padded
    assert packed == (real, real)


def test_a_batch_is_padded_to_its_longest(values: dict[str, Any]) -> None:
    task = build_task(experiment(values))
    batch = first_batch(task)
    lengths = [int(length) for length in task.lengths("train")][:8]
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in batch.items()} == {
        "input_ids": (torch.int64, (8, max(lengths))),
        "attention_mask": (torch.int64, (8, max(lengths))),
        "labels": (torch.int64, (8,)),
    }
    assert batch["attention_mask"].sum(dim=1).tolist() == lengths
    assert batch["input_ids"][batch["attention_mask"] == 0].tolist() == [0] * (8 * max(lengths) - sum(lengths))
    assert task.batch_size_stats(batch) == (sum(lengths), 8 * max(lengths))
    assert task.batch_count(batch) == 8


def test_pairs_have_their_types(values: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("text\tother\tlabel\ngood film\tit is\t1\nbad\ta very dull story\t0\n", encoding="utf-8")
    task = build_task(experiment(values, task__text=["text", "other"], data={"source": str(path), "splits": {"validation": None}}))
    batch = first_batch(task, size=2)
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1, 1, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1, 1]]


@pytest.mark.parametrize(("text", "length", "allowed"), [("text", 2, "3 to 64"), (["text", "label2"], 4, "5 to 64")])
def test_a_length_without_room_for_every_text_is_refused(values: dict[str, Any], text: str | list[str], length: int, allowed: str) -> None:
    with pytest.raises(ConfigError, match=r"tokens, but the model .* of its own to every input") as caught:
        build_task(experiment(values, task__text=text, task__max_length=length))
    assert caught.value.problems[0].allowed == allowed


def test_dataset_and_collate_work_in_spawned_workers(values: dict[str, Any]) -> None:
    task = build_task(experiment(values))
    dataset = task.dataset("train")
    expected = first_batch(task)
    assert pickle.loads(pickle.dumps(dataset))[0, 5]["input_ids"].tolist() == dataset[0, 5]["input_ids"].tolist()
    keys = [[(0, index) for index in range(8)]]
    loader = DataLoader(dataset, batch_sampler=keys, collate_fn=task.collate, num_workers=1, multiprocessing_context="spawn")
    (batch,) = list(loader)
    assert all(torch.equal(batch[name], tensor) for name, tensor in expected.items())


def test_losses_are_sums_that_smoothing_changes_in_training_only(values: dict[str, Any]) -> None:
    task = build_task(experiment(values))
    model, batch = task.build_model().eval(), first_batch(task)
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        loss_sum, count = task.train_loss(model, batch, 0.1)
        evaluated, evaluated_count, (predictions, labels) = task.evaluate_batch(model, batch)
    assert loss_sum.item() == pytest.approx(8 * functional.cross_entropy(logits, batch["labels"], label_smoothing=0.1).item(), rel=1e-6)
    assert evaluated.sum().item() == pytest.approx(8 * functional.cross_entropy(logits, batch["labels"]).item(), rel=1e-6)
    assert (count.item(), evaluated_count.item(), loss_sum.dtype, count.dtype) == (8, 8, torch.float32, torch.int64)
    assert predictions.tolist() == logits.argmax(-1).tolist()
    assert labels.tolist() == batch["labels"].tolist()


def test_metrics_of_a_known_confusion(values: dict[str, Any]) -> None:
    metrics = build_task(experiment(values)).build_metrics()
    metrics.update(torch.tensor([1, 1, 0, 0]), torch.tensor([1, 0, 0, 0]))
    result = metrics.compute()
    assert result["confusion_matrix"].tolist() == [[2, 1], [0, 1]]
    assert result["accuracy"].item() == 0.75
    assert result["f1"].item() == pytest.approx((0.8 + 2 / 3) / 2)
    assert result["matthews"].item() == pytest.approx(2 / 12**0.5)


def test_the_new_head_is_drawn_from_the_seed_alone(values: dict[str, Any]) -> None:
    def head(seed: int) -> torch.Tensor:
        return build_task(experiment(values, seed=seed)).build_model().classifier.weight  # type: ignore[union-attr, return-value]

    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = head(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(first, head(1))
    assert not torch.equal(first, head(2))


def test_dropout_is_set_everywhere_and_the_classes_are_named(values: dict[str, Any]) -> None:
    model: Any = build_task(experiment(values, model__dropout=0.25, task__label_names=["bad", "good"])).build_model()
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.25}
    assert model.config.classifier_dropout == 0.25
    assert (model.config.id2label, model.config.label2id) == ({0: "bad", 1: "good"}, {"bad": 0, "good": 1})
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_saved_model_is_read_by_transformers_and_by_a_next_run(values: dict[str, Any], tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    task = build_task(experiment(values))
    model, run = task.build_model().eval(), tmp_path / "runs/tiny/1"
    (run / "model").mkdir(parents=True)
    (run / "resolved.yaml").touch()
    task.save(model, run / "model", model.state_dict())
    assert (run / "model/model.safetensors").is_file()
    batch = first_batch(task)
    expected = task.evaluate_batch(model, batch)[0].sum().item()
    loaded = AutoModelForSequenceClassification.from_pretrained(run / "model").eval()
    assert task.evaluate_batch(loaded, batch)[0].sum().item() == expected
    assert AutoTokenizer.from_pretrained(run / "model")("good").input_ids == [2, 5, 3]
    next_task = build_task(experiment(values, model__source=str(run)))
    assert next_task.evaluate_batch(next_task.build_model().eval(), batch)[0].sum().item() == expected
    lines = [line.format(model=run / "model") for line in TextClassification.USAGE]
    result = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert "'label': " in result.stdout


def test_a_head_for_other_classes_is_replaced(values: dict[str, Any], tmp_path: Path) -> None:
    task = build_task(experiment(values))
    model = task.build_model()
    task.save(model, tmp_path / "two", model.state_dict())
    three = build_task(experiment(values, model__source=str(tmp_path / "two"), task__label_names=["0", "1", "2"])).build_model()
    assert three.classifier.weight.shape == (3, 32)  # type: ignore[union-attr]


def test_bad_labels_and_empty_texts_are_all_named(values: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "bad.tsv"
    path.write_text("text\tlabel\ngood\t1\n\t0\nbad\t7\ndull\t0\n", encoding="utf-8")
    data = {"source": str(path), "splits": {"validation": None}}
    with pytest.raises(ConfigError) as caught:
        build_task(experiment(values, data=data, task__label_names=["0", "1"]))
    assert [f"{p.where}: {p.what}" for p in caught.value.problems[:2]] == [f"{path}:4: the label '7' is not a class", f"{path}:3: the text is empty"]
    assert not prepared_dir(experiment(values, data=data, task__label_names=["0", "1"])).exists()
    task = build_task(experiment(values, data=data | {"on_bad_row": "skip"}, task__label_names=["0", "1"]))
    assert task.num_samples == {"train": 2}
    assert task.notes[0] == "2 rows skipped (data.on_bad_row=skip):"


def test_left_out_ratings_are_counted(values: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "rated.tsv"
    path.write_text("text\tlabel\ngood\t1.5\nso\t0\nbad\t-2\n", encoding="utf-8")
    task = build_task(experiment(values, data={"source": str(path), "splits": {"validation": None}}, task__label_threshold=0.0))
    assert (task.num_samples, task.label_names) == ({"train": 2}, ["negative", "positive"])
    assert task.notes == ["1 rows left out: their label is exactly 0"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task__max_length": 65}, r"task.max_length: 65 tokens, but the model .* reads at most 64\n    try: task.max_length=64"),
        ({"task__text": "words"}, r"tiny.tsv: task.text: there is no column 'words'\n    allowed: the columns: text, label"),
        (
            {"model__source": "nobody/nothing"},
            "model.source: the tokenizer of nobody/nothing cannot be loaded: the hub's cache does not have it, and the hub is not asked",
        ),
        ({"model__source": "."}, "model.source: .* is not a model's folder: it has no config.json"),
    ],
)
def test_what_cannot_be_trained_is_one_clear_problem(
    changes: dict[str, Any], message: str, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=message):
        build_task(experiment(values, **changes))


def test_weights_of_another_model_are_refused(values: dict[str, Any], bert: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import save_file

    shutil.copytree(bert, tmp_path / "other")
    save_file({"something.weight": torch.zeros(2)}, tmp_path / "other/model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"model.source: .*/other has no weights for .* tensors of BertForSequenceClassification, e.g. bert."):
        build_task(experiment(values, model__source=str(tmp_path / "other"))).build_model()


def test_data_is_prepared_once_and_again_when_its_file_changes(values: dict[str, Any], tmp_path: Path) -> None:
    first = experiment(values)
    assert read_prepared(first) is None
    build_task(first)
    folder = prepared_dir(first)
    assert read_prepared(first) == {"train": 30, "validation": 10}
    written = (folder / "train.arrow").stat().st_mtime_ns
    build_task(experiment(values, optimizer__lr=0.5, data__num_workers=4))
    assert (folder / "train.arrow").stat().st_mtime_ns == written
    assert prepared_dir(experiment(values, seed=1)) != folder
    tiny_sentences(tmp_path / "tiny.tsv", 44)
    assert prepared_dir(first) != folder
    assert build_task(first).num_samples == {"train": 33, "validation": 11}


def test_fingerprint_is_of_the_contents_and_known_to_the_launcher(values: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "tiny.tsv"
    before = build_task(experiment(values)).fingerprint
    assert before == read_data_facts(experiment(values))["fingerprint"]
    path.touch()
    assert read_data_facts(experiment(values)) == {}
    assert build_task(experiment(values)).fingerprint == before
    path.write_text(path.read_text().replace("\t1\n", "\t0\n", 1))
    task = build_task(experiment(values))
    assert (task.num_samples, task.fingerprint == before) == ({"train": 30, "validation": 10}, False)


def test_word_that_the_model_does_not_know_is_shown_as_it_read_it(values: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "tiny.tsv"
    path.write_text(path.read_text().replace("\n", "\nhonest sesquipedalian ", 1))
    task = build_task(experiment(values))
    shown = [task.show_sample(split, index, tmp_path) for split, count in task.num_samples.items() for index in range(count)]
    (unknown,) = [text for text in shown if "UNK" in text]
    assert unknown.startswith(escaped("honest [UNK] "))
    assert not any("CLS" in text or "SEP" in text for text in shown)


def test_processes_that_start_together_prepare_once(values: dict[str, Any], tmp_path: Path) -> None:
    code = (
        "import sys; from launch.config.experiment import Experiment; import trainers.tasks.texts as t\n"
        "from trainers.tasks.text_classification import build_task\n"
        "real = t.prepare\n"
        "def prepare(*a): print('prepared'); real(*a)\n"
        "t.prepare = prepare\n"
        f"print(build_task(Experiment.model_validate({values!r})).num_samples)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = sorted(process.communicate(timeout=500)[0] for process in processes)
    counts = "{'train': 30, 'validation': 10}\n"
    assert outputs == sorted([counts, f"prepared\n{counts}"])
    assert [path.suffix for path in (tmp_path / "cache/prepared").iterdir() if path.is_file()] == [".lock"]


def test_prepared_tokens_are_readable_by_the_datasets_library(values: dict[str, Any]) -> None:
    import datasets

    loaded = experiment(values)
    task = build_task(loaded)
    table = datasets.Dataset.from_file(str(prepared_dir(loaded) / "train.arrow"))
    assert (table.num_rows, table.column_names) == (30, ["input_ids", "label"])
    assert table[7]["input_ids"] == task.dataset("train")[0, 7]["input_ids"].tolist()


def test_a_classifier_that_knows_one_class_has_no_correlation() -> None:
    from trainers.tasks.matthews import Matthews

    coefficient = Matthews(2)
    coefficient.update(torch.zeros(64, dtype=torch.int64), torch.tensor([0] * 63 + [1]))
    assert float(coefficient.compute()) == 0.0
    coefficient.update(torch.tensor([1, 1, 0]), torch.tensor([1, 1, 1]))
    assert float(coefficient.compute()) == pytest.approx(0.6961, abs=1e-4)


def test_a_limit_that_leaves_classes_out_is_warned_of(values: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "sorted.tsv"
    path.write_text("text\tlabel\n" + "good film\t1\n" * 9 + "dull plot\t0\n" * 9, encoding="utf-8")
    data = {"data__source": str(path), "data__validation_fraction": None}
    assert build_task(experiment(values, **data)).notes == []
    warning = "warning: no sample to train on is of the class 0: data.limit takes the first 5 of each split, as they stand in the source"
    assert build_task(experiment(values, **data, data__limit=5)).notes == [warning]


def test_data_that_another_tokenizers_library_prepared_is_prepared_again(values: dict[str, Any]) -> None:
    folder = prepared_dir(experiment(values))
    build_task(experiment(values))
    made = (folder / "info.json").stat().st_ino
    build_task(experiment(values))
    assert (folder / "info.json").stat().st_ino == made
    info = json.loads((folder / "info.json").read_text(encoding="utf-8"))
    (folder / "info.json").write_text(json.dumps(info | {"tokenizers": "0.0.1"}), encoding="utf-8")
    build_task(experiment(values))
    assert json.loads((folder / "info.json").read_text(encoding="utf-8")) == info
