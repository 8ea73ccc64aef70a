"""What may change between the attempts of a run, and what is refused before anything starts."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from launch.config.new_run import create_attempt
from launch.config.run_dir import RunDir, read_json, update_status, write_json


@pytest.fixture
def stopped(fullrank, experiment_file, run_path, monkeypatch):
    monkeypatch.setenv("FAKE_END", "stop")
    fullrank("run", experiment_file, "--processes-per-node", "2")
    return run_path()


def plan_of(run, number):
    return read_json(run / f"attempts/{number:04d}/plan.json")


def test_processes_and_duration_may_change_and_stay_so(fullrank, stopped):
    assert fullrank("resume", stopped, "train.duration=5 epochs", "data.num_workers=0", "--processes-per-node", "1").code == 75
    assert plan_of(stopped, 2)["world_size"] == 1
    assert "forced_changes" not in plan_of(stopped, 2)
    assert yaml.safe_load((stopped / "resolved.yaml").read_text())["train"]["duration"] == "5 epochs"
    assert fullrank("resume", stopped).code == 75
    assert (plan_of(stopped, 3)["world_size"], plan_of(stopped, 3)["values"]["train.duration"]["value"]) == (1, "5 epochs")


def test_strategy_may_change(fullrank, stopped):
    assert fullrank("resume", stopped, "--strategy", "cpu", "--processes-per-node", "2", "--launcher", "torchrun", "--dry-run").code == 0
    plan = json.loads(fullrank("resume", stopped, "--strategy", "cpu", "--dry-run", "--json").out)
    assert (plan["strategy"], plan["processes_per_node"]) == ("cpu", 1)
    assert not (stopped / "attempts/0002").exists()


def begin_by_another_launcher(run, **start):
    attempt = create_attempt(RunDir(run))
    write_json(attempt.start, {"first_step": 3, "checkpoint": None} | start)


def test_strategy_of_an_attempt_that_another_launcher_began_is_kept(fullrank, stopped, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("distributed_type: MULTI_CPU\nuse_cpu: true\nmixed_precision: 'no'\n")
    begin_by_another_launcher(stopped, engine="ddp", strategy_file=str(mine))
    plan = json.loads(fullrank("resume", stopped, "--dry-run", "--json").out)
    assert (plan["strategy"], plan["strategy_file"], plan["processes_per_node"]) == ("mine", str(mine), 2)


@pytest.mark.parametrize(
    ("file", "reason"),
    [("gone.yaml", "trained under fsdp2, whose file gone.yaml is gone"), (None, "fsdp2, of which their launcher told them without a file")],
)
def test_sharded_attempt_of_another_launcher_is_not_gone_on_with_under_another_strategy(fullrank, stopped, file, reason):
    begin_by_another_launcher(stopped, engine="fsdp2", strategy_file=file)
    answer = fullrank("resume", stopped)
    assert answer.code == 2
    assert reason in answer.err
    assert f"try: fullrank resume {stopped} --strategy NAME|FILE" in answer.err
    assert fullrank("resume", stopped, "--strategy", "cpu", "--dry-run").code == 0


def test_attempt_of_another_launcher_without_a_strategy_is_gone_on_with_as_it_was(fullrank, stopped):
    begin_by_another_launcher(stopped, engine="ddp", strategy_file=None)
    assert json.loads(fullrank("resume", stopped, "--dry-run", "--json").out)["strategy"] == "auto"


def test_what_would_be_another_training_is_refused_with_both_values(fullrank, stopped):
    answer = fullrank("resume", stopped, "seed=7", "train.global_batch_size=64", "train.duration=5 epochs")
    assert answer.code == 2
    assert "seed=7: was 0 in this run and would be 7: going on would be another training" in answer.err
    assert "train.global_batch_size=64: was 32 in this run and would be 64" in answer.err
    assert "duration" not in answer.err
    assert not (stopped / "attempts/0002").exists()
    assert yaml.safe_load((stopped / "resolved.yaml").read_text())["seed"] == 0


def test_processes_that_do_not_divide_the_batch_are_told_which_do(fullrank, stopped):
    answer = fullrank("resume", stopped, "--processes-per-node", "5")
    assert answer.code == 2
    assert "--processes-per-node: a global batch of 32, which stays as it was, does not split evenly over 5 processes" in answer.err
    assert "allowed: 1, 2, 4, or more\n    try: --processes-per-node 4" in answer.err


def test_a_run_keeps_its_name(fullrank, stopped):
    assert "name=other: was 'tiny' in this run and would be 'other'" in fullrank("resume", stopped, "name=other").err


def test_forced_change_is_recorded_told_to_the_ranks_and_remembered(fullrank, stopped):
    answer = fullrank("resume", stopped, "seed=7", "--force")
    assert answer.code == 75
    assert "warning: forced, and recorded: seed: 0 -> 7" in answer.err
    assert plan_of(stopped, 2)["forced_changes"] == [{"key": "seed", "before": 0, "now": 7}]
    assert plan_of(stopped, 2)["environment"]["FULLRANK_ACCEPTED_CHANGES"] == "seed"
    assert read_json(stopped / "status.json")["forced_changes"] == ["seed: 0 -> 7"]
    assert fullrank("resume", stopped).code == 75
    assert plan_of(stopped, 3)["environment"]["FULLRANK_ACCEPTED_CHANGES"] == "seed"


def test_override_in_place_of_the_run_is_told_where_it_belongs(fullrank, stopped):
    answer = fullrank("resume", "train.duration=5 epochs")
    assert (answer.code, "try: fullrank resume latest train.duration=5 epochs" in answer.err) == (2, True)


def test_run_of_another_backend_is_resumed_here_only_on_request(fullrank, stopped):
    update_status(RunDir(stopped), backend="elsewhere")
    answer = fullrank("resume", stopped)
    assert answer.code == 2
    assert f"the run was launched by 'elsewhere', which is not here\n    allowed: local\n    try: fullrank resume {stopped} --here" in answer.err
    assert fullrank("resume", stopped, "--here").code == 75


def test_attempts_that_bring_nothing_are_told(fullrank, stopped):
    run = RunDir(stopped)
    for number in (2, 3):
        write_json(run.attempt(number - 1).start, {"first_step": 0})
        assert "brought no new checkpoint" not in fullrank("resume", stopped).err
    assert "warning: the last 3 attempts brought no new checkpoint" in fullrank("resume", stopped).err


def test_stop_file_does_not_outlive_its_attempt(fullrank, stopped):
    stop_file = RunDir(stopped).attempt(1).stop_file
    stop_file.touch()
    assert fullrank("resume", stopped).code == 75
    assert not RunDir(stopped).attempt(2).stop_file.exists()


@pytest.fixture
def completed(fullrank, experiment_file, run_path):
    fullrank("run", experiment_file, "train.duration=10 steps")
    publish_checkpoint(run_path(), 10)
    return run_path()


def publish_checkpoint(run, step):
    checkpoint = run / "checkpoints" / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    write_json(checkpoint / "manifest.json", {"files": {}})


@pytest.mark.parametrize("words", [(), ("train.duration=10 steps",), ("train.duration=9 steps",)])
def test_completed_run_without_a_later_end_has_nothing_to_go_on_with(fullrank, completed, words):
    answer = fullrank("resume", completed, *words)
    assert answer.code != 0
    assert "the run is completed; there is nothing to go on with" in answer.err
    assert (
        f'try: fullrank resume {completed} train.duration="20 steps" to train on; fullrank run {completed}/resolved.yaml for a new run' in answer.err
    )
    assert not (completed / "attempts/0002").exists()


def test_completed_run_goes_on_to_a_later_end_and_the_plan_says_what_the_learning_rate_does(fullrank, completed):
    note = "train.duration was 10 steps and is 15 steps: the learning rate follows the new length from here on"
    assert note in fullrank("resume", completed, "train.duration=15 steps", "--dry-run").out
    assert fullrank("resume", completed, "train.duration=15 steps").code == 0
    assert read_json(completed / "status.json")["total_steps"] == 15
    assert "there is nothing to go on with" in fullrank("resume", completed, "train.duration=15 steps").err


@pytest.fixture
def sentences(tmp_path, experiment_file):
    """The experiment's data as a file of 100 rows."""
    path = tmp_path / "train.csv"
    path.write_text("sentence,label\n" + "good,1\nbad,0\n" * 50)
    experiment_file.write_text(experiment_file.read_text().replace("source: owner/data", f"source: {path}\n  splits: {{validation: null}}"))
    return path


