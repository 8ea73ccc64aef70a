"""Writes report.md and report.html, what happened in a run, for a person: `python -P -m trainers.reports.report RUN_DIR`."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.config.errors import EXIT_PREFLIGHT, FullrankError, Problem, StateError, install_words
from launch.config.experiment import Experiment
from launch.config.load import load_experiment
from launch.config.metrics import NOT_METRICS, Record, best_record, read_with_damage
from launch.config.run_dir import RunDir, read_json, write_atomic
from launch.config.status_file import last_known_status
from trainers.reports.pictures import CONFUSION_MATRIX, LEARNING_CURVE, draw_pictures
from trainers.reports.rendering import code, escaped, render_page, table
from trainers.reports.tables import attempts_section, configuration_section, last_plan, training_section, warnings_section

SPLITS = ("test", "validation")


def main() -> int:
    """Writes the report of the run directory that the command line names, and prints where it is."""
    if len(sys.argv) != 2:
        print("usage: python -m trainers.reports.report RUN_DIR", file=sys.stderr)
        return 2
    try:
        print(write_report(RunDir(Path(sys.argv[1]).absolute())))
    except FullrankError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is not installed, and draws the pictures\n    try: {install_words('train')}", file=sys.stderr)
        return EXIT_PREFLIGHT
    return 0


def write_report(run: RunDir) -> Path:
    """Replaces report.md, report.html and their figures by what the run directory says now; also for a run that failed half way.

    Raises:
        StateError: the directory has no resolved.yaml: it is no run, or a script's.
    """
    if not run.resolved.is_file():
        is_script = run.attempts.is_dir()
        if run.experiment.is_file():
            fix = f"a copy of it, or fullrank logs {run.path}"
            raise StateError(Problem("its resolved.yaml is missing, which the report is written from", where=str(run.path), fix=fix))
        what = "a script's run has no report: what it records is its own" if is_script else "is not a run directory: it has no resolved.yaml"
        raise StateError(Problem(what, where=str(run.path), fix=f"fullrank logs {run.path}" if is_script else None))
    experiment = load_experiment(str(run.resolved)).experiment
    records, damage = read_with_damage(run.metrics, is_completed=last_known_status(run)[0].get("state") == "completed")
    pictures = draw_pictures(run)
    sections = [
        _title(run, experiment),
        _outcome(run, experiment, records),
        _curve(pictures, damage),
        _confusion(pictures, experiment),
        _illustration(run),
        _worst(run),
        _model(run, experiment),
        training_section(run, experiment, records),
        _profile(run),
        attempts_section(run, records),
        warnings_section(run),
        configuration_section(run, experiment),
    ]
    text = "\n\n".join(section for section in sections if section) + "\n"
    write_atomic(run.report, text)
    write_atomic(run.report_page, render_page(f"{experiment.name} {run.run_id}", text, run.path))
    return run.report


def _title(run: RunDir, experiment: Experiment) -> str:
    plan, (status, _) = last_plan(run), last_known_status(run)
    precision = plan.get("precision") or status.get("precision") or experiment.train.precision or "unknown precision"
    how = f"{plan['strategy']} strategy, " if plan.get("strategy") else ""
    size, device = plan.get("world_size") or status.get("world_size"), plan.get("device") or status.get("device") or "unknown device"
    where = f"{how}{size} {'process' if size == 1 else 'processes'} on {device.upper()}" if size else "an unknown number of processes"
    model = experiment.model.source or experiment.model.model_dump(by_alias=True).get("class") or "a model of its own"
    task, data, batch = experiment.task.kind.replace("_", " "), code(_display(experiment.data.source)), experiment.train.global_batch_size
    much = f"on {data}, {experiment.train.duration} in batches of {batch}"
    if status.get("overfits_batch"):
        much = f"on one batch of {batch} samples of {data}, again and again until its loss is gone ({code('--overfit-batch')})"
    return f"# {escaped(experiment.name)}\n\n{code(_display(model))} trained for {task} {much}; {where}, {precision}. Run {code(run.run_id)}."


def _outcome(run: RunDir, experiment: Experiment, records: Sequence[Record]) -> str:
    metric = experiment.evaluate.metric
    status, damage = last_known_status(run)
    lines = [f"**{escaped(_state_sentence(run, status, records))}**"]
    if status.get("verdict"):
        lines.append(f"**{escaped(status['verdict'])}**")
    if damage:
        lines.append(f"**Not everything is here:** the run {escaped(damage)}.")
    judged = [record for record in records if record["split"] == "validation" and metric in record]
    best = best_record(records, experiment.evaluate)
    if best:
        lines.append(f"Best validation {escaped(metric)}: **{best[metric]:.4f}** at step {best['step']:,} (epoch {best.get('epoch', 0):.4g}).")
    tests = [record for record in records if record["split"] == "test"]
    rows = [
        ("validation, best", best),
        ("validation, last", judged[-1] if judged and judged[-1] is not best else None),
        ("test", tests[-1] if tests else None),
    ]
    scores = _scores_table([(name, record) for name, record in rows if record])
    return "## Outcome\n\n" + "\n\n".join([*lines, *([scores] if scores else [])])


def _curve(pictures: dict[str, Path], damage: str | None) -> str:
    missing = f"\n\n**Not everything is here:** {escaped(damage)}." if damage else ""
    if LEARNING_CURVE not in pictures:
        return f"## Learning curve{missing}" if missing else "## Learning curve\n\nThe run ended before its first record."
    return f"## Learning curve{missing}\n\n![training and validation loss over optimizer steps](figures/{pictures[LEARNING_CURVE].name})"


def _confusion(pictures: dict[str, Path], experiment: Experiment) -> str:
    if CONFUSION_MATRIX not in pictures:
        return ""
    picture = f"![confusion matrix, true classes by predicted classes](figures/{pictures[CONFUSION_MATRIX].name})"
    return "\n\n".join(["## Confusion matrix", picture, *([experiment.task.MATRIX] if experiment.task.MATRIX else [])])


def _illustration(run: RunDir) -> str:
    """What the task itself shows, of the test split if there is one, else of the validation split."""
    return next((shown for split in SPLITS if (shown := (read_json(run.evaluations / f"{split}.json") or {}).get("illustration"))), "")


def _worst(run: RunDir) -> str:
    """The samples with the highest losses, of the test split if there is one, else of the validation split."""
    for split in SPLITS:
        evaluation = read_json(run.evaluations / f"{split}.json") or {}
        if evaluation.get("worst"):
            is_sum = evaluation.get("sums_losses")
            rows = [
                ("summed loss" if is_sum else "loss", "true", "predicted", "sample", "index"),
                *(_worst_row(sample) for sample in evaluation["worst"]),
            ]
            filled = [column for column in zip(*rows, strict=True) if any(column[1:])]  # not every task has classes
            titles, *cells = zip(*filled, strict=True)
            told = f"The samples of the {split} split with the highest losses, at step {evaluation['step']:,}: look here for wrong labels first."
            told += " A sample's loss is the sum over all that it is judged by (words, pixels); the loss above is the mean." if is_sum else ""
            return f"## Worst samples\n\n{told}\n\n" + table(titles, cells)
    return ""


def _worst_row(sample: dict[str, Any]) -> tuple[str, ...]:
    loss = "not finite" if sample["loss"] is None else f"{sample['loss']:.4f}"
    label, predicted = ("" if sample[key] is None else escaped(str(sample[key])) for key in ("label", "predicted"))
    return loss, label, predicted, sample["shown"], str(sample["index"])


def _profile(run: RunDir) -> str:
    """What `--profile-steps` found, under a heading of the report."""
    path = run.profile / "steps.md"
    return f"#{path.read_text(encoding='utf-8').rstrip()}" if path.is_file() else ""


def _model(run: RunDir, experiment: Experiment) -> str:
    if not run.model.is_dir():
        return ""
    usage = "\n".join(experiment.task.usage_of(run.model, run.own_usage()))
    return f"## Use the model\n\n```python\n{usage}\n```"


def _state_sentence(run: RunDir, status: dict[str, Any], records: Sequence[Record]) -> str:
    step = status.get("step") or max((record["step"] for record in records), default=0)
    state, cause, total = status.get("state", "unknown"), status.get("cause"), status.get("total_steps")
    is_done = state == "completed" and status.get("overfits_batch")
    of = f" of {total:,}" if total and total > step and not is_done else ""
    because = f" ({str(cause).replace('_', ' ')})" if cause else ""
    return f"{str(state).capitalize()}{because} at step {step:,}{of}{_took(run, status)}."


def _took(run: RunDir, status: dict[str, Any]) -> str:
    """Returns how long the attempts trained together, without the time between them; one that was killed did not say how long."""
    number = status.get("attempt") or 1
    told = [status, *(read_json(attempt.ended) or {} for attempt in run.attempts_backwards() if attempt.number < number)]
    spans = [max(0.0, (ended.get("ended") or 0.0) - (ended.get("started") or math.inf)) for ended in told]
    if not spans[0]:
        return ""
    of = "" if all(spans) else f"{sum(span > 0 for span in spans)} of "
    return f", after {_span(sum(spans))}{f' in {of}{len(told)} attempts' if len(told) > 1 else ''}"


def _scores_table(rows: Sequence[tuple[str, Record]]) -> str:
    hidden = {*NOT_METRICS, "num_samples", "seconds"}
    names = list(dict.fromkeys(key for _, record in rows for key in record if key not in hidden))
    cells = [(name, *(f"{record[key]:.4f}" if key in record else "" for key in names), f"{record.get('num_samples', 0):,}") for name, record in rows]
    return table(("split", *map(escaped, names), "samples"), cells) if rows else ""


def _display(source: str) -> str:
    """Returns a source without its checksum, shortened to its package or its last folders."""
    if source.startswith("pypi://"):
        return source.partition("#")[0].split("/", 3)[2]
    return "/".join(Path(source).parts[-2:]) if source.startswith("/") else source


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


if __name__ == "__main__":
    sys.exit(main())
