from __future__ import annotations

import json
import subprocess

from launch.config.experiment import Lora
from launch.sizes.counted import count_with_torch
from launch.sizes.model_size import UnknownSize


def test_torch_counts_once_and_the_answer_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path))
    calls = []

    def answer(argv, **options):
        calls.append(argv)
        shapes = {"features.0.weight": [3, 9], "features.1.weight": [9], "head.weight": [2, 10]}
        return subprocess.CompletedProcess(argv, 0, stdout=f"a warning\n{json.dumps(shapes)}\n")

    monkeypatch.setattr(subprocess, "run", answer)
    sizes = [count_with_torch("torchvision", "my_net", 10, ["features.*"]) for _ in range(2)]
    assert [argv[1:] for argv in calls] == [["-P", "-m", "trainers.models.parameter_counts", "torchvision", "my_net", "--num-labels", "10"]]
    assert sizes[0] == sizes[1]
    assert (sizes[0].parameters, sizes[0].trained, sizes[0].largest_layer, sizes[0].outside_layers) == (56, 20, 27, 20)
    assert capsys.readouterr().err == "counting the parameters of my_net with torch, once\n"


def test_what_torch_cannot_build_stays_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(subprocess.CalledProcessError(1, "python")))
    assert count_with_torch("torchvision", "nothing", None, ()) == UnknownSize(
        "torch could not build nothing to count its parameters (CalledProcessError)"
    )


def test_adapters_are_counted_from_what_torch_says_of_an_unknown_model(tmp_path, monkeypatch):
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "opt"}')
    shapes = {
        "model.embed_tokens.weight": [50, 8],
        "model.layers.0.q_proj.weight": [8, 8],
        "model.layers.0.fc1.weight": [32, 8],
        "score.weight": [2, 8],
    }
    monkeypatch.setattr(subprocess, "run", lambda argv, **_: subprocess.CompletedProcess(argv, 0, stdout=json.dumps(shapes)))
    size = count_with_torch("transformers", str(tmp_path), None, (), Lora(rank=3, targets=["q_proj", "fc1"]))
    adapters, head = 3 * (8 + 8 + 32 + 8), 16
    assert (size.trained, size.parameters) == (adapters + head, 400 + 64 + 256 + 16 + adapters + head)
    unknown = count_with_torch("transformers", str(tmp_path), None, (), Lora(targets=["query"]))
    assert unknown == UnknownSize("the layers that LoRA adapts are not among q_proj, fc1", key="model.lora.targets")
