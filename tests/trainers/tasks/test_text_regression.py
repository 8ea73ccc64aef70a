from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from launch.config.errors import ConfigError
from launch.config.experiment import Experiment
from tests.tiny import tiny_bert
from trainers.tasks import Task, build_task
from trainers.tasks.correlations import Pearson, Spearman


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("model") / "bert")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))


def built(bert: Path, folder: Path, ratings: list[object], data: dict[str, Any] | None = None, **task: Any) -> Task:
    rows = "".join(f"good film\t{rating}\n" for rating in ratings)
    (folder / "rated.tsv").write_text(f"text\trating\n{rows}")
    values = {
        "name": "tiny",
        "model": {"source": str(bert)},
        "task": {"kind": "text_regression", "text": "text", "label": "rating", "max_length": 16, **task},
        "data": {"source": str(folder / "rated.tsv"), "splits": {"validation": None}, **(data or {})},
        "train": {"duration": "1 epoch", "global_batch_size": 8},
        "optimizer": {"lr": 1e-3},
    }
    return build_task(Experiment.model_validate(values))


def batch_of(task: Task) -> dict[str, torch.Tensor]:
    dataset: Any = task.dataset("train")
    return task.collate([dataset[0, index] for index in range(task.num_samples["train"])])


@pytest.mark.parametrize("pooling", [None, "mean"])
def test_the_loss_is_the_sum_of_squared_errors_and_its_count(pooling: str | None, bert: Path, tmp_path: Path) -> None:
    task = built(bert, tmp_path, [0, 2.5, -1, "1e1"], pooling=pooling)
    model, batch = task.build_model().eval(), batch_of(task)
    assert batch["labels"].tolist() == [0.0, 2.5, -1.0, 10.0]
    assert batch["labels"].dtype == torch.float32
    loss, count = task.train_loss(model, batch, 0.0)
    values = task.evaluate_batch(model, batch)[2][0].tolist()
    assert len(values) == 4
    assert loss.item() == pytest.approx(sum((value - label) ** 2 for value, label in zip(values, [0, 2.5, -1, 10], strict=True)), rel=1e-5)
    assert (int(count), task.batch_count(batch), task.label_names) == (4, 4, [])


def test_what_is_no_number_is_named_with_its_place(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        built(bert, tmp_path, [1, "good", "", "inf", "1_5", 2])
    text = str(caught.value)
    found = ((3, "'good'"), (4, "''"), (5, "'inf'"), (6, "'1_5'"))
    assert all(f"rated.tsv:{line}: the label {label} is not a number" in text for line, label in found)


@pytest.mark.parametrize("label", ["1e300", "-1e38", "1e20"])
def test_a_label_beyond_single_precision_is_named_with_its_place(label: str, bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"rated.tsv:3: the label '{label}' is too large to be learned\n    allowed: numbers from -1e\\+15 to"):
        built(bert, tmp_path, [1, label, 2])


def test_one_value_for_everything_is_refused(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.label: all labels of the column 'rating' are 3"):
        built(bert, tmp_path, [3, 3.0, "3"])


def test_a_split_of_one_value_is_told_since_nothing_correlates_with_it(bert: Path, tmp_path: Path) -> None:
    task = built(bert, tmp_path, [0, 1, 2, 3, 4], {"validation_fraction": 0.2})
    value = float(task.dataset("validation")[0, 0]["label"])
    assert task.notes == [f"warning: all 1 labels of the validation split are {value:g}: nothing to tell apart, and a correlation is 0"]
    (note,) = built(bert, tmp_path, [0, 0, 1], {"limit": 2}).notes
    assert note.startswith("warning: all 2 labels of the train split are 0: ")
    assert note.endswith("; data.limit takes the first 2 of each split")
    assert built(bert, tmp_path, [0, 1]).notes == []


def test_a_saved_model_gives_one_number(bert: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    task = built(bert, tmp_path, [0, 1])
    model: Any = task.build_model()
    task.save(model, tmp_path / "model", model.state_dict())
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").config
    assert (config.num_labels, config.problem_type) == (1, "regression")


def test_correlations_have_exact_values() -> None:
    predictions, targets = torch.tensor([1.0, 2.0, 3.0, 5.0]), torch.tensor([1.0, 4.0, 3.0, 8.0])
    pearson, spearman = Pearson(), Spearman()
    for metric in (pearson, spearman):
        metric.update(predictions[:3], targets[:3])
        metric.update(predictions[3:], targets[3:])
    assert float(pearson.compute()) == pytest.approx(14.0 / (8.75 * 26.0) ** 0.5, rel=1e-9)
    assert float(spearman.compute()) == pytest.approx(0.8, rel=2e-6)  # torchmetrics adds 1e-6 to the denominator


def test_equal_values_share_their_mean_rank() -> None:
    metric = Spearman()
    metric.update(torch.tensor([1.0, 2.0, 2.0]), torch.tensor([1.0, 2.0, 3.0]))
    assert float(metric.compute()) == pytest.approx(3**0.5 / 2, rel=2e-6)


@pytest.mark.parametrize("metric", [Pearson, Spearman])
def test_one_answer_to_everything_correlates_with_nothing(metric: type[Pearson]) -> None:
    constant = metric()
    constant.update(torch.full((4,), 0.3), torch.arange(4.0))
    assert float(constant.compute()) == 0.0


@pytest.mark.parametrize("metric", [Pearson, Spearman])
def test_a_correlation_does_not_depend_on_the_order_of_the_batches(metric: type[Pearson]) -> None:
    torch.manual_seed(0)
    predictions, targets = torch.randn(50), torch.randn(50)
    one, other = metric(), metric()
    one.update(predictions, targets)
    for part in (slice(30, 50), slice(0, 30)):
        other.update(predictions[part], targets[part])
    assert float(one.compute()) == float(other.compute())
