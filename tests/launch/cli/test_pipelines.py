"""`fullrank run PIPELINE`: stage after stage, each a run; what stopped goes on, what is done is not repeated."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from launch.config.run_dir import read_json

FILE = """\
name: two
stages:
  first: {experiment: ./tiny.yaml}
  second: {experiment: ./tiny.yaml, overrides: {model.source: stages.first}}
"""


@pytest.fixture
def pipeline_file(experiment_file: Path) -> Path:
    path = experiment_file.with_name("two.yaml")
    path.write_text(FILE, encoding="utf-8")
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "two" / "id"


def state(run: Path) -> tuple[str, int]:
    status = read_json(run / "status.json") or {}
    return status["state"], status["attempt"]


def test_the_second_stage_begins_with_the_model_of_the_first(fullrank, pipeline_file, base) -> None:
    answer = fullrank("run", pipeline_file, "first.seed=5", "--run-dir", base)
    assert answer.code == 0, answer.err
    assert [state(base.with_name(name)) for name in ("id.1-first", "id.2-second")] == [("completed", 1)] * 2
    first, second = (yaml.safe_load((base.with_name(name) / "resolved.yaml").read_text()) for name in ("id.1-first", "id.2-second"))
    assert second["model"]["source"] == str(base.with_name("id.1-first"))
    assert (first["seed"], second["seed"]) == (5, 0)
    assert answer.out.count("report      ") == 2


def test_a_stage_that_stops_ends_the_pipeline_and_resume_goes_on_there(fullrank, pipeline_file, base, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_END", "stop")
    answer = fullrank("run", pipeline_file, "--run-dir", base)
    assert answer.code == 75
    assert f"the pipeline ended in stage 1 of 2, first; go on with: fullrank resume {base}\n" in answer.err
    assert answer.err.count("go on with") == 1
    assert not base.with_name("id.2-second").exists()
    monkeypatch.delenv("FAKE_END")
    pipeline_file.unlink()  # what was started is what goes on
    for name in (str(base), "latest"):
        answer = fullrank("resume", name)
        if name == str(base):
            assert answer.code == 0, answer.err
            assert [state(base.with_name(run)) for run in ("id.1-first", "id.2-second")] == [("completed", 2), ("completed", 1)]
        else:
            assert "every stage of the pipeline is completed" in answer.err


def test_resume_between_two_stages_starts_the_next_and_repeats_nothing(fullrank, pipeline_file, base) -> None:
    fullrank("run", pipeline_file, "--run-dir", base)
    shutil.rmtree(base.with_name("id.2-second"))
    answer = fullrank("resume", base, "--json")
    assert answer.code == 0, answer.err
    assert "stage 1 of 2, first: done" in answer.err
    assert [stage["stage"] for stage in json.loads(answer.out)["stages"]] == ["second"]
    assert state(base.with_name("id.1-first")) == ("completed", 1)


def test_a_dry_resume_plans_what_is_left_as_it_would_go_on(fullrank, pipeline_file, base, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_END", "stop")
    fullrank("run", pipeline_file, "--run-dir", base)
    monkeypatch.delenv("FAKE_END")
    dry = fullrank("resume", base, "--dry-run")
    assert dry.code == 0, dry.err
    assert "== stage 1 of 2: first, attempt 2\n" in dry.out
    assert "== stage 2 of 2: second, its model.source the model of stage first\n" in dry.out
    fullrank("resume", base)
    shutil.rmtree(base.with_name("id.2-second"))
    dry = fullrank("resume", base, "--dry-run")
    assert (dry.code, dry.out.count("== stage")) == (0, 1), dry.err
    assert "pipeline: stages.first" in dry.out


def test_an_experiment_that_changed_meanwhile_is_not_trained_without_a_word(fullrank, pipeline_file, base) -> None:
    fullrank("run", pipeline_file, "--run-dir", base)
    shutil.rmtree(base.with_name("id.2-second"))
    experiment = pipeline_file.with_name("tiny.yaml")
    experiment.write_text(experiment.read_text().replace("seed: 0", "seed: 1") + "# changed\n")
    refused = fullrank("resume", base)
    assert refused.code == 2
    assert f"{experiment}: the experiment of stage second has changed since the pipeline was started" in refused.err
    assert f"fullrank resume {base} --force" in refused.err
    assert fullrank("resume", base, "--force").code == 0


def test_a_stage_whose_run_is_gone_is_not_trained_again_behind_its_heirs(fullrank, pipeline_file, base, monkeypatch) -> None:
    fullrank("run", pipeline_file, "--run-dir", base)
    shutil.rmtree(base.with_name("id.1-first"))
    assert "every stage of the pipeline is completed" in fullrank("resume", base).err
    status = base.with_name("id.2-second") / "status.json"
    status.write_text(status.read_text().replace("completed", "stopped"))
    refused = fullrank("resume", base)
    assert (refused.code, "the run of stage first is gone, and stage second has begun with its model" in refused.err) == (2, True)


def test_a_stage_that_is_done_cannot_be_changed_and_a_damaged_record_is_told(fullrank, pipeline_file, base) -> None:
    fullrank("run", pipeline_file, "--run-dir", base)
    shutil.rmtree(base.with_name("id.2-second"))
    refused = fullrank("resume", base, "first.seed=3")
    assert (refused.code, "'first.seed=3': stage first is done: nothing of it can be changed" in refused.err) == (2, True)
    record = base.with_name("id.pipeline.json")
    for text in ('{"how": {}}', '{"words": 3, "how": {"nodes": 1}, "folder": "/"}', '{"words": [], "how": {"ndes": 1}, "folder": "/"}', "[]", "{"):
        record.write_text(text)
        damaged = fullrank("resume", base)
        assert (damaged.code, f"{record}: does not say how the pipeline was started" in damaged.err) == (2, True), (text, damaged.err)


def test_status_knows_a_pipeline_and_the_other_verbs_say_what_it_is(fullrank, pipeline_file, base) -> None:
    fullrank("run", pipeline_file, "--run-dir", base)
    shutil.rmtree(base.with_name("id.2-second"))
    shown = fullrank("status", base)
    assert [line.split()[:2] for line in shown.out.splitlines()] == [["STAGE", "STATE"], ["first", "completed"], ["second", "not"]]
    assert f"go on with: fullrank resume {base}" in shown.err
    assert [stage["state"] for stage in json.loads(fullrank("status", base, "--json").out)["stages"]] == ["completed", None]
    refused = fullrank("logs", base)
    assert (refused.code, f"{base}: is a pipeline, and its stages are runs" in refused.err) == (2, True)
    assert str(base.with_name("id.1-first")) in refused.err


def test_plan_and_dry_run_show_every_stage_and_write_nothing(fullrank, pipeline_file, base) -> None:
    for words in (("plan", pipeline_file), ("run", pipeline_file, "--dry-run")):
        answer = fullrank(*words, "--run-dir", base)
        assert answer.code == 0, answer.err
        assert "== stage 1 of 2: first\n" in answer.out
        assert "== stage 2 of 2: second, its model.source the model of stage first\n" in answer.out
    assert not base.parent.exists()


def test_the_plan_for_programs_is_one_document(fullrank, pipeline_file, base) -> None:
    answer = fullrank("plan", pipeline_file, "--run-dir", base, "--json")
    assert answer.code == 0, answer.err
    facts = json.loads(answer.out)
    assert facts["pipeline"] == str(base)
    assert [(stage["stage"], stage["begins_with"]) for stage in facts["stages"]] == [("first", {}), ("second", {"model.source": "first"})]
    assert all("attempts/0001/command.sh" in stage["files"] for stage in facts["stages"])


def test_what_is_wrong_with_any_stage_is_said_in_its_place_before_the_first_starts(fullrank, pipeline_file, base) -> None:
    pipeline_file.write_text(FILE.replace("first: {experiment: ./tiny.yaml}", "first: {experiment: ./tiny.yaml, overrides: {optimizer.lr: fast}}"))
    for verb in ("run", "check"):
        answer = fullrank(verb, pipeline_file, "second.optimizer.lrr=1", "--run-dir", base)
        assert answer.code == 2
        assert "stage first cannot start" in answer.err
        assert f"{pipeline_file}:3: optimizer.lr: input should be a valid number, not 'fast'" in answer.err
        assert "stage second cannot start" in answer.err
        assert "'second.optimizer.lrr=1': optimizer.lrr: unknown key; did you mean 'lr'?" in answer.err
        assert "KEY=VALUE stands below" not in answer.err  # nothing to type does
    assert not base.parent.exists()


def test_a_value_to_type_is_said_to_be_the_stages(fullrank, pipeline_file, base) -> None:
    answer = fullrank("check", pipeline_file, "second.train.micro_batch_size=5", "--run-dir", base)
    assert answer.code == 2
    assert "stage second cannot start\n    try: second.KEY=VALUE, where KEY=VALUE stands below\n" in answer.err
    assert re.search(r"try: train\.\w+=\d+", answer.err)


def test_what_preflight_finds_is_told_of_all_stages(fullrank, pipeline_file, base) -> None:
    answer = fullrank("run", pipeline_file, "first.data.source=./gone", "second.data.source=./away", "--run-dir", base)
    assert answer.code == 2
    assert all(f"stage {stage} cannot start" in answer.err for stage in ("first", "second"))
    assert all(f"{stage}.data.source=./{name}: data.source: there is no " in answer.err for stage, name in (("first", "gone"), ("second", "away")))


def test_check_runs_every_check_of_every_stage(fullrank, pipeline_file, tmp_path) -> None:
    answer = fullrank("check", pipeline_file, "second.data.source=./away", "--json")
    assert answer.code == 2
    found = {finding["check"]: finding["status"] for finding in json.loads(answer.out)["checks"]}
    assert (found["first: paths"], found["second: paths"], found["first: plan"]) == ("ok", "problem", "ok")
    (tmp_path / "site.yaml").write_text("cpus_per_node: 2\n")
    on_cluster = fullrank("check", pipeline_file, "--cluster", tmp_path / "site.yaml", "--json")
    names = [finding["check"] for finding in json.loads(on_cluster.out)["checks"]]
    assert {"first: partition", "second: partition"} < set(names), names


def test_other_verbs_say_that_it_is_a_pipeline(fullrank, pipeline_file) -> None:
    for words in (("verify", pipeline_file), ("run", pipeline_file, "--debug")):
        answer = fullrank(*words)
        assert answer.code == 2
        assert "pipeline" in answer.err


def test_submit_makes_a_script_a_stage(fullrank, pipeline_file, base, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("launch.cli.submit.has_slurm", lambda: False)
    (tmp_path / "site.yaml").write_text("cpus_per_node: 2\n")
    words = ("submit", pipeline_file, "--cluster", tmp_path / "site.yaml", "--run-dir", base, "--dry-run")
    answer = fullrank(*words)
    assert answer.code == 0, answer.err
    dirs = [line.removeprefix("RUN_DIR=") for line in answer.out.splitlines() if line.startswith("RUN_DIR=")]
    assert dirs == [str(base.with_name(name)) for name in ("id.1-first", "id.2-second")]
    assert not base.parent.exists()
    refused = fullrank(*words, "--seeds", "2")
    assert (refused.code, "--seeds and --grid are for one experiment" in refused.err) == (2, True)
