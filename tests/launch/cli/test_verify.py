"""`fullrank verify` over trainings that only write what a training writes; the real thing is in tests/integration."""

from __future__ import annotations

import json
import signal
import struct

import pytest

from launch.config.run_dir import RunDir, update_status


class Trainings:
    """Stands in for LocalTrainings: writes records and weights at once; the resumed run is as `resumed_loss` says."""

    number = signal.SIGTERM
    resumed_loss = 0.5
    stop_code = 75

    def __init__(self, words):
        type(self).words = list(words)

    def train(self, run: RunDir) -> int:
        return self._write(run, range(1, 21), 0.5)

    def train_until(self, run: RunDir, step: int) -> int:
        self._write(run, range(1, step + 2), 0.5)
        update_status(run, step=step + 1)
        return self.stop_code

    def resume(self, run: RunDir) -> int:
        (run.path / "metrics.jsonl").unlink()
        return self._write(run, range(1, 21), self.resumed_loss)

    def _write(self, run, steps, last_loss):
        run.model.mkdir(parents=True, exist_ok=True)
        header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
        (run.model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<f", last_loss))
        lines = [{"step": step, "split": "train", "loss": last_loss if step == 20 else 1.0, "time": 0} for step in steps]
        run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return 0


@pytest.fixture
def trainings(monkeypatch):
    monkeypatch.setattr("launch.cli.verify.LocalTrainings", Trainings)
    for name, value in (("resumed_loss", 0.5), ("stop_code", 75)):
        monkeypatch.setattr(Trainings, name, value)
    return Trainings


def test_same_runs_are_said_to_be_the_same_and_are_removed(fullrank, experiment_file, trainings, tmp_path):
    answer = fullrank("verify", experiment_file, "optimizer.lr=1e-3", "--processes-per-node", "2")
    assert answer.code == 0, answer.err
    assert answer.out == "stopped at step 11 and resumed: 20 records and 1 tensors compared, all the same to the last bit\n"
    assert trainings.words[0] == str(experiment_file)
    assert trainings.words[1:3] == ["train.duration=20 steps", "evaluate.every=5 steps"]
    assert trainings.words[-7:] == ["optimizer.lr=1e-3", "--strategy", "auto", "--nodes", "1", "--processes-per-node", "2"]
    assert answer.err.endswith("both runs are removed, with their logs; --run-dir DIR keeps them\n")
    assert not list((tmp_path / "runs").iterdir())


def test_other_verifications_stay_and_so_does_a_folder_that_was_named(fullrank, experiment_file, trainings, tmp_path):
    other = tmp_path / "runs" / "tiny-verify" / "other"
    other.mkdir(parents=True)
    assert fullrank("verify", experiment_file).code == 0
    assert list(other.parent.iterdir()) == [other]
    assert "both runs are in " in fullrank("verify", experiment_file, "--run-dir", tmp_path / "kept").err
    assert (tmp_path / "kept" / "whole").is_dir()


def test_every_difference_is_named_with_its_step_or_tensor_and_both_runs_stay(fullrank, experiment_file, trainings, tmp_path, monkeypatch):
    monkeypatch.setattr(trainings, "resumed_loss", 0.25)
    answer = fullrank("verify", experiment_file)
    assert answer.code == 1
    assert answer.out.splitlines() == [
        "stopped at step 11 and resumed: 20 records and 1 tensors compared, 2 differ:",
        "  step 20, train: loss: 0.5 became 0.25",
        "  model/model.safetensors: w: one value became another",
    ]
    (folder,) = (tmp_path / "runs" / "tiny-verify").iterdir()
    assert {path.name for path in folder.iterdir()} == {"whole", "stopped"}
    facts = json.loads(fullrank("verify", experiment_file, "--json").out)
    assert (facts["is_identical"], facts["stopped_at"], facts["differences"][0]["where"]) == (False, 11, "step 20, train")


def test_cluster_has_both_submitted_under_its_run_root(fullrank, experiment_file, trainings, tmp_path, monkeypatch):
    monkeypatch.setattr("launch.scheduler.drill.SlurmTrainings", trainings)
    monkeypatch.setattr("launch.scheduler.commands.ask_site", lambda: None)
    site = tmp_path / "site.yaml"
    site.write_text(f"partition: main\ncpus_per_node: 2\ntime_limit: '00:10:00'\nrun_root: {tmp_path}/shared\n")
    answer = fullrank("verify", experiment_file, "--cluster", site, "--nodes", "2", "--processes-per-node", "1")
    assert answer.code == 0, answer.err
    assert trainings.words[-6:] == ["--nodes", "2", "--processes-per-node", "1", "--cluster", str(site)]
    assert f"log: {tmp_path}/shared/tiny-verify/" in answer.err


def test_cluster_without_slurm_here_is_refused_before_anything_starts(fullrank, experiment_file, trainings, tmp_path, monkeypatch):
    monkeypatch.setattr("launch.scheduler.commands.has_slurm", lambda: False)
    site = tmp_path / "site.yaml"
    site.write_text("cpus_per_node: 2\n")
    answer = fullrank("verify", experiment_file, "--cluster", site)
    assert (answer.code, "sbatch is not on this machine" in answer.err) == (3, True)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("code", "words"), [(0, "the training was done before the stop at step 10 reached it"), (1, "the stop ended with exit code 1, not 75")]
)
def test_stop_that_was_none_is_a_failure_in_words(fullrank, experiment_file, trainings, monkeypatch, code, words):
    monkeypatch.setattr(trainings, "stop_code", code)
    answer = fullrank("verify", experiment_file, "--steps", "20")
    assert answer.code == 1
    assert words in answer.err


def test_steps_that_are_over_too_soon_become_ten_times_as_many(fullrank, experiment_file, trainings, monkeypatch):
    lengths = []

    def train_until(self, run, step):
        lengths.append(self.words[1])
        self._write(run, range(1, step + 2), 0.5)
        update_status(run, step=step + 1)
        return 0 if len(lengths) < 2 else 75

    monkeypatch.setattr(trainings, "train_until", train_until)
    answer = fullrank("verify", experiment_file)
    assert (answer.code, lengths) == (0, ["train.duration=20 steps", "train.duration=200 steps"])
    assert "20 steps are over before a signal arrives; once more with ten times as many" in answer.err


def test_length_of_ones_own_is_refused_and_not_ignored(fullrank, experiment_file, trainings, tmp_path):
    answer = fullrank("verify", experiment_file, "train.duration=5 epochs")
    assert (answer.code, "verify chooses the length of the training\n    try: --steps N" in answer.err) == (2, True)
    assert not (tmp_path / "runs").exists()


def test_stop_after_the_end_is_refused(fullrank, experiment_file, trainings):
    answer = fullrank("verify", experiment_file, "--steps", "10", "--stop-at", "10")
    assert (answer.code, "--stop-at: 10 is not before the last of 10 steps" in answer.err) == (2, True)


def test_experiment_that_cannot_be_trained_is_refused_before_anything_starts(fullrank, experiment_file, trainings, tmp_path):
    answer = fullrank("verify", experiment_file, "train.global_batch_size=7", "--processes-per-node", "2")
    assert answer.code == 2
    assert not (tmp_path / "runs").exists()