@pytest.fixture
def stopped_on_sentences(sentences, stopped):
    """A run that stopped after a checkpoint of 100 samples."""
    write_checkpoint(stopped, 4, {"num_samples": {"train": 100}, "fingerprint": "a"})
    return stopped


def write_checkpoint(run, step, facts):
    folder = run / f"checkpoints/checkpoint-{step}"
    folder.mkdir(parents=True)
    write_json(folder / "trainer_state.json", {"step": step, "data": facts})
    write_json(folder / "manifest.json", {"format": 1, "files": {}})


def test_data_that_lost_a_row_is_refused_with_both_counts(fullrank, sentences, stopped_on_sentences):
    assert fullrank("resume", stopped_on_sentences, "--dry-run").code == 0
    sentences.write_text("sentence,label\n" + "good,1\nbad,0\n" * 49 + "good,1\n")
    answer = fullrank("resume", stopped_on_sentences)
    assert answer.code == 2
    assert "prepared.num_samples.train: was 100 in this run and would be 99: the data has changed, going on would be another training" in answer.err
    assert not (stopped_on_sentences / "attempts/0002").exists()


def test_forced_data_is_recorded_and_stays_accepted_only_while_it_is_the_same(fullrank, sentences, stopped_on_sentences):
    sentences.write_text("sentence,label\n" + "good,1\n" * 99)
    assert fullrank("resume", stopped_on_sentences, "--force").code == 75
    (change,) = plan_of(stopped_on_sentences, 2)["forced_changes"]
    assert (change["key"], change["now"]) == ("prepared", {"num_samples": {"train": 99}})
    assert plan_of(stopped_on_sentences, 2)["environment"]["FULLRANK_ACCEPTED_CHANGES"] == "prepared"
    assert fullrank("resume", stopped_on_sentences).code == 75
    sentences.write_text("sentence,label\n" + "good,1\n" * 98)
    assert "was 100 in this run and would be 98" in fullrank("resume", stopped_on_sentences).err
    write_checkpoint(stopped_on_sentences, 5, {"num_samples": {"train": 98}, "fingerprint": "b"})
    assert fullrank("resume", stopped_on_sentences).code == 75
    assert "forced_changes" not in plan_of(stopped_on_sentences, 4)


