"""The trainings of a verification as jobs, over a cluster that only writes status files; the real one is in tests/integration."""

from __future__ import annotations

import json
import signal

import pytest

from launch.config.run_dir import RunDir, read_json, update_status
from launch.runs import RunState
from launch.scheduler.drill import SlurmTrainings


class Ended:
    def __init__(self, code=0):
        self.code = code

    def wait(self):
        return self.code


class Cluster:
    """What is typed and sent, and what becomes of the run: after a submit, a warning, a resume, and at each question."""

    def __init__(self):
        self.typed, self.warned, self.answers = [], [], []
        self.submit_code, self.after_warning, self.run = 0, {"state": "requeued", "step": 6}, None

    def start(self, run, *words):
        self.typed.append(words)
        if words[0] == "submit" and self.submit_code == 0:
            run.path.mkdir()
            run.metrics.write_text(json.dumps({"step": 5, "split": "train"}) + "\n")
            update_status(run, state="running", job_id="7", attempt=1, step=5)
        if words[0] == "resume":
            update_status(run, state="completed", attempt=2)
        self.run = run
        return Ended(self.submit_code if words[0] == "submit" else 0)

    def warn_job(self, job_id, number):
        self.warned.append((job_id, number))
        update_status(self.run, **self.after_warning)

    def read_run(self, run):
        recorded = read_json(run.status)
        answer = self.answers.pop(0) if self.answers else "stopped" if recorded["state"] == "stopped" else "lost"
        if answer == "running":  # and on before the next look
            update_status(run, state="requeued" if recorded["state"] == "stopped" else "completed")
        return RunState(run, answer, recorded, "its job is gone")


@pytest.fixture
def cluster(monkeypatch):
    cluster = Cluster()
    for name in ("start", "warn_job", "read_run"):
        monkeypatch.setattr(f"launch.scheduler.drill.{name}", getattr(cluster, name))
    monkeypatch.setattr("launch.scheduler.drill._LOOK_S", 0.001)
    monkeypatch.setattr("launch.scheduler.drill._ASK_S", 0.002)
    return cluster


@pytest.fixture
def run(tmp_path):
    return RunDir(tmp_path / "stopped")


def test_a_warned_job_that_is_requeued_is_waited_for_and_not_resumed(cluster, run):
    trainings = SlurmTrainings(["tiny", "--cluster", "site"])
    assert trainings.train_until(run, 5) == 75
    assert cluster.warned == [("7", signal.SIGUSR2)]
    cluster.answers = ["requeued", "lost", "running"]  # one answer that is gone between two moments of the queue is not believed
    assert trainings.resume(run) == 0
    assert cluster.typed == [("submit", "tiny", "--cluster", "site", "--run-dir", str(run.path))]


def test_a_warned_job_that_stays_out_of_the_queue_is_resumed(cluster, run):
    cluster.after_warning = {"state": "stopped", "step": 6}
    trainings = SlurmTrainings(["tiny"])
    assert (trainings.train_until(run, 5), trainings.resume(run)) == (75, 0)
    assert [words[0] for words in cluster.typed] == ["submit", "resume"]


def test_a_stop_that_rank_0_has_told_before_the_job_is_requeued_is_not_resumed(cluster, run):
    cluster.after_warning, cluster.answers = {"state": "stopped", "step": 6}, ["running"]
    assert SlurmTrainings(["tiny"]).train_until(run, 5) == 75
    assert read_json(run.status)["state"] == "requeued"


def test_a_job_that_has_begun_again_unseen_was_stopped(cluster, run):
    cluster.after_warning = {"state": "running", "attempt": 2}
    assert SlurmTrainings(["tiny"]).train_until(run, 5) == 75


def test_a_job_that_slurm_twice_does_not_know_failed_and_the_log_says_so(cluster, run):
    assert SlurmTrainings(["tiny"]).train(run) == 1
    assert "lost at step 5; its job is gone; fullrank logs" in run.path.with_name("stopped.log").read_text()


def test_a_refused_submit_is_its_exit_code(cluster, run):
    cluster.submit_code = 3
    trainings = SlurmTrainings(["tiny"])
    assert (trainings.train(run), trainings.train_until(run, 5), cluster.warned) == (3, 3, [])


def test_an_interrupt_takes_the_job_away(cluster, run, monkeypatch):
    def interrupt(found, step):
        raise KeyboardInterrupt

    monkeypatch.setattr("launch.scheduler.drill.has_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        SlurmTrainings(["tiny"]).train_until(run, 5)
    assert cluster.typed[-1] == ("cancel", str(run.path), "--now")
