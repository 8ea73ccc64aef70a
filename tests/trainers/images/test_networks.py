"""Networks of torchvision, of the hub's library, of a class: built, fitted to the classes, saved, built again."""

from __future__ import annotations

import random

import pytest
import torch

from launch.config.errors import ConfigError
from launch.config.experiment import Model
from tests.tiny_pictures import write_picture
from trainers.architectures.small_cnn import SmallCnn
from trainers.images.classifier import load_classifier
from trainers.images.networks import Classifier, build_network, find_statistics, load_network, save_network
from trainers.models.batch_norm import batch_norm_warning
from trainers.optimizers import set_training_mode

NAMES = ["a", "b", "c"]
SMALL = {"class": "trainers.architectures.small_cnn:SmallCnn", "kwargs": {"channels": 3, "size": 8, "num_classes": 3}}


def build(seed: int = 0, names: list[str] = NAMES, **model):
    return build_network(Model.model_validate(model), names, 3, seed)


def refused(**model) -> str:
    with pytest.raises(ConfigError) as error:
        build(**model)
    return str(error.value)


def classifier(library: str, architecture: str, **changes) -> Classifier:
    return Classifier(library, architecture, NAMES, size=8, resize=None, mean=[0.5] * 3, std=[0.5] * 3, **changes)


def test_new_weights_come_from_the_seed_and_leave_the_global_state_alone():
    before = torch.get_rng_state()
    first, _ = build(1, source="torchvision://squeezenet1_1?weights=null")
    second, _ = build(1, source="torchvision://squeezenet1_1?weights=null")
    other, _ = build(2, source="torchvision://squeezenet1_1?weights=null")
    assert torch.equal(first.classifier[1].weight, second.classifier[1].weight)
    assert not torch.equal(first.classifier[1].weight, other.classifier[1].weight)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unknown_network_or_weights_gets_the_nearest_name():
    assert "did you mean 'resnet50'?" in refused(source="torchvision://resnet5O?weights=null")
    assert "has no weights 'IMAGENET1K_V3'; did you mean 'IMAGENET1K_V" in refused(source="torchvision://resnet50?weights=IMAGENET1K_V3")
    assert "auxiliary heads" in refused(source="torchvision://googlenet?weights=null")


