from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from launch.config.errors import ConfigError
from launch.config.experiment import Experiment
from launch.config.prepared import read_data_facts, read_prepared
from tests.tiny import tiny_bert, tiny_classifier, tiny_sentences
from trainers.engine import Engine
from trainers.features.computed_once import OncePerSample
from trainers.stopping import StopRequests
from trainers.tasks import Precomputes, build_task
from trainers.tasks.distill import TEACHER, DistillTask, soft_loss
from trainers.world import World


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_classifier(tmp_path_factory.mktemp("model") / "teacher")


@pytest.fixture
def values(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An experiment's values on 40 tiny sentences, and an empty cache."""
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))
    return {
        "name": "tiny",
        "model": {"source": str(teacher), "dropout": 0.0},
        "task": {"kind": "distill", "teacher": str(teacher), "text": "text", "label": "label", "max_length": 16},
        "data": {"source": str(tiny_sentences(tmp_path / "tiny.tsv", 40)), "splits": {"validation": None}, "validation_fraction": 0.25},
        "train": {"duration": "1 epoch", "global_batch_size": 8},
        "optimizer": {"lr": 1e-3},
    }


@pytest.fixture
def once() -> OncePerSample:
    return OncePerSample(Engine(World(), None, "fp32"), StopRequests(), num_workers=0)


def build(values: dict[str, Any], **options: Any) -> tuple[Experiment, DistillTask]:
    experiment = Experiment.model_validate(values | {"task": values["task"] | options})
    task = build_task(experiment)
    assert isinstance(task, DistillTask)
    return experiment, task


def test_soft_loss_of_known_logits_is_scaled_by_the_temperature_and_zero_where_both_agree() -> None:
    student, teacher = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    p = 1 / (1 + torch.tensor(-1.0, dtype=torch.float64).exp())  # of logits 2 and 0 at temperature 2
    expected = 4 * (p * (2 * p).log() + (1 - p) * (2 * (1 - p)).log())
    assert float(soft_loss(student, teacher, 2.0)) == pytest.approx(float(expected), rel=1e-5)
    assert float(soft_loss(teacher, teacher, 3.0)) == pytest.approx(0.0, abs=1e-7)


def test_gradient_of_the_soft_loss_hardly_depends_on_a_high_temperature() -> None:
    teacher = torch.tensor([[0.5, -0.5]])
    gradients = []
    for temperature in (20.0, 40.0):
        student = torch.zeros(1, 2, requires_grad=True)
        soft_loss(student, teacher, temperature).backward()
        gradients.append(student.grad)
    assert gradients[0] is not None
    assert gradients[0].tolist() == [[pytest.approx(-0.25, rel=1e-3), pytest.approx(0.25, rel=1e-3)]]  # (z - v) / C, section 2.1 of the paper
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-3)  # type: ignore[arg-type]


def test_a_student_has_the_layers_and_words_that_are_named(values: dict[str, Any], teacher: Path) -> None:
    from safetensors.torch import load_file

    _, whole = build(values)
    _, cut = build(values, layers=[1], vocabulary="train")
    of_teacher, student = load_file(teacher / "model.safetensors"), cut.build_model().state_dict()
    assert torch.equal(student["bert.encoder.layer.0.output.dense.weight"], of_teacher["bert.encoder.layer.1.output.dense.weight"])
    assert not [name for name in student if name.startswith("bert.encoder.layer.1.")]
    assert torch.equal(student["classifier.weight"], of_teacher["classifier.weight"])
    used = sorted({piece for index in range(30) for piece in whole.dataset("train")[0, index]["input_ids"].tolist()} | {0, 1, 2, 3, 4, 26})
    assert torch.equal(student["bert.embeddings.word_embeddings.weight"], of_teacher["bert.embeddings.word_embeddings.weight"][used])


def test_words_that_stand_in_train_are_cut_into_the_same_pieces_by_the_student(values: dict[str, Any]) -> None:
    _, whole = build(values)
    _, cut = build(values, vocabulary="train")
    for index in range(30):
        assert cut.show_sample("train", index, Path()) == whole.show_sample("train", index, Path())


def test_the_launcher_finds_the_facts_of_the_student_s_data(values: dict[str, Any]) -> None:
    experiment, task = build(values, vocabulary="train")
    assert read_prepared(experiment) == {"train": 30, "validation": 10}
    assert read_data_facts(experiment)["fingerprint"] == task.fingerprint


def test_another_teacher_under_the_same_name_is_another_training(values: dict[str, Any], tmp_path: Path) -> None:
    own = tiny_classifier(tmp_path / "own")
    before = build(values, teacher=str(own))[1].fingerprint
    assert build(values, teacher=str(own))[1].fingerprint == before
    weights = own / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert build(values, teacher=str(own))[1].fingerprint != before


def test_the_teacher_s_logits_are_computed_once_and_are_those_of_an_evaluation(values: dict[str, Any], once: OncePerSample) -> None:
    from transformers import AutoModelForSequenceClassification

    experiment, task = build(values, layers=[0])
    assert isinstance(task, Precomputes)
    assert "computed in" in task.precompute(once)[0]
    teacher = AutoModelForSequenceClassification.from_pretrained(values["task"]["teacher"]).eval()
    sample = task.dataset("train")[0, 7]
    with torch.no_grad():
        logits = teacher(input_ids=torch.tensor([sample["input_ids"].tolist()])).logits[0]
    assert torch.allclose(sample[TEACHER], logits, atol=1e-5)
    assert TEACHER not in task.dataset("validation")[0, 0]
    again = build_task(experiment)
    assert isinstance(again, DistillTask)
    assert "found" in again.precompute(once)[0]
    assert torch.equal(again.dataset("train")[3, 7][TEACHER], sample[TEACHER])


def test_the_loss_is_shared_by_labels_and_teacher(values: dict[str, Any], once: OncePerSample) -> None:
    _, task = build(values, soft_share=0.25, temperature=3.0)
    task.precompute(once)
    samples = task.dataset("train")
    batch = task.collate([samples[0, index] for index in range(8)])
    model = task.build_model().eval()
    with torch.no_grad():
        loss, count = task.train_loss(model, batch, 0.0)
        logits = task.logits(model, batch)
    hard = torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="sum")
    assert float(loss) == pytest.approx(float(0.75 * hard + 0.25 * soft_loss(logits, batch[TEACHER], 3.0)), rel=1e-6)
    assert int(count) == task.batch_count(batch) == 8
    assert float(soft_loss(logits, batch[TEACHER], 3.0)) == pytest.approx(0.0, abs=1e-5)  # the student is the teacher, and has no dropout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [0, 2]}, r"task.layers: .* has no layer 2\n    allowed: some of 0 to 1, each once"),
        ({"layers": [1, 1]}, "task.layers: a layer stands there twice"),
        ({"teacher": "."}, "task.teacher: .* is not a model's folder: it has no config.json"),
        ({"label_names": ["1", "0"]}, "task.teacher: .* tells 0, 1 apart, and the classes of the data are 1, 0"),
    ],
)
def test_what_cannot_be_taught_is_one_clear_problem(options: dict[str, Any], message: str, values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=message):
        build(values, **options)


def test_a_teacher_that_was_never_fine_tuned_is_refused(values: dict[str, Any], tmp_path: Path, once: OncePerSample) -> None:
    _, task = build(values, teacher=str(tiny_bert(tmp_path / "bert")))
    with pytest.raises(ConfigError, match=r"task\.teacher: .*/bert has no head for the classes .* it has not been fine-tuned"):
        task.precompute(once)
