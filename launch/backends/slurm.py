"""Carries a plan out on a Slurm cluster: writes the run directory with the code in it, and submits the job."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

import launch
from launch.backends.local import write_code, write_sources
from launch.config.errors import Problem, StateError
from launch.config.load import shipped_configs
from launch.config.new_run import create_attempt, create_run_dir, writing
from launch.config.own_code import copy_code
from launch.config.run_dir import RunDir, update_status, write_atomic, write_json
from launch.plan import LaunchPlan
from launch.plan_experiment import ExperimentPlan
from launch.plan_script import ScriptPlan
from launch.probe import Probe
from launch.render import render_attempt, render_files
from launch.scheduler.allocation import run_script
from launch.scheduler.commands import cancel_job, submit_script, try_script
from launch.scheduler.plan import SlurmJob
from launch.scheduler.render import render_sbatch, shipped_templates
from launch.scheduler.sweeps import describe_sweep

_NOT_CODE = shutil.ignore_patterns("__pycache__", "*.pyc", "configs", "slurm")


@dataclass(frozen=True)
class Submitted:
    """Jobs in the queue; several where they are a chain."""

    job: SlurmJob
    job_ids: tuple[str, ...]


def submit(job: SlurmJob, probe: Probe) -> Submitted:
    """Asks the cluster whether it would take the job, writes the run directory, and submits.

    Raises:
        SlurmError: it was refused; nothing is left behind.
        ConfigError: the run directory exists or cannot be written.
    """
    asked, job = job.plan, snapshot_paths(job)
    try_script(render_sbatch(job), Path.cwd())
    run = create_run_dir(job.plan.run.path.parent, job.plan.name, job.plan.run.path)
    try:
        _fill_run(run, job, asked, probe)
        return _submit(job)
    except BaseException:
        if not run.attempt(1).job.exists():  # nothing has trained in it
            shutil.rmtree(run.path, ignore_errors=True)
        raise


def _fill_run(run: RunDir, job: SlurmJob, asked: LaunchPlan, probe: Probe) -> None:
    """Writes the files of the first attempt, and the code.

    Args:
        asked: the plan with the paths that the person named.

    Raises:
        ConfigError: the run directory cannot be written.
    """
    with writing(run):
        create_attempt(run)
        for name, text in render_files(job.plan, probe).items():
            write_atomic(run.path / name, text)
        write_code(run, probe.code)
        if isinstance(asked, ScriptPlan):
            write_sources(run, asked)
        if isinstance(asked, ExperimentPlan):
            copy_code(asked.experiment, asked.loaded.path, run.code)
        write_packages(run.code / "fullrank")


def resume(job: SlurmJob, probe: Probe) -> Submitted:
    """Submits the next attempt of a run that is there, with the code it was submitted with.

    Raises:
        SlurmError: it was refused; the run stays as it was.
    """
    job = snapshot_paths(job)
    run = job.plan.run
    if not (run.code / "fullrank").is_dir():
        raise StateError(
            Problem("was not submitted to Slurm, so that no job could run its code", where=str(run.path), fix="fullrank resume, without --cluster")
        )
    try_script(render_sbatch(job), Path.cwd())
    with writing(run):
        run.cancelled.unlink(missing_ok=True)
        attempt = create_attempt(run)
        job = replace(job, plan=replace(job.plan, attempt=attempt))
        for name, text in render_attempt(job.plan, probe).items():
            write_atomic(attempt.path / name, text)
    return _submit(job)


def _submit(job: SlurmJob) -> Submitted:
    """Writes the script and the status, and submits; a later link of a chain waits for the one before it, however that ends."""
    run, plan = job.plan.run, job.plan
    job.job_logs.mkdir(exist_ok=True)
    write_atomic(job.script, render_sbatch(job))
    _write_pending(job)
    ids: list[str] = []
    try:
        for _ in range(job.restart.links):
            ids.append(submit_script(job.script, Path.cwd(), _waiting(job, ids)))
            with run.job_ids.open("a", encoding="utf-8") as file:
                file.write(f"{ids[-1]}\n")
    except BaseException:
        for job_id in ids:  # half a chain is none
            cancel_job(job_id)
        raise
    if not plan.attempt.job.exists():  # else the job runs already, and has said so itself
        update_status(run, job_id=ids[0])
    return Submitted(job, tuple(ids))


def _waiting(job: SlurmJob, ids: Sequence[str]) -> list[str]:
    """Returns sbatch's options for what the next link waits for: the one before it, or the stage of a pipeline before its run."""
    if ids:
        return [f"--dependency=afterany:{ids[-1]}"]
    return [f"--dependency={job.before.dependency}", "--kill-on-invalid-dep=yes"] if job.before else []


