"""The one W&B run of a run directory: its id, how it is opened, and what its rows are.

Line N of metrics.jsonl is row N of the W&B run (its `_step`), so what a resumed run, a W&B service that was killed, or the server has
already is known exactly, and no row is sent twice. The optimizer step is a metric of each row, and the x axis of every chart.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from launch.config.experiment import Experiment, dump_experiment
from launch.config.metrics import NOT_METRICS, Record, parse_record
from launch.config.run_dir import RunDir, read_json, write_atomic

ORDER, RUN_ID, LOCK = "order.json", "run-id.txt", ".upload.lock"
START_S = 20.0
"""How long the server may take to open the run."""


def describe_wandb_run(run: RunDir, experiment: Experiment, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all that a process needs to open the W&B run of a run directory, as plain JSON values: no secret among them."""
    wandb = experiment.tracking.wandb
    return {
        "name": experiment.name,
        "mode": wandb.mode,
        "project": wandb.project or "fullrank",
        "entity": wandb.entity,
        "tags": wandb.tags,
        "best": {"metric": f"validation/{experiment.evaluate.metric}", "mode": experiment.evaluate.mode},
        "config": {**dump_experiment(experiment), "fullrank": {**facts, **_run_facts(run)}},
        "files": [str(path) for path in (run.resolved, run.code / "commit.txt", run.code / "changes.diff") if path.is_file()],
    }


def open_wandb_run(run: RunDir, order: Mapping[str, Any], mode: Literal["online", "offline"], folder: Path, **settings: Any) -> Any:
    """Returns the open W&B run; its files go to <folder>/wandb.

    Raises:
        wandb.errors.Error: the server does not take it within START_S seconds.
    """
    os.environ.pop("WANDB_SERVICE", None)
    os.environ["WANDB_SILENT"] = "true"
    import wandb

    wandb_run = wandb.init(
        mode=mode,
        id=tracker_id(run),
        name=f"{order['name']}-{run.run_id}",
        project=order["project"],
        entity=order["entity"],
        tags=order["tags"],
        config=order["config"],
        allow_val_change=True,
        job_type="train",
        dir=folder,
        resume="allow" if mode == "online" else None,
        settings=wandb.Settings(silent=True, console="off", init_timeout=START_S, **settings),
    )
    wandb_run.define_metric("step", hidden=True)
    wandb_run.define_metric("*", step_metric="step")
    wandb_run.define_metric(order["best"]["metric"], step_metric="step", summary=f"{order['best']['mode']},last")
    return wandb_run


def tracker_id(run: RunDir) -> str:
    """Returns the id of the W&B run: made once, kept in the run directory, unique also where a person chose the directory's name."""
    path = run.wandb / RUN_ID
    if not path.is_file():
        name = re.sub(r"[^A-Za-z0-9_-]", "-", run.run_id)[:100]
        generated = re.fullmatch(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}", name)
        write_atomic(path, name if generated else f"{name}-{secrets.token_hex(3)}")
    return path.read_text(encoding="utf-8").strip()


def read_new_lines(path: Path, position: int) -> tuple[list[Record | None], int]:
    """Returns the whole lines of metrics.jsonl after `position`, a damaged one as None, and where they end."""
    if not path.is_file():
        return [], position
    with path.open("rb") as file:
        file.seek(position)
        text = file.read()
    end = text.rfind(b"\n") + 1
    return [parse_record(line) for line in text[:end].split(b"\n")[:-1]], position + end


def as_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a record as W&B names it: `train/loss`, with step, epoch and attempt beside it."""
    metrics = {f"{record['split']}/{key}": value for key, value in record.items() if key not in NOT_METRICS}
    marks = {key: record[key] for key in ("step", "epoch", "attempt") if key in record}
    return {**marks, "_timestamp": record["time"], **metrics}


@contextmanager
def uploading(run: RunDir) -> Iterator[bool]:
    """Yields whether this is the one process that sends this run's rows to the server, for as long as the block lasts."""
    run.wandb.mkdir(exist_ok=True)
    descriptor = os.open(run.wandb / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_alone = True
    except BlockingIOError:
        is_alone = False
    except OSError:  # a file system without locks
        is_alone = True
    try:
        yield is_alone
    finally:
        os.close(descriptor)


def _run_facts(run: RunDir) -> dict[str, Any]:
    """Returns where the code stood, the job, and how each attempt was started."""
    status = read_json(run.status) or {}
    last = run.last_attempt()
    attempts: dict[str, Any] = {}
    for number in range(1, last.number + 1 if last else 1):
        plan = read_json(run.attempt(number).plan) or {}
        environment = read_json(run.attempt(number).environment) or {}
        kept = {key: plan[key] for key in ("strategy", "engine", "device", "precision", "launcher", "nodes", "world_size") if key in plan}
        attempts[str(number)] = kept | {key: environment[key] for key in ("host", "git") if key in environment}
    plan = read_json(last.plan) or {} if last else {}
    batch: dict[str, Any] = {key: plan[key] for key in ("micro_batch_size", "gradient_accumulation_steps", "command") if key in plan}
    return {"run": str(run.path), "job_id": status.get("job_id"), **batch, "attempts": attempts}