def test_other_content_of_as_many_rows_is_refused_where_it_has_been_prepared(fullrank, stopped_on_sentences, monkeypatch):
    monkeypatch.setattr("launch.checks.data_changes.read_data_facts", lambda experiment: {"num_samples": {"train": 100}, "fingerprint": "b"})
    assert "prepared.fingerprint: was 'a' in this run and would be 'b'" in fullrank("resume", stopped_on_sentences).err


def test_a_completed_run_without_its_checkpoints_is_not_trained_anew(fullrank, completed):
    shutil.rmtree(completed / "checkpoints")
    answer = fullrank("resume", completed, "train.duration=15 steps")
    assert answer.code == 2
    assert "none of its checkpoints is left to train on from" in answer.err
    assert not (completed / "attempts/0002").exists()


def test_it_is_said_where_training_goes_on(fullrank, stopped):
    said = "attempt 2: from the beginning: it has no whole checkpoint"
    assert said in fullrank("resume", stopped, "--dry-run").err
    publish_checkpoint(stopped, 4)
    assert "attempt 2: from checkpoint-4" in fullrank("resume", stopped, "--dry-run").err
    shutil.rmtree(stopped / "checkpoints")
    (stopped / "checkpoints").write_text("")
    assert "is no folder, and checkpoints belong there" in fullrank("resume", stopped).err
