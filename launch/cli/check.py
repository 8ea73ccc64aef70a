"""`fullrank check`: every problem at once, of a launch or of this machine; starts and writes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import typer

from launch.checks.cluster import cluster_warnings, run_cluster_checks
from launch.checks.environment import judge_environment
from launch.checks.findings import Finding, from_problems
from launch.checks.machine import judge_machine
from launch.cli.options import (
    ClusterName,
    ExperimentName,
    Json,
    LauncherName,
    Nodes,
    Overrides,
    ProcessesPerNode,
    RunDirectory,
    RunRoot,
    ScriptPath,
    StrategyName,
    default_run_root,
)
from launch.cli.pipelines import plan_pipeline
from launch.cli.planning import parse_target, plan_target
from launch.cli.show import plan_headline
from launch.cli.tables import table
from launch.config.cluster import LoadedCluster, load_cluster
from launch.config.errors import EXIT_CONFIG, EXIT_DONE, EXIT_PREFLIGHT, Problem
from launch.config.own_code import own_modules
from launch.config.pipeline import find_pipeline
from launch.machine import ask_environment, ask_machine
from launch.pipeline_runs import How
from launch.plan import LaunchPlan
from launch.plan_experiment import ExperimentPlan
from launch.preflight import run_checks
from launch.probe import ExperimentProbe, Machine, Probe, missing_training_packages, probe_machine
from launch.scheduler.commands import Site, try_site
from launch.scheduler.plan import JobOptions, node_machine, plan_job
from launch.scheduler.restarts import choose_restart
from launch.sizes.save_time import find_save_time

OWN_CODE_TIMEOUT_S = 120


def check(
    ctx: typer.Context,
    experiment: ExperimentName = None,
    overrides: Overrides = None,
    script: ScriptPath = None,
    cluster: ClusterName = None,
    strategy: StrategyName = "auto",
    nodes: Nodes = None,
    processes_per_node: ProcessesPerNode = None,
    launcher: LauncherName = "direct",
    run_dir: RunDirectory = None,
    run_root: RunRoot = None,
    as_json: Json = False,
) -> None:
    if experiment is None and script is None:
        findings = judge_machine(ask_machine(run_root or default_run_root()))
        code = EXIT_PREFLIGHT if any(finding.status == "problem" for finding in findings) else EXIT_DONE
        print_findings(findings, code, as_json)
        raise typer.Exit(code)
    asked = ask_cluster(cluster) if cluster is not None else None
    if asked and asked.loaded.cluster.run_root and run_root is None:
        run_root = Path(asked.loaded.cluster.run_root)
    machine = asked.machine if asked else None
    checked: list[Checked] = []
    if script is None and (pipeline := find_pipeline(experiment)):
        how = How(strategy, nodes, processes_per_node, launcher)
        for stage, plan, probe in plan_pipeline(pipeline, overrides or (), how, run_dir, run_root or default_run_root(), machine):
            of_stage = check_plan(plan, probe, asked)
            checked.append(Checked(tuple(replace(one, check=f"{stage.name}: {one.check}") for one in of_stage.findings), of_stage.code))
    else:
        target = parse_target(ctx, experiment, overrides, script)
        checked.append(check_plan(*plan_target(target, strategy, nodes, processes_per_node, launcher, run_dir, run_root, machine=machine), asked))
    checked.append(check_cluster_answered(asked) if asked else check_environment())
    codes = {one.code for one in checked}
    code = next(code for code in (EXIT_CONFIG, EXIT_PREFLIGHT, EXIT_DONE) if code in codes)
    print_findings([finding for one in checked for finding in one.findings], code, as_json)
    raise typer.Exit(code)


@dataclass(frozen=True)
class Checked:
    """What checks found, and the exit code that a start would end with before it begins."""

    findings: tuple[Finding, ...]
    code: int


@dataclass(frozen=True)
class AskedCluster:
    """A cluster file, and what the cluster behind it says of itself.

    Args:
        machine: a node of it.
        python: the interpreter here.
        unasked: why it could not be asked.
    """

    loaded: LoadedCluster
    site: Site | None
    unasked: Problem | None
    machine: Machine
    python: str


def ask_cluster(name: str) -> AskedCluster:
    """Returns a cluster with its answers.

    Raises:
        ConfigError: the file has problems.
    """
    loaded, here = load_cluster(name), probe_machine()
    site, unasked = try_site()
    return AskedCluster(loaded, site, unasked, node_machine(loaded.cluster, loaded.name, here), here.python)


def check_plan(plan: LaunchPlan, probe: Probe, asked: AskedCluster | None) -> Checked:
    """Returns what the checks of one launch found, here or on a cluster."""
    warnings = list(plan.warnings)
    if asked is None:
        results = run_checks(plan, probe)
    else:
        restart = choose_restart(asked.loaded.cluster, None, asked.site)
        job = plan_job(plan, asked.loaded.cluster, JobOptions(), asked.python, restart, find_save_time(plan))
        results = run_cluster_checks(job, asked.loaded, probe, asked.site)
        warnings += cluster_warnings(job, asked.site)
    findings, code = [Finding("plan", "ok", plan_headline(plan))], EXIT_DONE
    for result in results:
        findings += from_problems(result.name, result.problems, result.when_fine)
        if result.problems and code != EXIT_CONFIG:
            code = EXIT_CONFIG if result.is_input else EXIT_PREFLIGHT
    is_importable = asked is None and isinstance(probe, ExperimentProbe) and not probe.missing_code and not missing_training_packages()
    if isinstance(plan, ExperimentPlan) and own_modules(plan.experiment) and is_importable:
        problems = check_own_code(plan)
        findings += from_problems("own code", problems, "imported, and of the right kind")
        code = EXIT_CONFIG if problems else code
    return Checked((*findings, *(Finding("plan", "warning", warning) for warning in warnings)), code)


def check_cluster_answered(asked: AskedCluster) -> Checked:
    """Returns a warning where the cluster's own answers are missing."""
    if asked.unasked is None:
        return Checked((), EXIT_DONE)
    what = f"{asked.unasked.what}: what the cluster has could not be asked"
    return Checked((Finding("cluster", "warning", what, asked.unasked.fix),), EXIT_DONE)


