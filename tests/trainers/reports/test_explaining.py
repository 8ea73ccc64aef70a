"""What a classifier looked at: exact where it can be worked out by hand, complete where it cannot."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from launch.config.experiment import Experiment
from tests.tiny import tiny_bert, tiny_sentences
from tests.tiny_pictures import tiny_folder
from trainers.reports.explaining import can_be_explained, class_activation, explain_tokens, integrated_gradients, with_gradients
from trainers.reports.explanations import explained_indices
from trainers.tasks import build_task


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "cache"))


def built(tmp_path: Path, task: dict[str, Any], model: dict[str, Any], data: dict[str, Any]) -> Any:
    sections = {"task": task, "model": model, "data": data, "train": {"duration": "1 epoch", "global_batch_size": 8}, "optimizer": {"lr": 0.01}}
    return build_task(Experiment.model_validate({"name": "explained", **sections}))


def texts(tmp_path: Path) -> Any:
    data = {"source": str(tiny_sentences(tmp_path / "texts.tsv", 40)), "splits": {"validation": None}, "validation_fraction": 0.25}
    task = {"kind": "text_classification", "text": "text", "label": "label", "max_length": 32}
    return built(tmp_path, task, {"source": str(tiny_bert(tmp_path / "bert")), "dropout": 0.0}, data)


def pictures(tmp_path: Path) -> Any:
    data = {"source": str(tiny_folder(tmp_path / "pictures", 4)), "splits": {"validation": "val"}}
    model = {"class": "trainers.architectures.small_cnn:SmallCnn", "kwargs": {"channels": 3, "size": 16, "dropout": 0.0}}
    return built(tmp_path, {"kind": "image_classification", "size": 16}, model, data)


def test_gradients_of_a_quadratic_are_integrated_exactly():
    given, baseline = torch.tensor([1.0, 2.0, -3.0]), torch.tensor([0.0, 1.0, 0.0])
    weights = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, -1.0]])
    score = lambda x: ((x @ weights) * x).sum(dim=-1) + x[:, 0]  # noqa: E731
    added = integrated_gradients(score, given, baseline, num_steps=1)
    # By hand: 2 x0^2 + x0 x1 + 3 x1^2 - x2^2 + x0, gradients at the middle (0.5, 1.5, -1.5).
    assert added.tolist() == pytest.approx([1 * (4 * 0.5 + 1.5 + 1), 1 * (0.5 + 6 * 1.5), -3 * (-2 * -1.5)])
    assert float(added.sum()) == pytest.approx(float(score(given[None]) - score(baseline[None])))


def test_what_the_tokens_add_is_the_difference_to_the_text_without_words(tmp_path):
    task = texts(tmp_path)
    model = task.build_model().eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    batch = task.collate([task.dataset("train")[0, index] for index in range(30)])
    for _ in range(20):
        optimizer.zero_grad()
        task.train_loss(model, batch, 0.0)[0].backward()
        optimizer.step()
    optimizer.zero_grad()
    one = task.collate([task.dataset("train")[0, 1]])
    one.pop("labels")
    special = torch.zeros(one["input_ids"].shape[1], dtype=torch.bool)
    special[[0, -1]] = True
    with torch.inference_mode(), with_gradients(model):
        added, logit, baseline = explain_tokens(model, one, 1, task.collate.pad_token_id, special)
    assert added[special].abs().max() == 0
    assert abs(logit - baseline) > 1
    assert float(added.sum()) == pytest.approx(logit - baseline, rel=0.02)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_words_are_explained_of_weights_in_16_bits(tmp_path):
    """As ZeRO in bf16 holds them: a layer of 16 bits takes no fp32."""
    task = texts(tmp_path)
    model = task.build_model().eval().to(torch.bfloat16)
    batch = task.collate([task.dataset("validation")[0, 0]])
    one = {name: batch[name] for name in ("input_ids", "attention_mask")}
    special = torch.zeros(one["input_ids"].shape[1], dtype=torch.bool)
    with torch.inference_mode(), with_gradients(model):
        added, _, _ = explain_tokens(model, one, 1, task.collate.pad_token_id, special)
    assert added.dtype == torch.float32


def test_words_are_explained_in_32_bits_where_accelerate_computes_in_16(tmp_path, monkeypatch):
    """The rounding of 16 bits is more than what more points could mend, and most CPUs only imitate them."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    monkeypatch.setattr(AcceleratorState, "_shared_state", {})  # other tests of this process have another precision
    task = texts(tmp_path)
    model = task.build_model().eval()
    batch = task.collate([task.dataset("validation")[0, 0]])
    one = {name: batch[name] for name in ("input_ids", "attention_mask")}
    special = torch.zeros(one["input_ids"].shape[1], dtype=torch.bool)
    with torch.inference_mode(), with_gradients(model):
        plain = explain_tokens(model, one, 1, task.collate.pad_token_id, special)
    cast: Any = Accelerator(cpu=True, mixed_precision="bf16").prepare(model)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), with_gradients(cast):  # an evaluation is within another autocast
        added, *logits = explain_tokens(cast, one, 1, task.collate.pad_token_id, special)
    assert torch.equal(added, plain[0])
    assert logits == list(plain[1:])
    with torch.no_grad():
        assert cast(**one).logits[0, 1].item() != logits[0]  # elsewhere it computes in 16 bits as before


