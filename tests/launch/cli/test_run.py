from __future__ import annotations

import json

import pytest

from launch.cli.closing import completed_lines
from launch.config.load import load_experiment
from launch.config.run_dir import RunDir, read_json, write_json


def test_run_trains_and_closes_with_scores_places_and_usage(fullrank, experiment_file, run_path):
    answer = fullrank("run", experiment_file, "optimizer.lr=3e-5")
    run = run_path()
    assert answer.code == 0, answer.err
    assert answer.out == (
        "test        loss 0.5000  accuracy 0.8750\n"
        f"model       {run}/model\n"
        f"report      {run}/report.md\n"
        "\n"
        "from transformers import pipeline\n"
        f'classify = pipeline("text-classification", model="{run}/model")\n'
        'print(classify("a film that is warm, funny and true"))\n'
    )
    assert f"started 0 1 1 --config {run}/resolved.yaml --strategy {run}/attempts/0001/accelerate.yaml --run-dir {run}" in answer.err


def test_use_lines_of_a_task_of_ones_own_are_those_that_its_file_says(fullrank, experiment_file, run_path):
    fullrank("run", experiment_file)
    run = RunDir(run_path())
    write_json(run.attempt(1).start, {"usage": ['use("{model}")']})
    assert completed_lines(run, load_experiment(str(run.resolved)).experiment)[-2:] == ["", f'use("{run.model}")']


def test_run_directory_holds_everything_of_the_start(fullrank, experiment_file, run_path):
    fullrank("run", experiment_file, "optimizer.lr=3e-5", "--processes-per-node", "2")
    run = run_path()
    names = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file() and "untracked/" not in str(path))
    assert names == [
        ".lock",
        "attempts/0001/accelerate.yaml",
        "attempts/0001/command.sh",
        "attempts/0001/ended.json",
        "attempts/0001/environment.json",
        "attempts/0001/plan.json",
        "attempts/0001/rank_00000.log",
        "attempts/0001/rank_00001.log",
        "code/changes.diff",
        "code/commit.txt",
        "code/untracked.txt",
        "experiment.yaml",
        "metrics.jsonl",
        "overrides.txt",
        "report.md",
        "resolved.yaml",
        "status.json",
    ]
    assert (run / "experiment.yaml").read_text() == experiment_file.read_text()
    assert (run / "overrides.txt").read_text() == "optimizer.lr=3e-5\n"
    status = read_json(run / "status.json")
    assert {key: status[key] for key in ("state", "cause", "attempt", "backend", "world_size")} == {
        "state": "completed",
        "cause": None,
        "attempt": 1,
        "backend": "local",
        "world_size": 2,
    }


def test_failed_rank_is_reported_and_the_exit_code_is_1(fullrank, experiment_file, run_path, monkeypatch):
    monkeypatch.setenv("FAKE_END", "fail")
    answer = fullrank("run", experiment_file, "--processes-per-node", "2")
    assert (answer.code, answer.out) == (1, "")
    assert "failed: rank 1 on " in answer.err
    assert "  | RuntimeError: it broke" in answer.err
    assert f"log: {run_path()}/attempts/0001/rank_00001.log" in answer.err
    assert read_json(run_path() / "status.json")["state"] == "failed"


def test_stop_is_exit_code_75_and_says_how_to_go_on(fullrank, experiment_file, run_path, monkeypatch):
    monkeypatch.setenv("FAKE_END", "stop")
    answer = fullrank("run", experiment_file)
    assert (answer.code, answer.out) == (75, "")
    assert answer.err.endswith(f"stopped; go on with: fullrank resume {run_path()}\n")
    assert read_json(run_path() / "status.json")["state"] == "stopped"


def test_dry_run_writes_nothing(fullrank, experiment_file, tmp_path):
    answer = fullrank("run", experiment_file, "--dry-run")
    assert answer.code == 0
    assert answer.out.startswith("tiny: 1 process on the ")
    assert not (tmp_path / "runs").exists()


def test_json_closes_with_facts(fullrank, experiment_file, run_path):
    facts = json.loads(fullrank("run", experiment_file, "--json").out)
    assert (facts["run"], facts["state"], facts["exit_code"]) == (str(run_path()), "completed", 0)
    assert facts["metrics"]["test"]["accuracy"] == 0.875


def test_run_directory_that_exists_is_refused_and_untouched(fullrank, experiment_file, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("kept")
    answer = fullrank("run", experiment_file, "--run-dir", tmp_path / "mine")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"error: {tmp_path}/mine: the run directory exists and is not empty\n    try: another --run-dir")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]


def test_bad_experiment_is_exit_code_2_with_every_problem(fullrank, experiment_file):
    answer = fullrank("run", experiment_file, "optimizer.lrr=1", "train.global_batch_size=-1")
    assert answer.code == 2
    assert "did you mean 'lr'?" in answer.err
    assert "train.global_batch_size" in answer.err
    assert "Traceback" not in answer.err


def test_strategy_for_gpus_without_gpus_is_refused(fullrank, experiment_file, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    answer = fullrank("run", experiment_file, "--strategy", "ddp")
    assert answer.code == 2
    assert "the strategy ddp is for GPUs, and " in answer.err
    assert not (tmp_path / "runs").exists()


def test_two_strategies_at_once_are_refused(fullrank, experiment_file):
    answer = fullrank("plan", experiment_file, "--strategy", "cpu", "--strategy", "zero2")
    assert (answer.code, answer.err.splitlines()[0]) == (2, "error: --strategy is given 2 times")


@pytest.mark.parametrize(("verb", "meant"), [("trian", "run"), ("train", "run"), ("stats", "status"), ("Resume", "resume")])
def test_unknown_verb_names_the_nearest(fullrank, verb, meant):
    answer = fullrank(verb, "quickstart")
    assert (answer.code, answer.err.splitlines()[0]) == (2, f"error: there is no verb {verb!r}; did you mean {meant!r}?")


@pytest.mark.parametrize(
    ("verb", "way_out"), [("run", "run"), ("plan", "plan"), ("check", "check"), ("submit", "submit"), ("verify", "run"), ("fetch", "run")]
)
def test_script_in_the_place_of_an_experiment_is_shown_its_own(fullrank, verb, way_out):
    answer = fullrank(verb, "train.py")
    assert (answer.code, answer.err) == (
        2,
        f"error: train.py: is a Python script, not an experiment\n    try: fullrank {way_out} --script train.py\n",
    )


def test_unknown_launcher_names_the_nearest(fullrank, experiment_file):
    answer = fullrank("run", experiment_file, "--launcher", "torchrum")
    assert (answer.code, answer.err) == (
        2,
        "error: --launcher: 'torchrum' is not a launcher; did you mean 'torchrun'?\n    allowed: direct, accelerate, torchrun, deepspeed\n",
    )
