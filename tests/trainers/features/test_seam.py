"""Where a head begins: found in networks of every library, and refused where it could not be trained apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import tiny_bert
from trainers.architectures.cifar_resnet import CifarResNet
from trainers.architectures.small_cnn import SmallCnn
from trainers.features.seam import NoSeamError, attach_head, compute_features, find_seam, through_head
from trainers.optimizers import freeze_parameters

PIXELS = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def frozen(model: nn.Module, *patterns: str) -> nn.Module:
    freeze_parameters(model, patterns)
    return model


class Doubled(nn.Module):
    """What stands between two trained layers is no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, rows: Tensor) -> Tensor:
        return self.two(2 * self.one(self.body(rows)))


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, rows: Tensor) -> Tensor:
        hidden = self.body(rows)
        return self.head(hidden + torch.randn_like(hidden) if self.training else hidden)


@pytest.mark.parametrize(
    ("model", "patterns", "head", "shape"),
    [
        (CifarResNet(8), ["conv1.*", "bn1.*", "layer*"], ("linear",), (3, 64)),
        (SmallCnn(channels=3, size=32), ["0.*", "2.*"], ("5", "6", "7", "8", "9", "10"), (3, 64, 14, 14)),
        (SmallCnn(channels=3, size=32, dropout=0.0), ["[0-7].*"], ("10",), (3, 128)),
    ],
)
def test_the_head_begins_at_the_first_layer_that_is_trained_or_random(model, patterns, head, shape) -> None:
    frozen(model, *patterns)
    seam = find_seam(model, lambda: model(PIXELS))
    assert (seam.head, tuple(seam.features.shape)) == (head, shape)
    whole = model(PIXELS)
    assert torch.equal(through_head(model, seam.head, seam.features), whole)
    assert torch.equal(compute_features(model, seam.head, lambda: model(PIXELS)), seam.features)
    attach_head(model, seam.head)
    assert torch.equal(model(features=seam.features), whole)
    assert torch.equal(model(PIXELS), whole)


def test_a_classifier_of_texts_has_its_dropout_in_the_head(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model = frozen(AutoModelForSequenceClassification.from_pretrained(tiny_bert(tmp_path)), "bert.*")
    ids = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])
    seam = find_seam(model, lambda: model(input_ids=ids, attention_mask=(ids > 0).long()).logits)
    assert (seam.head, tuple(seam.features.shape)) == (("dropout", "classifier"), (2, 32))


@pytest.mark.parametrize(
    ("model", "patterns", "reason"),
    [
        (Doubled(), ["body.*"], "from one on the model does more than one layer after the other"),
        (Noisy(), ["body.*"], "its frozen part does not compute the same in training as in an evaluation"),
        (CifarResNet(8), ["linear.*"], "no layer before the first one that is trained is frozen"),
        (CifarResNet(8), ["layer3.*"], "no layer before the first one that is trained is frozen"),
    ],
)
def test_a_head_that_cannot_be_trained_apart_is_refused(model, patterns, reason) -> None:
    frozen(model, *patterns)
    rows = torch.rand(3, 4) if hasattr(model, "body") else PIXELS
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(NoSeamError, match=reason):
        find_seam(model, lambda: model(rows))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
