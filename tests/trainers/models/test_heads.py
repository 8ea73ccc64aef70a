"""The last layer of a classifier, found whatever its name."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from launch.config.errors import ConfigError
from trainers.models.heads import find_head, head_size, replace_head

HEADS = {
    "alexnet": "classifier.6",
    "convnext_tiny": "classifier.2",
    "densenet121": "classifier",
    "efficientnet_b0": "classifier.1",
    "mobilenet_v3_small": "classifier.3",
    "resnet18": "fc",
    "squeezenet1_1": "classifier.1",
    "vit_b_16": "heads.head",
}


@pytest.mark.parametrize("name", HEADS)
def test_the_head_of_torchvisions_networks_is_found_and_replaced(name):
    with torch.device("meta"):
        network = torchvision.models.get_model(name, weights=None)
        assert (find_head(network, None), head_size(network, HEADS[name])) == (HEADS[name], 1000)
        replace_head(network, HEADS[name], 7)
    assert head_size(network, HEADS[name]) == 7


def test_a_network_without_a_linear_layer_names_its_last_layers():
    with pytest.raises(ConfigError) as error:
        find_head(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), None)
    assert "no linear layer and no 1 x 1 convolution" in str(error.value)
    assert "0 (Conv2d), 1 (ReLU)" in str(error.value)


def test_a_wrong_name_gets_the_candidates_and_the_nearest():
    network = nn.ModuleDict({"body": nn.Linear(4, 4), "classifier": nn.Linear(4, 2), "norm": nn.LayerNorm(2)})
    assert find_head(network, "body") == "body"
    with pytest.raises(ConfigError) as error:
        find_head(network, "clasifier")
    assert "allowed: body, classifier" in str(error.value)
    assert "try: model.head=classifier" in str(error.value)
    with pytest.raises(ConfigError, match="'norm' is a LayerNorm, no linear layer"):
        find_head(network, "norm")
