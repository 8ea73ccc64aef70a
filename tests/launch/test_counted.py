from __future__ import annotations

import json
import subprocess

from launch.counted import count_with_torch
from launch.model_size import UnknownSize


def test_torch_counts_once_and_the_answer_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path))
    calls = []

    def answer(argv, **options):
        calls.append(argv)
        counts = {"features.0.weight": 27, "features.1.weight": 9, "head.weight": 20}
        return subprocess.CompletedProcess(argv, 0, stdout=f"a warning\n{json.dumps(counts)}\n")

    monkeypatch.setattr(subprocess, "run", answer)
    sizes = [count_with_torch("torchvision", "my_net", 10, ["features.*"]) for _ in range(2)]
    assert [argv[1:] for argv in calls] == [["-P", "-m", "trainers.parameter_counts", "torchvision", "my_net", "--num-labels", "10"]]
    assert sizes[0] == sizes[1]
    assert (sizes[0].parameters, sizes[0].trained, sizes[0].largest_layer, sizes[0].outside_layers) == (56, 20, 27, 20)
    assert capsys.readouterr().err == "counting the parameters of my_net with torch, once\n"


def test_what_torch_cannot_build_stays_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(subprocess.CalledProcessError(1, "python")))
    assert count_with_torch("torchvision", "nothing", None, ()) == UnknownSize(
        "torch could not build nothing to count its parameters (CalledProcessError)"
    )