def _write_pending(job: SlurmJob) -> None:
    plan = job.plan
    write_atomic(plan.run.cluster, yaml.safe_dump(job.cluster.model_dump(mode="json", exclude_defaults=True), sort_keys=False))
    update_status(
        plan.run,
        experiment=plan.name,
        state="pending",
        cause=None,
        message=None,
        attempt=plan.attempt.number,
        backend="slurm",
        job_id=None,
        host=None,
        pid=None,
        agent=None,
        world_size=plan.world_size,
        total_steps=plan.optimizer_steps if isinstance(plan, ExperimentPlan) else None,
        requeues=job.restart.requeues,
        tells_its_end=not (plan.launcher == "accelerate" and isinstance(plan, ScriptPlan)),
        submitted=time.time(),
        started=None,
        ended=None,
        **({"begins_after": str(job.before.run)} if job.before else {}),
    )


def run_here(job: SlurmJob, probe: Probe) -> int:
    """Writes the run directory and runs the job's script in the allocation around this shell; returns its exit code.

    Raises:
        ConfigError: the run directory exists or cannot be written.
    """
    asked, job = job.plan, snapshot_paths(job)
    _fill_run(create_run_dir(job.plan.run.path.parent, job.plan.name, job.plan.run.path), job, asked, probe)
    job.job_logs.mkdir(exist_ok=True)
    write_atomic(job.script, render_sbatch(job))
    _write_pending(job)
    update_status(job.plan.run, job_id=os.environ.get("SLURM_JOB_ID"))
    return run_script(job.script)


def submit_array(job: SlurmJob, plans: Sequence[ExperimentPlan], overrides: Sequence[Sequence[str]], probe: Probe) -> Submitted:
    """Writes a run directory for each plan, the script and the code once, and submits all of them as one array.

    Raises:
        SlurmError: it was refused; nothing is left behind.
    """
    script, runs = render_sbatch(job), [RunDir(path) for path in job.runs]
    try_script(script, Path.cwd())
    home, first = RunDir(job.home), plans[0]
    home.path.mkdir(parents=True)
    made = [home.path]
    try:
        with writing(home):
            write_code(home, probe.code)
            copy_code(first.experiment, first.loaded.path, home.code)
            write_packages(home.code / "fullrank")
            home.job_logs.mkdir()
            write_atomic(job.script, script)
            write_atomic(home.path / "runs.txt", "".join(f"{run.path}\n" for run in runs))
            tasks = [(run.path, own) for run, own in zip(runs, overrides, strict=True)]
            write_json(home.path / "sweep.json", describe_sweep(tasks, first.experiment.evaluate.metric, first.experiment.evaluate.mode))
            for run, plan in zip(runs, plans, strict=True):
                create_run_dir(run.path.parent, plan.name, run.path)
                made.append(run.path)
                create_attempt(run)
                for name, text in render_files(plan, probe).items():
                    (run.path / name).write_text(text, encoding="utf-8")  # not flushed one by one: a thousand runs have ten thousand files
                run.code.symlink_to(home.code)
                run.job_logs.symlink_to(home.job_logs)
                _write_pending(replace(job, plan=plan))
        array = submit_script(job.script, Path.cwd())
    except BaseException:
        for path in made:
            shutil.rmtree(path, ignore_errors=True)
        raise
    for index, run in enumerate(runs):
        if not run.attempt(1).job.exists():  # else the task runs already, and has said so itself
            update_status(run, job_id=f"{array}_{index}")
    return Submitted(job, (array,))


def snapshot_paths(job: SlurmJob) -> SlurmJob:
    """Returns the job with a script plan that starts the copy of the script in the run directory."""
    plan = job.plan
    if not isinstance(plan, ScriptPlan):
        return job
    return replace(job, plan=replace(plan, script=plan.run.code / "script" / plan.script.name))


def write_packages(folder: Path) -> None:
    """Copies fullrank's own packages and files: the job runs what was submitted, whatever happens to the working tree or the environment."""
    package = Path(launch.__file__).parent
    for name in ("launch", "trainers"):
        shutil.copytree(package.parent / name, folder / name, ignore=_NOT_CODE)
    shutil.copytree(shipped_configs(), folder / "configs")
    shutil.copytree(shipped_templates(), folder / "slurm")
