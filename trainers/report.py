"""Writes report.md, what happened in a run, for a person: `python -P -m trainers.report RUN_DIR`."""

from __future__ import annotations

import shlex
import statistics
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launch.config.errors import FullrankError, StateError
from launch.config.experiment import Experiment, dump_experiment
from launch.config.load import flatten, load_experiment
from launch.config.metrics import NOT_METRICS, read_metrics
from launch.config.run_dir import Attempt, RunDir, read_json, write_atomic
from launch.config.tasks import TASK_USAGE

_SPLITS = ("validation", "test")


def main() -> int:
    """Writes the report of the run directory that the command line names, and prints where it is."""
    if len(sys.argv) != 2:
        print("usage: python -m trainers.report RUN_DIR", file=sys.stderr)
        return 2
    try:
        print(write_report(RunDir(Path(sys.argv[1]).absolute())))
    except FullrankError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def write_report(run: RunDir) -> Path:
    """Replaces report.md and its figures by what the run directory says now; also for a run that failed half way.

    Raises:
        StateError: the directory has no resolved.yaml, so it is no run.
    """
    if not run.resolved.is_file():
        raise StateError(f"{run.path} is not a run directory: it has no resolved.yaml")
    experiment = load_experiment(str(run.resolved)).experiment
    records = read_metrics(run.metrics)
    sections = [
        _title(run, experiment),
        _outcome(run, experiment, records),
        _curve(run, experiment, records),
        _confusion(run),
        _model(run, experiment),
        _training(run, experiment, records),
        _attempts(run),
        _configuration(run, experiment),
    ]
    write_atomic(run.report, "\n\n".join(section for section in sections if section) + "\n")
    return run.report


def _title(run: RunDir, experiment: Experiment) -> str:
    plan = _last_plan(run)
    status = read_json(run.status) or {}
    precision = plan.get("precision") or status.get("precision") or experiment.train.precision or "unknown precision"
    how = f"{plan['strategy']} strategy, " if plan.get("strategy") else ""
    size, device = plan.get("world_size") or status.get("world_size"), plan.get("device") or status.get("device") or "unknown device"
    where = f"{how}{_plural(size, 'process', 'processes')} on {device.upper()}" if size else "an unknown number of processes"
    return (
        f"# {experiment.name}\n\n"
        f"`{_display(experiment.model.source or experiment.model.class_ or '')}` trained for {experiment.task.kind.replace('_', ' ')} "
        f"on `{_display(experiment.data.source)}`, "
        f"{experiment.train.duration} in batches of {experiment.train.global_batch_size}; {where}, {precision}. "
        f"Run `{run.run_id}`."
    )


def _outcome(run: RunDir, experiment: Experiment, records: Sequence[dict[str, Any]]) -> str:
    status = read_json(run.status) or {}
    metric = experiment.evaluate.metric
    lines = [f"**{_state_sentence(status, records)}**"]
    judged = [record for record in records if record["split"] == "validation" and metric in record]
    best = (max if experiment.evaluate.mode == "max" else min)(judged, key=lambda record: record[metric]) if judged else None
    if best:
        lines.append(f"Best validation {metric}: **{best[metric]:.4f}** at step {best['step']:,} (epoch {best['epoch']:.4g}).")
    tests = [record for record in records if record["split"] == "test"]
    rows = [
        ("validation, best", best),
        ("validation, last", judged[-1] if judged and judged[-1] is not best else None),
        ("test", tests[-1] if tests else None),
    ]
    table = _scores_table([(name, record) for name, record in rows if record])
    return "## Outcome\n\n" + "\n\n".join([*lines, *([table] if table else [])])


def _curve(run: RunDir, experiment: Experiment, records: Sequence[dict[str, Any]]) -> str:
    shown = [record for record in records if record["split"] in ("train", "validation")]
    if not shown:
        return "## Learning curve\n\nThe run ended before its first record."
    from trainers.figures import draw_learning_curve

    run.figures.mkdir(exist_ok=True)
    draw_learning_curve(run.figures / "learning_curve.png", shown, experiment.evaluate.metric, experiment.evaluate.mode)
    return "## Learning curve\n\n![training and validation loss over optimizer steps](figures/learning_curve.png)"


def _confusion(run: RunDir) -> str:
    """The test split's matrix if there is one, else the validation split's."""
    for split in reversed(_SPLITS):
        evaluation = read_json(run.evaluations / f"{split}.json") or {}
        if evaluation.get("confusion_matrix"):
            from trainers.figures import draw_confusion_matrix

            run.figures.mkdir(exist_ok=True)
            title = f"{split.capitalize()}, step {evaluation['step']:,}"
            draw_confusion_matrix(run.figures / "confusion_matrix.png", evaluation["confusion_matrix"], evaluation["label_names"], title)
            return f"## Confusion matrix\n\n![confusion matrix of the {split} split](figures/confusion_matrix.png)"
    return ""


def _model(run: RunDir, experiment: Experiment) -> str:
    if not run.model.is_dir():
        return ""
    usage = "\n".join(line.format(model=run.model) for line in TASK_USAGE[experiment.task.kind])
    return f"## Use the model\n\n```python\n{usage}\n```"