def test_weights_that_are_not_cached_name_the_folder_and_the_ways_out(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("trainers.images.torchvision_models.is_reachable", lambda url: False)
    text = refused(source="torchvision://squeezenet1_1?weights=DEFAULT")
    assert f"are not in torch's cache ({tmp_path}/hub/checkpoints/squeezenet1_1-" in text
    assert "TORCH_HOME=DIR" in text


def test_published_weights_are_taken_from_torch_home(tmp_path, monkeypatch):
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    path = tmp_path / "hub" / "checkpoints" / published.url.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        original = torchvision.models.squeezenet1_1()
    torch.save(original.state_dict(), path)
    network, notes = build(source="torchvision://squeezenet1_1?weights=DEFAULT")
    assert torch.equal(network.features[0].weight, original.features[0].weight)
    assert notes == ["the head classifier.1 is new: 3 classes instead of 1000"]
    mean, std = find_statistics(Model(source="torchvision://squeezenet1_1?weights=DEFAULT"), 3)
    assert (mean, std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def test_a_torchvision_network_is_saved_and_built_again(tmp_path):
    network, _ = build(source="torchvision://squeezenet1_1?weights=null")
    save_network(network, classifier("torchvision", "squeezenet1_1"), tmp_path, network.state_dict())
    again, pixels = load_network(tmp_path), torch.rand(2, 3, 64, 64)
    assert torch.equal(again(pixels), network.eval()(pixels))
    from_run, notes = build(source=str(tmp_path))
    assert torch.equal(from_run.eval()(pixels), again(pixels))
    assert notes == []
    others, notes = build(names=["x", "y", "z"], source=str(tmp_path))
    assert notes == [f"the head classifier.1 is new: {tmp_path} tells other classes apart"]
    assert torch.equal(others.features[0].weight, again.features[0].weight)
    assert not torch.equal(others.classifier[1].weight, again.classifier[1].weight)


def test_a_class_is_saved_and_built_again(tmp_path):
    network, notes = build(**SMALL)
    assert notes == []
    facts = classifier("own", SMALL["class"], kwargs=SMALL["kwargs"])
    save_network(network, facts, tmp_path, network.state_dict())
    pixels = torch.rand(2, 3, 8, 8)
    assert torch.equal(load_network(tmp_path)(pixels), network.eval()(pixels))
    assert "model.source=null model.class=trainers.architectures.small_cnn:SmallCnn" in refused(source=str(tmp_path))
    from_weights, _ = build(5, weights=str(tmp_path), **SMALL)
    assert torch.equal(from_weights.eval()(pixels), network(pixels))


def test_a_classifier_of_the_hubs_library_gets_a_new_head(tmp_path):
    import transformers

    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5)
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
    network, notes = build(source=str(tmp_path))
    assert notes == ["the head is new: 3 classes"]
    assert network(torch.rand(2, 3, 32, 32)).logits.shape == (2, 3)
    assert find_statistics(Model(source=str(tmp_path)), 3) == ([0.5] * 3, [0.5] * 3)
    save_network(network, classifier("transformers", ""), tmp_path / "saved", network.state_dict())
    pixels = torch.rand(2, 3, 32, 32)
    assert torch.equal(load_network(tmp_path / "saved")(pixels).logits, network.eval()(pixels).logits)


@pytest.mark.parametrize("resize", [None, 36])
def test_transformers_own_pipeline_uses_what_was_saved_as_we_do(resize, tmp_path):
    import transformers

    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "source")
    network, _ = build(source=str(tmp_path / "source"))
    facts = Classifier("transformers", "", NAMES, size=32, resize=resize, mean=[0.4, 0.5, 0.6], std=[0.2, 0.2, 0.3])
    save_network(network, facts, tmp_path / "saved", network.state_dict())
    picture = write_picture(tmp_path / "x.png", "red", random.Random(0), size=40)
    theirs = {one["label"]: one["score"] for one in transformers.pipeline("image-classification", model=str(tmp_path / "saved"))(str(picture))}
    assert theirs == pytest.approx(load_classifier(tmp_path / "saved")(picture), abs=0.02)  # Pillow and torch scale alike, to a rounding


def test_frozen_batch_norm_keeps_its_statistics_in_training():
    network, _ = build(source="torchvision://resnet18?weights=null", batch_norm="frozen")
    set_training_mode(network)
    before = network.bn1.running_mean.clone()
    network(torch.rand(2, 3, 32, 32))
    assert torch.equal(network.bn1.running_mean, before)
    assert network.training
    assert batch_norm_warning(network, 4, 8) is None


def test_batch_norm_in_training_mode_is_warned_of_where_a_batch_is_split():
    network, _ = build(source="torchvision://resnet18?weights=null")
    assert batch_norm_warning(network, 8, 8) is None
    assert "20 BatchNorm layers see micro-batches of 4, not the global batch of 8" in str(batch_norm_warning(network, 4, 8))


def test_a_network_without_what_is_asked_for_says_so():
    assert "SmallCnn has no BatchNorm" in refused(batch_norm="frozen", **SMALL)
    assert "has no gradient checkpointing" in refused(gradient_checkpointing=True, **SMALL)
    assert "has no dropout to set" in refused(dropout=0.1, source="torchvision://resnet18?weights=null")


def test_no_dropout_is_what_a_network_without_dropout_has():
    build(dropout=0.0, source="torchvision://resnet18?weights=null")


@pytest.mark.parametrize(("pools", "num_features"), [(1, 64 * 12 * 12), (2, 64 * 5 * 5)])
def test_small_cnn_pools_once_or_after_each_convolution(pools, num_features):
    network = SmallCnn(pools=pools)
    assert [layer.in_features for layer in network if isinstance(layer, torch.nn.Linear)] == [num_features, 128]
    assert network(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_small_cnn_pools_in_no_other_number():
    with pytest.raises(ValueError, match="pools is 1 or 2, not 3"):
        SmallCnn(pools=3)
