"""`fullrank check`: every problem at once, of a launch or of this machine; starts and writes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
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
from launch.cli.planning import Target, parse_target, plan_target
from launch.cli.show import plan_headline
from launch.cli.tables import table
from launch.config.cluster import load_cluster
from launch.config.errors import EXIT_CONFIG, EXIT_DONE, EXIT_PREFLIGHT, Problem
from launch.config.own_code import own_modules
from launch.machine import ask_environment, ask_machine
from launch.plan_experiment import ExperimentPlan
from launch.preflight import run_checks
from launch.probe import ExperimentProbe, missing_training_packages, probe_machine
from launch.scheduler.commands import try_site
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
    target = parse_target(ctx, experiment, overrides, script)
    if cluster is not None:
        findings, code = check_on_cluster(target, cluster, strategy, nodes, processes_per_node, launcher, run_dir, run_root)
        print_findings(findings, code, as_json)
        raise typer.Exit(code)
    findings, code = check_target(target, strategy, nodes, processes_per_node, launcher, run_dir, run_root)
    print_findings(findings, code, as_json)
    raise typer.Exit(code)


def check_target(
    target: Target, strategy: str, nodes: int | None, processes_per_node: int | None, launcher: str, run_dir: Path | None, run_root: Path | None
) -> tuple[list[Finding], int]:
    """Returns what the checks of one launch found, and the exit code that a start of it would end with before it begins.

    Raises:
        ConfigError: there is no plan to check: the experiment, the script or the strategy has problems of its own.
    """
    plan, probe = plan_target(target, strategy, nodes, processes_per_node, launcher, run_dir, run_root)
    findings, code = [Finding("plan", "ok", plan_headline(plan))], EXIT_DONE
    for result in run_checks(plan, probe):
        findings += from_problems(result.name, result.problems, result.when_fine)
        if result.problems and code != EXIT_CONFIG:
            code = EXIT_CONFIG if result.is_input else EXIT_PREFLIGHT
    is_importable = isinstance(probe, ExperimentProbe) and not probe.missing_code and not missing_training_packages()
    if isinstance(plan, ExperimentPlan) and own_modules(plan.experiment) and is_importable:
        problems = check_own_code(plan)
        findings += from_problems("own code", problems, "imported, and of the right kind")
        code = EXIT_CONFIG if problems else code
    findings += [Finding("plan", "warning", warning) for warning in plan.warnings]
    environment = judge_environment(ask_environment())
    if any(finding.status == "problem" for finding in environment) and code == EXIT_DONE:
        code = EXIT_PREFLIGHT
    return findings + environment, code


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


def check_on_cluster(
    target: Target,
    cluster: str,
    strategy: str,
    nodes: int | None,
    processes_per_node: int | None,
    launcher: str,
    run_dir: Path | None,
    run_root: Path | None,
) -> tuple[list[Finding], int]:
    """Returns what the checks of a submission found, and the exit code that `submit` would end with before it asks Slurm.

    Raises:
        ConfigError: there is no plan to check: the experiment, the script, the strategy or the cluster file has problems of its own.
    """
    loaded, here = load_cluster(cluster), probe_machine()
    site, unasked = try_site()
    root = Path(loaded.cluster.run_root) if loaded.cluster.run_root and run_root is None else run_root
    machine = node_machine(loaded.cluster, loaded.name, here)
    plan, probe = plan_target(target, strategy, nodes, processes_per_node, launcher, run_dir, root, machine=machine)
    restart = choose_restart(loaded.cluster, None, site)
    job = plan_job(plan, loaded.cluster, JobOptions(), here.python, restart, find_save_time(plan))
    findings, code = [Finding("plan", "ok", plan_headline(plan))], EXIT_DONE
    for result in run_cluster_checks(job, loaded, probe, site):
        findings += from_problems(result.name, result.problems, result.when_fine)
        if result.problems and code != EXIT_CONFIG:
            code = EXIT_CONFIG if result.is_input else EXIT_PREFLIGHT
    if unasked:
        findings.append(Finding("cluster", "warning", f"{unasked.what}: what the cluster has could not be asked", unasked.fix))
    return findings + [Finding("plan", "warning", warning) for warning in [*plan.warnings, *cluster_warnings(job, site)]], code


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
