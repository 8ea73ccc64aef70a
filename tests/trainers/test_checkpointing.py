from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from launch.config.changes import changed_keys
from launch.config.errors import FullrankError, StateError
from launch.config.experiment import Checkpoint
from launch.config.run_dir import RunDir
from trainers.checkpointing import Checkpoints, Progress
from trainers.checkpoints.manifest import find_damage, find_newest, sorted_checkpoints
from trainers.engine import Engine
from trainers.world import World

EXPERIMENT = {"seed": 1, "data": {"source": "a", "num_workers": 2}, "train": {"global_batch_size": 8, "duration": "1 epoch"}}


class SavesWeights:
    """The part of a task that a checkpoint needs: its weights as a file, and room for what goes wrong on the way."""

    fails = False

    def __init__(self, num_samples: int, fingerprint: str | None) -> None:
        self.num_samples, self.fingerprint = {"train": num_samples}, fingerprint

    def save(self, model: nn.Module, folder: Path, weights: dict[str, torch.Tensor]) -> None:
        if self.fails:
            raise OSError(28, "No space left on device", str(folder))
        save_file(dict(weights), folder / "model.safetensors")


class Run:
    """A small model with its optimizer and schedule, and the checkpoints of one run."""

    def __init__(
        self, path: Path, experiment: dict[str, Any] = EXPERIMENT, num_samples: int = 40, fingerprint: str | None = None, **options: Any
    ) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(3, 2)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, 2)
        self.task = SavesWeights(num_samples, fingerprint)
        engine = Engine(World(), None, "fp32")
        self.checkpoints = Checkpoints(RunDir(path), Checkpoint(**options), engine, self.task, experiment)  # type: ignore[arg-type]
        self.progress = Progress()

    def step(self) -> None:
        self.model(torch.randn(4, 3)).square().sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.progress.step += 1

    def save(self) -> None:
        self.checkpoints.save(self.model, self.optimizer, self.schedule, self.progress)

    def names(self) -> list[str]:
        self.checkpoints.wait()
        return [path.name for path in sorted_checkpoints(self.checkpoints._run)]


@pytest.mark.parametrize("background", [True, False])
def test_a_restored_run_takes_the_same_next_steps(tmp_path: Path, background: bool) -> None:
    run = Run(tmp_path, background=background)
    run.step()
    run.progress.best, run.progress.best_step = 0.5, 1
    run.save()
    for _ in range(2):
        run.step()
    expected = [p.clone() for p in run.model.parameters()], random.random(), np.random.rand(), torch.rand(1)
    run.checkpoints.wait()

    again = Run(tmp_path)
    newest = find_newest(RunDir(tmp_path))
    assert newest is not None
    again.progress = again.checkpoints.restore(newest, again.model, again.optimizer, again.schedule)
    assert again.progress == Progress(step=1, best=0.5, best_step=1)
    for _ in range(2):
        again.step()
    for mine, theirs in zip(again.model.parameters(), expected[0], strict=True):
        assert torch.equal(mine, theirs)
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected[1:]
    assert again.optimizer.param_groups[0]["lr"] == run.optimizer.param_groups[0]["lr"]


def test_the_copy_is_taken_before_training_goes_on(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.step()
    before = run.model.weight.detach().clone()
    run.save()
    with torch.no_grad():
        run.model.weight.zero_()
    run.checkpoints.wait()
    run.checkpoints.load_weights(sorted_checkpoints(RunDir(tmp_path))[0], run.model)
    assert torch.equal(run.model.weight, before)


def test_the_newest_and_the_best_stay(tmp_path: Path) -> None:
    run = Run(tmp_path, keep=2)
    for step in range(1, 7):
        run.step()
        if step == 2:
            run.progress.best_step = 2
        run.save()
    assert run.names() == ["checkpoint-2", "checkpoint-5", "checkpoint-6"]


def test_others_may_read_a_checkpoint_if_they_may_read_its_folder(tmp_path: Path) -> None:
    run = Run(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    before = os.umask(0o027)
    try:
        run.step()
        run.save()
        assert run.names() == ["checkpoint-1"]
    finally:
        os.umask(before)
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "checkpoints" / "checkpoint-1").iterdir()} == {oct(0o640)}


