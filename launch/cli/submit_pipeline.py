"""`fullrank submit PIPELINE`: a job for each stage, which waits in the queue for that of the stage before."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from launch.backends import slurm as backend
from launch.cli.pipelines import checked_plan, collecting, new_base, raise_all
from launch.cli.submit import announce, make_job, submit_again
from launch.config.cluster import LoadedCluster
from launch.config.errors import FullrankError
from launch.config.load import load_experiment
from launch.config.pipeline import Pipeline, Stage, load_pipeline, typed_for
from launch.config.run_dir import RunDir
from launch.config.sources import LocalPath
from launch.pipeline_runs import How, read_start, write_start
from launch.plan import Options
from launch.plan_experiment import ExperimentPlan, plan_experiment
from launch.probe import ExperimentProbe, Machine
from launch.scheduler.commands import Site, cancel_job
from launch.scheduler.plan import Before, JobOptions, SlurmJob
from launch.scheduler.render import render_sbatch


def submit_pipeline(
    path: Path,
    words: Sequence[str],
    how: How,
    loaded: LoadedCluster,
    options: JobOptions,
    site: Site | None,
    machine: Machine,
    host_python: str,
    run_dir: Path | None,
    run_root: Path,
    dry_run: bool,
    as_json: bool,
) -> list[RunDir]:
    """Checks every stage, then submits them all, and returns their runs; where one is refused, none stays in the queue.

    Raises:
        FullrankError: with every problem of every stage.
    """
    pipeline = load_pipeline(path, words)
    base = new_base(pipeline, run_dir, run_root)
    jobs: list[tuple[SlurmJob, ExperimentProbe]] = []
    errors: list[FullrankError] = []
    for stage in pipeline.stages:
        with collecting(errors, pipeline, stage):
            plan, probe = plan_stage(pipeline, stage, how, base, machine)
            jobs.append((make_job(plan, probe, loaded, options, host_python, site), probe))
    raise_all(errors)
    if dry_run:
        print("\n".join(render_sbatch(job) for job, _ in jobs), end="")
        return []
    write_start(pipeline, base, words, how)
    submitted: list[backend.Submitted] = []
    try:
        for job, probe in jobs:
            submitted.append(backend.submit(replace(job, before=_before(submitted)), probe))
    except BaseException:
        for job_id in (job_id for one in submitted for job_id in one.job_ids):
            cancel_job(job_id)
        raise
    _announce_all(submitted, base, as_json)
    return [one.job.plan.run for one in submitted]


def resume_submitted(base: Path, words: Sequence[str], changes: Mapping[str, Any], force: bool, dry_run: bool, as_json: bool) -> None:
    """Submits the stages that are not done once more, each behind the one before.

    Raises:
        StateError: all stages are done, or one is in the queue.
    """
    started = read_start(base, words)
    typed = typed_for([stage.name for stage in started.pipeline.stages], words)
    submitted: list[backend.Submitted] = []
    for stage in started.pipeline.stages:
        if started.standing(stage) == "done":
            continue
        again = submit_again(started.run_of(stage), typed[stage.name], **changes, force=force, dry_run=dry_run, before=_before(submitted))
        submitted += [again] if again else []
    if submitted:
        _announce_all(submitted, base, as_json)


def plan_stage(pipeline: Pipeline, stage: Stage, how: How, base: Path, machine: Machine) -> tuple[ExperimentPlan, ExperimentProbe]:
    """Returns the plan that a stage is submitted with: it begins with a model that is not there yet, whose size is that of its origin."""
    plan, probe = checked_plan(pipeline, stage, how, base, machine)
    if not stage.begins_with:
        return plan, probe
    dirs = {other.name: LocalPath(pipeline.stage_dir(base, other)) for other in pipeline.stages}
    named = {key: dirs[name] for key, name in stage.begins_with.items()}
    model, weights = named.get("model.source", probe.model), named.get("model.weights", probe.weights)
    probe = replace(probe, model=model, weights=weights, others={key: named.get(key, place) for key, place in probe.others.items()})
    options = Options(plan.run.path, 1, how.nodes, how.processes_per_node, plan.launcher)
    words = pipeline.started(base, stage)
    return plan_experiment(load_experiment(stage.experiment, words, pipeline.origins(stage, words)), plan.strategy, probe, options), probe


def _before(submitted: Sequence[backend.Submitted]) -> Before | None:
    return Before(submitted[-1].job.plan.run.path, submitted[-1].job_ids) if submitted else None


def _announce_all(submitted: Sequence[backend.Submitted], base: Path, as_json: bool) -> None:
    if as_json:
        stages = [{"run": str(one.job.plan.run.path), "job_id": one.job_ids[0], "job_ids": list(one.job_ids)} for one in submitted]
        print(json.dumps({"pipeline": str(base), "stages": stages}, indent=2))
        return
    for one in submitted:
        announce(one, as_json)
    print(f"  fullrank resume {base} would go on after a stage that did not complete", file=sys.stderr)
