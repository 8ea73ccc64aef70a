from __future__ import annotations

import importlib.metadata

from launch.machine import Gpu, ask_machine, read_extras, read_gpus


def test_extras_are_read_from_a_distribution_s_own_requirements():
    requirements = ["typer>=0.15", "torch>=2.9; extra == 'train'", 'deepspeed>=0.18 ; extra == "deepspeed"', "fullrank[tensorboard]; extra == 'dev'"]
    assert read_extras(requirements) == {"train": frozenset({"torch"}), "deepspeed": frozenset({"deepspeed"})}


def test_the_extras_of_this_project_are_found():
    extras = read_extras(importlib.metadata.requires("fullrank"))
    assert {"torch", "transformers", "datasets"} <= extras["train"]


def test_gpus_are_read_from_nvidia_smi():
    text = "NVIDIA H100 80GB HBM3, 81559, 9.0, 550.54.15\nTesla V100-SXM2-16GB, 16160, [N/A], 550.54.15\nsome noise\n"
    assert read_gpus(text) == (
        Gpu("NVIDIA H100 80GB HBM3", 81559 / 1024, 9.0, "550.54.15"),
        Gpu("Tesla V100-SXM2-16GB", 16160 / 1024, None, "550.54.15"),
    )


def test_this_machine_answers(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "not/yet/there"))
    answers = ask_machine(tmp_path / "runs")
    assert answers.folders["cache"].path == tmp_path / "not/yet/there"
    assert answers.folders["cache"].is_writable
    assert answers.folders["runs"].free_bytes > 0
    assert answers.is_hub_reachable is None
    assert "lo" in answers.environment.interfaces
    assert not (tmp_path / "not").exists()