def test_the_best_goes_too_if_it_is_not_wanted(tmp_path: Path) -> None:
    run = Run(tmp_path, keep=1, keep_best=False)
    for _ in range(3):
        run.step()
        run.progress.best_step = 1
        run.save()
    assert run.names() == ["checkpoint-3"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"short"), "has 5 bytes instead of"),
        (lambda folder: (folder / "training_state.pt").unlink(), "training_state.pt is missing"),
        (lambda folder: _flip_a_bit(folder / "training_state.pt"), "training_state.pt has changed since it was written"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "no readable manifest"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_its_damage_named(
    tmp_path: Path, damage: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path)
    for _ in range(2):
        run.step()
        run.save()
    run.checkpoints.wait()
    damage(tmp_path / "checkpoints" / "checkpoint-2")
    newest = find_newest(RunDir(tmp_path))
    assert newest == tmp_path / "checkpoints" / "checkpoint-1"
    assert words in capsys.readouterr().err
    assert (tmp_path / "checkpoints" / "damaged-checkpoint-2").is_dir()
    run.save()
    assert run.names() == ["checkpoint-1", "checkpoint-2"]
    assert run.checkpoints.find_step(2) == tmp_path / "checkpoints" / "checkpoint-2"


def test_a_folder_without_a_manifest_is_no_checkpoint_and_is_replaced(tmp_path: Path) -> None:
    run = Run(tmp_path)
    half = tmp_path / "checkpoints" / "checkpoint-1"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    assert find_newest(RunDir(tmp_path)) is None
    run.step()
    run.save()
    assert run.names() == ["checkpoint-1"]
    assert find_damage(half) is None


def test_a_failed_save_is_reported_and_the_second_in_a_row_ends_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path)
    run.step()
    run.save()
    run.checkpoints.wait()
    run.task.fails = True
    run.step()
    run.save()
    run.checkpoints.wait()
    assert "could not be written: No space left on device" in capsys.readouterr().err
    run.step()
    run.save()
    with pytest.raises(FullrankError, match="No space left on device"):
        run.checkpoints.wait()
    assert [path.name for path in sorted_checkpoints(RunDir(tmp_path))] == ["checkpoint-1"]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-1"]


def test_a_failure_in_the_background_is_told_at_the_next_step_not_at_the_next_save(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path)
    run.task.fails = True
    run.checkpoints.poll()
    run.step()
    run.save()
    _let_it_end(run)
    run.checkpoints.poll()
    assert "could not be written: No space left on device" in capsys.readouterr().err
    run.save()
    _let_it_end(run)
    with pytest.raises(FullrankError, match="No space left on device"):
        run.checkpoints.poll()