class Jump(nn.Module):
    """A score of the sum of three words, and 1 more beyond half of it: a jump that no gradient sees, however many points."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding.from_pretrained(torch.tensor([[0.0], [1.0]]))
        self.asked: list[int] = []

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        total = self.words(input_ids).sum(dim=(1, 2))
        self.asked.append(len(total))
        return SimpleNamespace(logits=(total + (total > 1.5))[:, None])


def test_more_points_are_taken_as_long_as_they_help():
    model = Jump()
    added, given, baseline = explain_tokens(model, {"input_ids": torch.ones(1, 3, dtype=torch.long)}, 0, 0, torch.zeros(3, dtype=torch.bool))
    assert (added.tolist(), given, baseline) == ([1.0, 1.0, 1.0], 4.0, 0.0)
    assert sum(model.asked) == 2 + 16 + 64  # the ends; 16 points; 64, which leave out as much


def test_the_map_of_a_network_that_averages_is_what_it_averages():
    network = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2, bias=False))
    network[0].weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
    network[3].weight.data = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    pixels = torch.tensor([[0.0, 4.0], [-2.0, 1.0]]).reshape(1, 1, 2, 2)
    assert class_activation(network, network, pixels, 0).tolist() == [[0.0, 1.0], [0.0, 0.25]]
    assert class_activation(network, network, pixels, 1).tolist() == [[0.0, 0.0], [1.0, 0.0]]


def test_a_network_with_attention_has_no_maps():
    network = nn.Sequential(nn.Conv2d(1, 4, 2), nn.Flatten(2), nn.MultiheadAttention(4, 1))
    assert class_activation(network, network, torch.zeros(1, 1, 4, 4), 0) is None


def test_a_report_shows_the_words_and_the_places_that_counted(tmp_path):
    for task, kind in ((texts(tmp_path), "words"), (pictures(tmp_path), "places")):
        model = task.build_model().eval()
        with torch.inference_mode():
            shown = task.illustrate(model, "validation", lambda batch: batch, tmp_path / "figures")
            assert task.illustrate(model, "validation", lambda batch: batch, None) == ""
        assert shown.startswith("## What the model looks at")
        indices = explained_indices(task.num_samples["validation"])
        assert len(indices) == 4
        assert all((tmp_path / "figures" / f"validation-{kind}-{index}.png").is_file() for index in indices)
        assert all(f"(figures/validation-{kind}-{index}.png)" in shown for index in indices)


def test_parameters_that_ranks_divide_are_left_alone():
    layer = nn.Linear(2, 2)
    assert can_be_explained(layer)
    layer.weight.ds_id = 1  # as DeepSpeed marks them
    assert not can_be_explained(layer)