def _training(run: RunDir, experiment: Experiment, records: Sequence[dict[str, Any]]) -> str:
    train = [record for record in records if record["split"] == "train"]
    if not train:
        return ""
    rows = [("optimizer steps", f"{train[-1]['step']:,}"), ("epochs", f"{train[-1]['epoch']:.4g}")]
    for key, name, form in (
        ("samples_per_second", "samples a second (median)", "{:,.1f}"),
        ("tokens_per_second", "real tokens a second (median)", "{:,.0f}"),
        ("real_token_share", "share of computed tokens that are real", "{:.1%}"),
    ):
        values = [record[key] for record in train if record.get(key) is not None]
        if values:
            rows.append((name, form.format(statistics.median(values))))
    for split in _SPLITS:
        counts = [record["num_samples"] for record in records if record["split"] == split and "num_samples" in record]
        if counts:
            rows.append((f"{split} samples", f"{counts[-1]:,}"))
    arithmetic = _last_plan(run)
    if arithmetic.get("micro_batch_size"):
        product = f"{arithmetic['micro_batch_size']} x {arithmetic['world_size']} x {arithmetic['gradient_accumulation_steps']}"
        rows.append(("global batch (micro x processes x accumulation)", f"{experiment.train.global_batch_size} = {product}"))
    return "## Training\n\n" + _table(("", ""), rows)


def _attempts(run: RunDir) -> str:
    last = run.last_attempt()
    if last is None:
        return ""
    rows = [_attempt_row(run.attempt(number)) for number in range(1, last.number + 1) if run.attempt(number).path.is_dir()]
    command = _command(run, last)
    return "## Attempts\n\n" + _table(("attempt", "started", "processes", "launcher", "ended by"), rows) + (f"\n\n{command}" if command else "")


def _attempt_row(attempt: Attempt) -> tuple[str, ...]:
    plan, failure = read_json(attempt.plan) or {}, read_json(attempt.failure) or _first_failure(attempt)
    started = min((path.stat().st_mtime for path in attempt.path.iterdir()), default=None)
    ended = (
        f"{failure.get('exception') or failure.get('kind')}: {_first_line(failure.get('message', ''))} (rank {failure.get('rank')})"
        if failure
        else ""
    )
    when = datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%d %H:%M UTC") if started else ""
    return str(attempt.number), when, str(plan.get("world_size", "")), str(plan.get("launcher", "")), ended


def _command(run: RunDir, attempt: Attempt) -> str:
    overrides = run.overrides.read_text(encoding="utf-8").splitlines() if run.overrides.is_file() else []
    path = attempt.command.relative_to(run.path)
    sentences = [f"Overrides: `{shlex.join(overrides)}`."] if overrides else []
    sentences += [f"The exact command is in [{path}]({path})."] if attempt.command.is_file() else []
    return " ".join(sentences)


def _configuration(run: RunDir, experiment: Experiment) -> str:
    """What differs from the defaults; resolved.yaml has everything."""
    required = {
        "name": "x",
        "model": {"source": "x"},
        "data": {"source": "x"},
        "train": {"duration": "1 epoch", "global_batch_size": 1},
        "optimizer": {"lr": 1.0},
    }
    task = {key: value for key, value in dump_experiment(experiment)["task"].items() if key in ("kind", "text", "label", "file")}
    defaults = flatten(dump_experiment(Experiment.model_validate({**required, "task": task})))
    always = {"model.source", "data.source", "train.duration", "train.global_batch_size", "optimizer.lr", "task.kind", "task.text", "task.label"}
    derived = {"name", "tracking.wandb.project", "evaluate.mode"}
    values = flatten(dump_experiment(experiment))
    rows = [
        (f"`{key}`", f"`{_shown(value)}`") for key, value in values.items() if key not in derived and (key in always or value != defaults.get(key))
    ]
    return "## Configuration\n\nWhat was chosen; [resolved.yaml](resolved.yaml) has every value.\n\n" + _table(("key", "value"), rows)


def _state_sentence(status: dict[str, Any], records: Sequence[dict[str, Any]]) -> str:
    step = status.get("step") or max((record["step"] for record in records), default=0)
    state, cause, total = status.get("state", "unknown"), status.get("cause"), status.get("total_steps")
    of = f" of {total:,}" if total and total > step else ""
    took = status["ended"] - status["started"] if status.get("ended") and status.get("started") else None
    because = f" ({str(cause).replace('_', ' ')})" if cause else ""
    return f"{state.capitalize()}{because} at step {step:,}{of}{f', after {_span(took)}' if took and took > 0 else ''}."


def _scores_table(rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    hidden = {*NOT_METRICS, "num_samples", "seconds"}
    names = list(dict.fromkeys(key for _, record in rows for key in record if key not in hidden))
    cells = [(name, *(f"{record[key]:.4f}" if key in record else "" for key in names), f"{record.get('num_samples', 0):,}") for name, record in rows]
    return _table(("split", *names, "samples"), cells) if rows else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _last_plan(run: RunDir) -> dict[str, Any]:
    last = run.last_attempt()
    return (read_json(last.plan) if last else None) or {}


def _first_failure(attempt: Attempt) -> dict[str, Any] | None:
    failures = [failure for path in attempt.failures.glob("rank_*.json") if (failure := read_json(path))] if attempt.failures.is_dir() else []
    return min(failures, key=lambda failure: failure.get("time", 0.0), default=None)


def _display(source: str) -> str:
    """Returns a source without its checksum, shortened to its package or its last folders."""
    if source.startswith("pypi://"):
        return source.partition("#")[0].split("/", 3)[2]
    return "/".join(Path(source).parts[-2:]) if source.startswith("/") else source


def _shown(value: object) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 90 else f"{text[:60]}…{text[-20:]}"


def _first_line(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= 160 else f"{line[:159]}…"


def _plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


if __name__ == "__main__":
    sys.exit(main())