def test_another_seed_or_batch_is_another_training_and_refused_with_both_values(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.step()
    run.save()
    run.checkpoints.wait()
    other = Run(tmp_path, experiment=EXPERIMENT | {"seed": 2, "train": {"global_batch_size": 16, "duration": "9 epochs"}})
    newest = find_newest(RunDir(tmp_path))
    assert newest is not None
    with pytest.raises(StateError) as refusal:
        other.checkpoints.restore(newest, other.model, other.optimizer, other.schedule)
    assert [(problem.key, problem.what[:23]) for problem in refusal.value.problems] == [
        ("seed", "is 2 now and was 1 when"),
        ("train.global_batch_size", "is 16 now and was 8 whe"),
    ]


def test_a_forced_change_is_accepted_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    run.step()
    run.save()
    other = Run(tmp_path, experiment=EXPERIMENT | {"seed": 2})
    run.checkpoints.wait()
    monkeypatch.setenv("FULLRANK_ACCEPTED_CHANGES", "data.source,seed")
    other.checkpoints.restore(tmp_path / "checkpoints" / "checkpoint-1", other.model, other.optimizer, other.schedule)
    assert other.checkpoints.notes == ["warning: changed by force since checkpoint-1: seed: 1 -> 2"]


def test_other_threads_are_set_as_they_were_and_said(tmp_path: Path) -> None:
    run, threads = Run(tmp_path), torch.get_num_threads()
    run.step()
    run.save()
    run.checkpoints.wait()
    try:
        torch.set_num_threads(threads + 1)
        run.checkpoints.restore(tmp_path / "checkpoints" / "checkpoint-1", run.model, run.optimizer, run.schedule)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(threads)
    assert run.checkpoints.notes == [f"{threads} threads a rank, as before, not {threads + 1}: sums depend on their number"]


def test_another_number_of_processes_draws_other_dropout_and_says_so(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.step()
    run.save()
    run.checkpoints.wait()
    checkpoint = tmp_path / "checkpoints" / "checkpoint-1"
    state = checkpoint / "trainer_state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"world_size": 2}))
    drawn = []
    for _ in range(2):
        run.checkpoints.restore(checkpoint, run.model, run.optimizer, run.schedule)
        drawn.append((random.random(), np.random.rand(), float(torch.rand(1))))
    assert drawn[0] == drawn[1]
    assert run.checkpoints.notes[0] == "2 -> 1 processes: the same samples follow, sums and dropout differ in their bits"


@pytest.mark.parametrize("background", [True, False])
def test_how_long_a_save_took_is_in_the_status(tmp_path: Path, background: bool) -> None:
    run = Run(tmp_path, background=background)
    run.step()
    run.save()
    run.checkpoints.wait()
    facts = json.loads((tmp_path / "status.json").read_text())["checkpoint"]
    assert (facts["step"], facts.keys()) == (1, {"step", "seconds", "bytes", "blocked_seconds"})
    assert 0 <= facts["blocked_seconds"] <= facts["seconds"] + 0.5
    assert facts["bytes"] == sum(file.stat().st_size for file in (tmp_path / "checkpoints" / "checkpoint-1").iterdir())


def test_a_clock_that_jumps_back_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path, keep=2)
    for wall_clock in (4e9, 1.0, 2e9):
        monkeypatch.setattr("time.time", lambda now=wall_clock: now)
        run.step()
        run.save()
        run.checkpoints.wait()
    assert run.names() == ["checkpoint-2", "checkpoint-3"]
    assert find_newest(RunDir(tmp_path)) == tmp_path / "checkpoints" / "checkpoint-3"


def test_a_step_without_a_whole_checkpoint_is_none(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.step()
    run.save()
    run.checkpoints.wait()
    assert run.checkpoints.find_step(7) is None
    _flip_a_bit(tmp_path / "checkpoints" / "checkpoint-1" / "model.safetensors")
    assert run.checkpoints.find_step(1) is None


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.step()
    run.save()
    run.checkpoints.wait()
    state = tmp_path / "checkpoints" / "checkpoint-1" / "trainer_state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"format": 99}))
    with pytest.raises(StateError, match="format 99"):
        run.checkpoints.restore(state.parent, run.model, run.optimizer, run.schedule)


def test_duration_workers_and_tracking_may_change_between_attempts() -> None:
    now = {"seed": 1, "data": {"source": "a", "num_workers": 0}, "train": {"global_batch_size": 8, "duration": "5 epochs"}, "tracking": {"x": 1}}
    assert list(changed_keys(EXPERIMENT, now)) == []


def _saved(path: Path, **data: Any) -> Path:
    run = Run(path, **data)
    run.step()
    run.progress.samples_consumed = 8
    run.save()
    run.checkpoints.wait()
    return path / "checkpoints" / "checkpoint-1"


def _restored(checkpoint: Path, **data: Any) -> Run:
    run = Run(checkpoint.parents[1], **data)
    run.progress = run.checkpoints.restore(checkpoint, run.model, run.optimizer, run.schedule)
    return run


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"num_samples": 39, "fingerprint": "a"}, "prepared.num_samples.train: is 39 now and was 40 when checkpoint-1 was written"),
        ({"fingerprint": "b"}, "prepared.fingerprint: is 'b' now and was 'a' when checkpoint-1 was written"),
    ],
)
def test_other_data_is_refused_with_both_values_unless_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: dict[str, Any], words: str
) -> None:
    checkpoint = _saved(tmp_path, fingerprint="a")
    with pytest.raises(StateError, match=re.escape(words)):
        _restored(checkpoint, **data)
    monkeypatch.setenv("FULLRANK_ACCEPTED_CHANGES", "prepared")
    run = _restored(checkpoint, **data)
    assert run.progress.samples_consumed == 8
    assert run.checkpoints.notes[0].startswith("warning: changed by force since checkpoint-1: prepared.")
    assert _restored(_saved(tmp_path / "same", fingerprint="a"), fingerprint="a").checkpoints.notes == []


def test_a_checkpoint_without_facts_of_its_data_is_held_to_the_samples_its_steps_saw(tmp_path: Path) -> None:
    checkpoint = _saved(tmp_path)
    state = checkpoint / "trainer_state.json"
    older = json.loads(state.read_text())
    del older["data"]
    state.write_text(json.dumps(older))
    assert _restored(checkpoint, fingerprint="b").checkpoints.notes == []
    with pytest.raises(StateError, match=r"prepared\.samples_consumed: is 5 now and was 8 when checkpoint-1 was written"):
        _restored(checkpoint, num_samples=5)


def _let_it_end(run: Run) -> None:
    assert run.checkpoints._writer is not None
    run.checkpoints._writer.join()


def _flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def test_a_key_that_an_older_fullrank_did_not_know_may_be_empty_now() -> None:
    before = {"seed": 1, "train": {"global_batch_size": 8}}
    empty = {"global_batch_size": 8, "unfreeze_at": {}, "ema_decay": None}
    thaws = empty | {"unfreeze_at": {"1 epoch": ["*"]}}
    assert list(changed_keys(before, {"seed": 1, "train": empty})) == []
    assert [change.key for change in changed_keys(before, {"seed": 1, "train": thaws})] == ["train.unfreeze_at"]


def test_a_switch_that_an_older_checkpoint_does_not_know_counts_as_off() -> None:
    before = {"task": {"kind": "ner"}}
    assert list(changed_keys(before, {"task": {"kind": "ner", "packing": False, "share": 0.0}})) == []
    assert [change.key for change in changed_keys(before, {"task": {"kind": "ner", "packing": True}})] == ["task.packing"]
    assert [change.key for change in changed_keys({"task": {"packing": None}}, {"task": {"packing": False}})] == ["task.packing"]
