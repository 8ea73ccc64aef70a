"""report.md says what a run directory holds, for runs that ended well, badly, or early."""

from __future__ import annotations

import base64
import json
import math
import random
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import yaml

from launch.config.errors import StateError
from launch.config.experiment import Experiment, dump_experiment
from launch.config.run_dir import RunDir, read_json, write_json
from trainers.reports.figures import draw_confusion_matrix, smoothed
from trainers.reports.rendering import escaped
from trainers.reports.report import write_report

EXPERIMENT = Experiment.model_validate(
    {
        "name": "reviews",
        "model": {"source": "pypi://small-bert==1.0/model#sha256=" + "0" * 64},
        "task": {"kind": "text_classification", "text": "sentence", "label": "label"},
        "data": {"source": "/data/reviews"},
        "train": {"duration": "3 epochs", "global_batch_size": 32},
        "optimizer": {"lr": 2e-5},
        "evaluate": {"metric": "accuracy", "mode": "max"},
    }
)


def write_run(path: Path, num_steps: int = 300, validation: bool = True, test: bool = True) -> RunDir:
    """Makes the directory of a run of 3 epochs of 100 steps, as the trainer leaves it."""
    run, noise = RunDir(path), random.Random(0)
    run.attempt(1).failures.mkdir(parents=True)
    run.resolved.write_text(yaml.safe_dump(dump_experiment(EXPERIMENT)))
    run.experiment.write_text(yaml.safe_dump(EXPERIMENT.model_dump(mode="json", by_alias=True, exclude_unset=True), sort_keys=False))
    run.overrides.write_text("optimizer.lr=2e-5\n")
    records: list[dict[str, Any]] = []
    for step in (1, *range(10, num_steps + 1, 10)):
        epoch = step / 100
        loss = 0.25 + 0.45 * math.exp(-step / 60) + noise.gauss(0, 0.03)
        speed = {"samples_per_second": 60.0 + step / 100, "tokens_per_second": 1500.0, "real_token_share": 0.8}
        numbers = {"loss": loss, "lr": 1e-5, "gradient_norm": 1.0, **speed}
        records.append({"step": step, "epoch": epoch, "split": "train", "attempt": 1, **numbers, "time": 1.7e9 + step})
        if validation and step % 100 == 0:
            accuracy = {100: 0.81, 200: 0.8675, 300: 0.8625}[step]
            scores = {"loss": 0.3 + step / 3000, "accuracy": accuracy, "f1": accuracy - 0.01}
            records.append({"step": step, "epoch": epoch, "split": "validation", **scores, "num_samples": 872, "seconds": 3.0, "time": 1.7e9 + step})
    if test:
        scores = {"loss": 0.36, "accuracy": 0.8778, "f1": 0.87}
        records.append({"step": num_steps, "epoch": 3.0, "split": "test", **scores, "num_samples": 1821, "seconds": 6.0, "time": 1.8e9})
        run.evaluations.mkdir()
        matrix = {"step": num_steps, "label_names": ["negative", "positive"], "confusion_matrix": [[801, 111], [106, 803]]}
        write_json(run.evaluations / "test.json", matrix)
    run.metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    plan = {"strategy": "ddp", "world_size": 2, "device": "cpu", "precision": "fp32", "launcher": "direct", "micro_batch_size": 16}
    write_json(run.attempt(1).plan, plan | {"gradient_accumulation_steps": 1})
    status = {"state": "completed", "cause": None, "total_steps": 300, "started": 1.7e9, "ended": 1.7e9 + 300}
    write_json(run.status, status)
    return run


def test_damaged_records_are_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    run.metrics.write_bytes(b"\x00\x8f\n\xff\n")
    text = write_report(run).read_text()
    assert "2 lines of metrics.jsonl are damaged and passed over" in text
    assert "The run ended before its first record" not in text


