"""Files of weights: read without running code, renamed, and put into a network whole or not at all."""

from __future__ import annotations

import re

import pytest
import torch
import torchvision
import yaml
from torch import nn

from launch.config.errors import ConfigError
from launch.config.load import shipped_configs
from trainers.models.weights import put_weights, read_weights, rename


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def refused(call, *arguments) -> str:
    with pytest.raises(ConfigError) as error:
        call(*arguments)
    return str(error.value)


def test_the_first_renaming_that_matches_counts_and_an_empty_name_is_left_out():
    weights = {name: torch.zeros(1) for name in ("module.a.0.w", "module.b.w", "optimizer.lr")}
    rules = [r"^module\.a\.(\d+)\. -> body.\1.first.", r"^module\. -> ", "^optimizer.* ->"]
    assert list(rename(weights, rules)) == ["body.0.first.w", "b.w"]


def test_a_renaming_that_matches_nothing_is_refused():
    assert "'^x -> y' matches no name" in refused(rename, {"a": torch.zeros(1)}, ["^x -> y"])


def test_two_names_that_become_one_are_refused():
    weights = {"a.w": torch.zeros(1), "b.w": torch.zeros(1)}
    assert "'a.w' and 'b.w' both become 'w'" in refused(rename, weights, [r"^[ab]\. -> "])


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_weights_come_back_from_either_format(tmp_path, ending):
    from safetensors.torch import save_file

    weights, path = {"w": torch.arange(3.0)}, tmp_path / f"x.{ending}"
    save_file(weights, path) if ending == "safetensors" else torch.save({"state_dict": weights, "best_prec1": 91.7, "epoch": 3}, path)
    assert torch.equal(read_weights(path)["w"], weights["w"])


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save(network(), tmp_path / "whole.pt")
    assert "is damaged or holds more than tensors, and reading that could run any code" in refused(read_weights, tmp_path / "whole.pt")


@pytest.mark.parametrize(("name", "message"), [("x.pt", "is damaged or holds more than tensors"), ("x.safetensors", "cannot be read as weights")])
def test_a_damaged_file_is_one_message(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"damaged")
    assert message in refused(read_weights, tmp_path / name)


def test_only_the_head_may_be_missing_or_of_another_size():
    source, target = network(), network()
    weights = dict(source.state_dict()) | {"3.weight": torch.zeros(5, 4), "3.bias": torch.zeros(5)}
    assert put_weights(target, weights, "3", "x.pt") is False
    assert torch.equal(target[0].weight, source[0].weight)
    assert put_weights(target, source.state_dict(), "3", "x.pt") is True
    text = refused(put_weights, network(), {"0.weight": torch.zeros(4, 3, 5, 5), "old": torch.zeros(1)}, "3", "x.pt")
    assert "x.pt: model.key_map: has no weights for 5 tensors: 0.bias, 1.weight" in text
    assert "Sequential has no place for 1 tensors: old" in text
    assert "0.weight is (4, 3, 5, 5), and the model's is (4, 3, 3, 3)" in text


def test_the_shipped_key_map_gives_old_mobilenet_names_torchvisions():
    """The old layout: an inverted residual is one flat Sequential, `conv.0` to `conv.7`."""
    model = yaml.safe_load((shipped_configs() / "experiments" / "image_folder_frozen.yaml").read_text())["model"]
    new = torchvision.models.mobilenet_v2().state_dict()
    old = {}
    for name, tensor in new.items():
        flat = re.sub(r"(features\.1\.conv)\.(0\.0|0\.1|1|2)\.", lambda m: f"{m[1]}.{ {'0.0': 0, '0.1': 1, '1': 3, '2': 4}[m[2]] }.", name)
        if flat == name:
            places = {"0.0": 0, "0.1": 1, "1.0": 3, "1.1": 4, "2": 6, "3": 7}
            flat = re.sub(r"(features\.\d+\.conv)\.(0\.0|0\.1|1\.0|1\.1|2|3)\.", lambda m, places=places: f"{m[1]}.{places[m[2]]}.", name)
        old[flat] = tensor
    assert "features.2.conv.7.weight" in old
    assert set(rename(old, model["key_map"])) == set(new)
