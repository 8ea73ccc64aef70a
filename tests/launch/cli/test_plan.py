from __future__ import annotations

import importlib.metadata
import json
import re


def test_plan_json_has_the_whole_arithmetic_the_command_and_the_files(fullrank, experiment_file, tmp_path):
    answer = fullrank("plan", experiment_file, "optimizer.lr=3e-5", "--strategy", "cpu", "--processes-per-node", "2", "--json")
    facts = json.loads(answer.out)
    assert {name: facts[name] for name in ("world_size", "global_batch_size", "micro_batch_size", "gradient_accumulation_steps")} == {
        "world_size": 2,
        "global_batch_size": 32,
        "micro_batch_size": 16,
        "gradient_accumulation_steps": 1,
    }
    assert (facts["optimizer_steps"], facts["optimizer_steps_reason"]) == (None, "the data has not been fetched yet")
    assert facts["command"][1:4] == ["-P", "-m", "trainers.train"]
    assert facts["values"]["optimizer.lr"] == {"value": 3e-5, "origin": "override: optimizer.lr=3e-5"}
    assert sorted(facts["files"]) == [
        "attempts/0001/accelerate.yaml",
        "attempts/0001/command.sh",
        "attempts/0001/environment.json",
        "attempts/0001/plan.json",
        "experiment.yaml",
        "overrides.txt",
        "resolved.yaml",
    ]
    assert not (tmp_path / "runs").exists()


def test_plan_for_a_person_shows_origins_arithmetic_command_and_files(fullrank, experiment_file):
    out = fullrank("plan", experiment_file, "optimizer.lr=3e-5", "--strategy", "cpu", "--processes-per-node", "2").out
    assert out.startswith("tiny: 2 processes on the CPU, fp32, 2 epochs in batches of 32\n")
    assert re.search(r"(?m)^  optimizer.lr +3e-05 +override$", out)
    assert "  32 samples a step = 16 a process x 2 processes x 1 accumulated\n" in out
    assert "  optimizer steps: unknown: the data has not been fetched yet\n" in out
    assert "    attempts/0001/command.sh\n" in out


def test_plan_of_what_would_not_start_still_plans_says_why_and_ends_with_the_code_of_the_check(fullrank, experiment_file, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    answer = fullrank("plan", experiment_file, "--strategy", "single_gpu")
    assert answer.code == 2
    assert answer.out.startswith("tiny: ")
    assert "would not start: " in answer.err


def test_plan_that_the_machine_keeps_from_starting_ends_with_the_code_of_the_machine(fullrank, experiment_file):
    assert fullrank("plan", experiment_file, "--strategy", "cpu", "--nodes", "2").code == 3


def test_the_version_is_the_installed_one(fullrank):
    assert fullrank("--version").out == f"fullrank {importlib.metadata.version('fullrank')}\n"


def test_the_batch_of_a_language_model_is_told_in_tokens(fullrank):
    answer = fullrank("plan", "causal_lm")
    assert "4,096 tokens a step at most: 16 rows a step = " in answer.out