def test_the_torn_last_record_of_a_completed_run_is_told(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    run.metrics.write_bytes(run.metrics.read_bytes()[:-20])
    assert "**Not everything is here:** " in write_report(run).read_text()


def test_the_report_of_a_completed_run_says_what_came_out(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    run.model.mkdir()
    text = write_report(run).read_text()
    for claim in (
        "# reviews\n",
        "`small-bert==1.0` trained for text classification on `data/reviews`, 3 epochs in batches of 32; ddp strategy, 2 processes on CPU, fp32.",
        "**Completed at step 300, after 5 min.**",
        "Best validation accuracy: **0.8675** at step 200 (epoch 2).",
        "| validation, best | 0.3667 | 0.8675 | 0.8575 | 872 |",
        "| validation, last | 0.4000 | 0.8625 | 0.8525 | 872 |",
        "| test | 0.3600 | 0.8778 | 0.8700 | 1,821 |",
        "| samples a second (median) | 61.5 (60.3 to 62.7 in the middle 80 %) |",
        "| share of computed tokens that are real (median) | 80.0% |",
        "| global batch (micro x processes x accumulation) | 32 = 16 x 2 x 1 |",
        f'pipeline("text-classification", model="{run.model}")',
        "| `optimizer.lr` | `2e-05` | override: optimizer.lr=2e-5 |",
        "| `train.global_batch_size` | `32` | experiment.yaml:12 |",
        "| 1 | 2023-11-14 22:13 UTC |  | 2 | direct | 1 to 300 | 61.5 | completed |",
    ):
        assert claim in text
    assert "`train.label_smoothing`" not in text  # a default


@pytest.mark.parametrize(("second", "took"), [({"started": 1.7e9, "ended": 1.7e9 + 100}, "7 min in 3"), ({}, "5 min in 2 of 3")])
def test_the_time_is_that_of_all_attempts(second: dict[str, Any], took: str, tmp_path: Path) -> None:
    run = write_run(tmp_path)
    for number, ended in ((1, {"started": 1.6e9, "ended": 1.6e9 + 20}), (2, second)):
        run.attempt(number).path.mkdir(exist_ok=True)
        write_json(run.attempt(number).ended, ended)
    write_json(run.status, (read_json(run.status) or {}) | {"attempt": 3})
    assert f"**Completed at step 300, after {took} attempts.**" in write_report(run).read_text()


def test_an_overfit_of_one_batch_is_told_from_a_training_with_its_verdict(tmp_path: Path) -> None:
    run = write_run(tmp_path, num_steps=140, validation=False, test=False)
    write_json(run.status, (read_json(run.status) or {}) | {"overfits_batch": True, "verdict": "overfit: yes. The loss of one batch went"})
    text = write_report(run).read_text()
    assert "on one batch of 32 samples of `data/reviews`, again and again until its loss is gone (`--overfit-batch`); ddp strategy" in text
    assert "**Completed at step 140, after 5 min.**\n\n**overfit: yes. The loss of one batch went**" in text


def test_its_figures_are_pictures_that_the_report_shows(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    text = write_report(run).read_text()
    for name in ("learning_curve", "confusion_matrix"):
        assert f"(figures/{name}.png)" in text
        height, width, _ = matplotlib.image.imread(run.figures / f"{name}.png").shape
        assert height > 400
        assert width > 500


def test_a_failed_run_names_its_failure_and_how_far_it_came(tmp_path: Path) -> None:
    run = write_run(tmp_path, num_steps=140, test=False)
    write_json(run.status, {"state": "failed", "cause": None, "total_steps": 300})
    failure = {"rank": 1, "time": 1.0, "kind": "exception", "exception": "RuntimeError", "message": "shape | mismatch\nmore"}
    write_json(run.attempt(1).rank_failure(1), failure)
    text = write_report(run).read_text()
    assert "**Failed at step 140 of 300.**" in text
    assert "| RuntimeError: shape \\| mismatch (rank 1) |" in text
    assert "Use the model" not in text
    assert "Confusion matrix" not in text


def test_a_run_without_validation_shows_its_training_loss(tmp_path: Path) -> None:
    text = write_report(write_run(tmp_path, validation=False, test=False)).read_text()
    assert "Best validation" not in text
    assert "(figures/learning_curve.png)" in text


def test_a_run_that_made_no_step_has_a_report(tmp_path: Path) -> None:
    run = write_run(tmp_path, test=False)
    run.metrics.unlink()
    run.status.unlink()
    text = write_report(run).read_text()
    assert "**Unknown at step 0.**" in text
    assert "The run ended before its first record." in text


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"is not a run directory: it has no resolved\.yaml"):
        write_report(RunDir(tmp_path))


def test_many_classes_are_drawn_too(tmp_path: Path) -> None:
    size = 30
    counts = [[50 if row == column else 1 for column in range(size)] for row in range(size)]
    draw_confusion_matrix(tmp_path / "matrix.png", counts, [f"class number {index}" for index in range(size)], "Test")
    assert (tmp_path / "matrix.png").stat().st_size > 10_000


def test_the_smoothed_curve_of_a_constant_is_that_constant() -> None:
    assert smoothed([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])
    assert smoothed([1.0, 3.0], weight=0.5) == pytest.approx([(1 + 5 / 3) / 2, (7 / 3 + 3) / 2])


def test_the_smoothed_curve_of_a_line_does_not_lag_behind_it() -> None:
    assert smoothed([float(value) for value in range(101)])[50] == pytest.approx(50)


EVIL = "<script>alert(1)</script> | `x` ![pixel](http://example.org/x.png) [click](javascript:alert(1)) <img src=x onerror=alert(1)>"


def test_the_worst_samples_are_shown_as_they_are_and_never_as_markup(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    evaluation = read_json(run.evaluations / "test.json") or {}
    write_png(run.figures / "test-7.png")
    worst = [
        {"index": 3, "loss": 4.25, "label": EVIL, "predicted": "positive", "shown": escaped(EVIL)},
        {"index": 7, "loss": None, "label": None, "predicted": None, "shown": "![test 7](figures/test-7.png)"},
    ]
    write_json(run.evaluations / "test.json", evaluation | {"worst": worst})
    text = write_report(run).read_text()
    assert "| not finite |  |  | ![test 7](figures/test-7.png) | 7 |" in text
    page = Page(run.report_page.read_text())
    assert "<script>alert(1)</script> | `x` ![pixel](http://example.org/x.png)" in page.text
    assert page.tags.isdisjoint({"script", "iframe", "a", "link", "object", "form"})
    assert len(page.pictures) == 3
    assert all(source.startswith("data:image/png;base64,") for source in page.pictures)
    assert not any(name.startswith("on") for name in page.attributes)


def test_summed_losses_and_the_matrix_of_names_are_explained(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    named = dump_experiment(EXPERIMENT) | {"task": {"kind": "ner"}, "evaluate": {"metric": "f1", "mode": "max"}}
    run.resolved.write_text(yaml.safe_dump(named))
    worst = [{"index": 3, "loss": 56.5, "label": None, "predicted": None, "shown": "Ada"}]
    write_json(run.evaluations / "test.json", (read_json(run.evaluations / "test.json") or {}) | {"worst": worst, "sums_losses": True})
    text = write_report(run).read_text()
    assert "A sample's loss is the sum over all that it is judged by (words, pixels); the loss above is the mean.\n\n| summed loss | sample |" in text
    assert "(figures/confusion_matrix.png)\n\nThe row “no name” counts what the model found where there is no name" in text


def test_columns_that_no_worst_sample_fills_are_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    worst = [{"index": 3, "loss": 4.25, "label": None, "predicted": None, "shown": "Who?"}]
    write_json(run.evaluations / "test.json", (read_json(run.evaluations / "test.json") or {}) | {"worst": worst})
    assert "| loss | sample | index |\n| --- | --- | --- |\n| 4.2500 | Who? | 3 |" in write_report(run).read_text()


def test_the_page_needs_no_other_file_and_no_network(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    write_report(run)
    text = run.report_page.read_text()
    page = Page(text)
    assert page.headings == ["Outcome", "Learning curve", "Confusion matrix", "Training", "Attempts", "Configuration"]
    assert page.title == f"reviews {run.run_id}"
    assert len(page.pictures) == 2
    assert base64.b64decode(page.pictures[0].partition(",")[2]) == (run.figures / "learning_curve.png").read_bytes()
    assert "http" not in text.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in text


def test_the_table_of_profiled_steps_is_in_it(tmp_path: Path) -> None:
    run = write_run(tmp_path, num_steps=3)
    run.profile.mkdir()
    (run.profile / "steps.md").write_text("# Where the time of steps 2 to 3 went (rank 0)\n\n| phase | ms |\n|---|---|\n| forward | 7.00 |\n")
    write_report(run)
    assert "\n## Where the time of steps 2 to 3 went (rank 0)\n\n| phase | ms |\n" in run.report.read_text()
    assert "7.00" in run.report_page.read_text()


def test_each_attempt_says_why_it_ended(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    for record in records:
        record["attempt"] = 1 + (record["step"] > 100) + (record["step"] > 200)
    run.metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    for number in (2, 3):
        run.attempt(number).failures.mkdir(parents=True)
    write_json(run.attempt(1).ended, {"state": "stopped", "cause": "time_limit", "step": 104, "host": "node7", "world_size": 2, "started": 1.7e9})
    text = write_report(run).read_text()
    rows = [line for line in text.splitlines() if line.startswith(("| 1 |", "| 2 |", "| 3 |"))]
    assert rows[0] == "| 1 | 2023-11-14 22:13 UTC | node7 | 2 | direct | 1 to 100 | 60.5 | stopped (time limit) at step 104 |"
    assert rows[1].endswith("| 110 to 200 | 61.5 | no word of it: killed, or its machine was lost |")
    assert rows[2].endswith("| 210 to 300 | 62.5 | completed |")


def test_warnings_of_the_plan_and_of_rank_0_are_listed_once(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    write_json(run.attempt(1).plan, (read_json(run.attempt(1).plan) or {}) | {"warnings": ["2 processes share 1 core"]})
    run.attempt(1).rank_log(0).write_text("started\nwarning: <b>slow</b>\nwarning: <b>slow</b>\nloss 1.0\n")
    text = write_report(run).read_text()
    assert "## Warnings\n\n- 2 processes share 1 core\n- \\<b\\>slow\\</b\\>\n\n" in text


@pytest.mark.parametrize("text", ['{"state": 5}', '{"state": "completed", "step": "3"}', "", "[]"])
def test_a_status_that_cannot_be_read_is_told(text: str, tmp_path: Path) -> None:
    run = write_run(tmp_path)
    run.status.write_text(text)
    assert "**Unknown at step 300.**\n\n**Not everything is here:** the run has no readable status.json: " in write_report(run).read_text()
    write_json(run.attempt(1).ended, {"state": "stopped", "cause": "preempted", "step": 300})
    assert "**Stopped (preempted) at step 300.**\n\n**Not everything is here:**" in write_report(run).read_text()


def test_an_experiments_run_without_resolved_yaml_is_no_scripts_run(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    run.resolved.unlink()
    with pytest.raises(StateError, match=r"its resolved\.yaml is missing"):
        write_report(run)


def test_a_scripts_run_is_told_apart(tmp_path: Path) -> None:
    RunDir(tmp_path).attempt(1).path.mkdir(parents=True)
    with pytest.raises(StateError, match="a script's run has no report"):
        write_report(RunDir(tmp_path))


class Page(HTMLParser):
    """What a reader of an HTML page gets."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.pictures: list[str] = []
        self.headings: list[str] = []
        self.title = self.text = self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.pictures += [value or "" for name, value in attrs if tag == "img" and name == "src"]

    def handle_endtag(self, tag: str) -> None:
        self._tag = ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._tag == "h2":
            self.headings.append(data)
        if self._tag == "title":
            self.title = data


def write_png(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    matplotlib.image.imsave(path, [[0.0, 1.0], [1.0, 0.0]])
