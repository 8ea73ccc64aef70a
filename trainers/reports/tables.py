"""The tables of a report: the training's speed, its attempts, its warnings, its configuration."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launch.config.experiment import Experiment, dump_experiment
from launch.config.load import flatten, load_experiment
from launch.config.metrics import Record
from launch.config.run_dir import Attempt, RunDir, read_json
from launch.config.status_file import last_known_status
from trainers.reports.rendering import code, escaped, table

MAX_WARNINGS = 20
_LARGEST_LOG_BYTES = 8 << 20
_SPEEDS = (
    ("samples_per_second", "samples a second", "{:,.1f}"),
    ("tokens_per_second", "real tokens a second", "{:,.0f}"),
    ("real_token_share", "share of computed tokens that are real", "{:.1%}"),
)


def last_plan(run: RunDir) -> dict[str, Any]:
    """Returns the plan of the newest attempt; empty if fullrank did not start it."""
    last = run.last_attempt()
    return (read_json(last.plan) if last else None) or {}


def training_section(run: RunDir, experiment: Experiment, records: Sequence[Record]) -> str:
    """How far the training came, and how fast it was."""
    train = [record for record in records if record["split"] == "train"]
    if not train:
        return ""
    rows = [("optimizer steps", f"{train[-1]['step']:,}"), ("epochs", f"{train[-1].get('epoch', 0):.4g}")]
    for key, name, form in _SPEEDS:
        values = sorted(record[key] for record in train if record.get(key) is not None)
        if values:
            low, high = values[len(values) // 10], values[-1 - len(values) // 10]
            spread = f" ({form.format(low)} to {form.format(high)} in the middle 80 %)" if len(values) >= 10 and key != "real_token_share" else ""
            rows.append((f"{name} (median)", form.format(statistics.median(values)) + spread))
    share = flops_share(run, train)
    if share is not None:
        rows.append(("share of the matrix rate that was reached", f"{share:.0%} of one large product's, timed at the start; attention not counted"))
    for split in ("validation", "test"):
        counts = [record["num_samples"] for record in records if record["split"] == split and "num_samples" in record]
        if counts:
            rows.append((f"{split} samples", f"{counts[-1]:,}"))
    if experiment.train.ema_decay is not None:
        rows.append(("weights that were evaluated, and are the model", f"their moving average, decay {experiment.train.ema_decay:g}"))
    if experiment.model.lora is not None:
        rows.append(
            ("trained", f"LoRA adapters of rank {experiment.model.lora.rank}, and the head; model/ is merged, model/adapter/ the adapters alone")
        )
    plan = last_plan(run)
    if plan.get("micro_batch_size"):
        product = f"{plan['micro_batch_size']} x {plan['world_size']} x {plan['gradient_accumulation_steps']}"
        rows.append(("global batch (micro x processes x accumulation)", f"{experiment.train.global_batch_size} = {product}"))
    return "## Training\n\n" + table(("", ""), rows)


def flops_share(run: RunDir, train: Sequence[Record]) -> float | None:
    """Returns what the model's arithmetic is of what the newest attempt's devices multiply, by the median record; None where no one counted."""
    last = run.last_attempt()
    facts = (read_json(last.start) if last else None) or {}
    rates = [record["tokens_per_second"] / record["real_token_share"] for record in train if record.get("real_token_share")]
    if not rates or not facts.get("matrix_flops_per_second"):
        return None
    return float(statistics.median(rates) * facts["flops_per_token"] / facts["matrix_flops_per_second"])


def attempts_section(run: RunDir, records: Sequence[Record]) -> str:
    """Each start of the run: where, how far, and why it ended."""
    last = run.last_attempt()
    if last is None:
        return ""
    attempts = [run.attempt(number) for number in range(1, last.number + 1) if run.attempt(number).path.is_dir()]
    rows = [_attempt_row(run, attempt, records, is_last=attempt == last) for attempt in attempts]
    command = _command(run, last)
    header = ("attempt", "started", "host", "processes", "launcher", "records of steps", "samples a second", "ended by")
    return "## Attempts\n\n" + table(header, rows) + (f"\n\n{command}" if command else "")


def warnings_section(run: RunDir) -> str:
    """What the plans and rank 0 warned of, each once."""
    found = list(dict.fromkeys(_warnings(run)))
    if not found:
        return ""
    more = [f"- and {len(found) - MAX_WARNINGS} more, in the logs of the attempts"] if len(found) > MAX_WARNINGS else []
    return "## Warnings\n\n" + "\n".join([*(f"- {escaped(text)}" for text in found[:MAX_WARNINGS]), *more])


def configuration_section(run: RunDir, experiment: Experiment) -> str:
    """What was chosen, and where, and what followed from it; resolved.yaml has everything."""
    values: dict[str, Any] = flatten(dump_experiment(experiment))
    planned = (read_json(run.attempt(1).plan) or {}).get("values") or {}
    origins = {key: str(value.get("origin")) for key, value in planned.items()} or _loaded_origins(run)
    values |= {key: value.get("value") for key, value in planned.items() if key not in values or origins[key].startswith("derived")}
    rows = [
        (code(key), code(_shown(values[key])), escaped(_place(origin)))
        for key, origin in origins.items()
        if key in values and origin != "default" and not (values[key] is None and origin.startswith("derived"))
    ]
    return "## Configuration\n\nWhat was chosen; [resolved.yaml](resolved.yaml) has every value.\n\n" + table(("key", "value", "from"), rows)


def _attempt_row(run: RunDir, attempt: Attempt, records: Sequence[Record], is_last: bool) -> tuple[str, ...]:
    plan, ended = read_json(attempt.plan) or {}, read_json(attempt.ended) or {}
    environment = read_json(attempt.environment) or {}
    status = last_known_status(run)[0] if is_last else {}
    started = ended.get("started") or status.get("started") or min((path.stat().st_mtime for path in attempt.path.iterdir()), default=None)
    when = datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%d %H:%M UTC") if started else ""
    own = [record for record in records if record.get("attempt") == attempt.number and record["split"] == "train"]
    steps = f"{own[0]['step']:,} to {own[-1]['step']:,}" if own else ""
    speeds = [record["samples_per_second"] for record in own if record.get("samples_per_second")]
    speed = f"{statistics.median(speeds):,.1f}" if speeds else ""
    host = ended.get("host") or environment.get("host") or status.get("host") or ""
    size = plan.get("world_size") or ended.get("world_size") or status.get("world_size") or ""
    launcher = str(plan.get("launcher", "not fullrank's" if own or ended else ""))
    return str(attempt.number), when, escaped(str(host)), str(size), escaped(launcher), steps, speed, _ended_by(attempt, ended, status)


def _ended_by(attempt: Attempt, ended: dict[str, Any], status: dict[str, Any]) -> str:
    failure = read_json(attempt.failure) or _first_failure(attempt)
    known = ended or (status if status.get("ended") else {})
    if failure and known.get("state") != "completed":
        message = next(iter(str(failure.get("message") or "").strip().splitlines()), "")
        rank = "" if failure.get("rank") is None else f" (rank {failure['rank']})"
        return escaped(f"{failure.get('exception') or failure.get('kind')}: {message}{rank}")
    if known:
        cause = f" ({str(known['cause']).replace('_', ' ')})" if known.get("cause") else ""
        step = f" at step {known['step']:,}" if known.get("step") is not None else ""
        return escaped(f"{known.get('state')}{cause}{step}")
    if status:
        return escaped(f"{status.get('state')}, as far as its status file knows")
    return "no word of it: killed, or its machine was lost"


def _first_failure(attempt: Attempt) -> dict[str, Any] | None:
    failures = [failure for path in attempt.failures.glob("rank_*.json") if (failure := read_json(path))] if attempt.failures.is_dir() else []
    return min(failures, key=lambda failure: failure.get("time", 0.0), default=None)


def _command(run: RunDir, attempt: Attempt) -> str:
    overrides = _overrides(run)
    path = attempt.command.relative_to(run.path)
    sentences = [f"Overrides: {code(shlex.join(overrides))}."] if overrides else []
    sentences += [f"The exact command is in [{path}]({path})."] if attempt.command.is_file() else []
    return " ".join(sentences)


def _warnings(run: RunDir) -> Iterator[str]:
    last = run.last_attempt()
    for number in range(1, last.number + 1 if last else 1):
        attempt = run.attempt(number)
        yield from map(str, (read_json(attempt.plan) or {}).get("warnings", []))
        for log in (attempt.rank_log(0), attempt.job_log):
            yield from _warning_lines(log)


def _warning_lines(log: Path) -> Iterator[str]:
    if not log.is_file():
        return
    with log.open("rb") as file:
        text = file.read(_LARGEST_LOG_BYTES).decode(errors="replace")
    for line in text.replace("\r", "\n").splitlines():
        before, marker, what = line.removeprefix("\x1b[K").partition("warning: ")
        if marker and not before:
            yield what


def _loaded_origins(run: RunDir) -> dict[str, str]:
    """Returns where each value stands in the files of a run that fullrank did not plan."""
    file = run.experiment if run.experiment.is_file() else run.resolved
    return {key: str(origin) for key, origin in load_experiment(str(file), _overrides(run)).origins.items()}


def _overrides(run: RunDir) -> list[str]:
    return run.overrides.read_text(encoding="utf-8").splitlines() if run.overrides.is_file() else []


def _place(origin: str) -> str:
    """Returns an origin with its path shortened to the file's name."""
    kind, _, detail = origin.partition(": ")
    path, _, line = detail.rpartition(":")
    return f"{Path(path).name}:{line}" if line.isdigit() and "/" in path else f"{kind}: {detail}" if detail else kind


def _shown(value: object) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