def check_environment() -> Checked:
    """Returns what the variables of this shell would do to a training."""
    findings = judge_environment(ask_environment())
    return Checked(tuple(findings), EXIT_PREFLIGHT if any(finding.status == "problem" for finding in findings) else EXIT_DONE)


def check_own_code(plan: ExperimentPlan) -> list[Problem]:
    """Returns what is wrong with model.class and task.file, found by importing them in a process that may load torch."""
    command = [plan.python, "-P", "-m", "trainers.own_code_check", str(plan.loaded.path), *plan.loaded.overrides]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=OWN_CODE_TIMEOUT_S)
        return [Problem(**problem) for problem in json.loads(ended.stdout.rstrip().rpartition("\n")[2])]
    except subprocess.TimeoutExpired:
        return [Problem(f"importing it takes longer than {OWN_CODE_TIMEOUT_S} s", fix="no work outside of functions and classes")]
    except ValueError:
        last = (ended.stderr.strip() or f"exit code {ended.returncode}").splitlines()[-1]
        return [Problem(f"importing it ended the process: {last}")]


def print_findings(findings: Sequence[Finding], code: int, as_json: bool) -> None:
    """Prints the table to stdout, and the count of what is in the way to stderr."""
    if as_json:
        print(json.dumps({"ok": code == EXIT_DONE, "checks": [asdict(finding) for finding in findings]}, indent=2, ensure_ascii=False))
        return
    lines = table([(finding.status, finding.check, finding.text.replace("\n", " ")) for finding in findings])
    margin = " " * (max(len(finding.status) for finding in findings) + 2)
    for line, finding in zip(lines, findings, strict=True):
        print(line)
        if finding.fix:
            print(f"{margin}try: {finding.fix}")
    problems, warnings = (sum(finding.status == status for finding in findings) for status in ("problem", "warning"))
    counts = f"{problems} problem{'' if problems == 1 else 's'}, {warnings} warning{'' if warnings == 1 else 's'}"
    print(counts if problems or warnings else "nothing wrong", file=sys.stderr)
