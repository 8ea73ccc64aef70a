"""The agent of one node of a Slurm job: python -P -m launch.scheduler.node ATTEMPT, started by srun once a node."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.agent import Outcome, run_members
from launch.checks.node import check_lookup, check_node, look_at_node, look_up
from launch.config.errors import EXIT_CONFIG, EXIT_DONE, EXIT_INTERRUPTED, EXIT_STOPPED, ConfigError, FullrankError, PreflightError, Problem
from launch.config.lock import RunLock, lock_run
from launch.config.run_dir import Attempt, RunDir, read_json, write_json
from launch.failures import Failure
from launch.members import Member

START_PATIENCE_S = 300.0
"""How long node 0 waits for the first word of the others; a prolog or a container's image may take minutes."""


@dataclass(frozen=True)
class Place:
    """Which node of the job this is, and where its ranks meet the others."""

    node: int
    num_nodes: int
    master_address: str
    master_port: str


def main(arguments: list[str]) -> int:
    """Runs this node's ranks and returns what srun is to see: 0 also after an agreed stop, so that no node is killed while it saves."""
    attempt = Attempt(Path(arguments[0]))
    run = RunDir(attempt.path.parent.parent)
    started = time.time()
    plan: dict[str, Any] = read_json(attempt.plan) or {}
    facts = look_at_node(run.path)
    try:
        place = read_place(os.environ)
        check_node(facts, plan, (read_json(attempt.job) or {}).get("first_node"))
        if warning := check_lookup(facts.host, place.master_address, look_up(place.master_address)):
            print(f"warning: {warning}", file=sys.stderr)
        with ExitStack() as held:
            write_report(attempt, place.node, {**facts.as_dict(), "node": place.node, "started": started})
            beat = _beat_of_all(attempt, place, held.enter_context(lock_run(run))) if place.node == 0 else _no_beat
            outcome = run_members(members(plan, place, run, attempt), attempt, "script" in plan, beat)
    except FullrankError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        message = "\n".join(map(str, error.problems))
        failure = Failure(None, socket.gethostname(), os.getpid(), time.time(), "configuration", message, phase="start", exit_code=error.exit_code)
        outcome = Outcome(error.exit_code, (error.exit_code,), failure)
        place = Place(int(os.environ.get("SLURM_NODEID", 0)), 0, "", "")
    write_report(attempt, place.node, {**facts.as_dict(), "node": place.node, "started": started} | describe_outcome(outcome))
    return EXIT_DONE if outcome.failure is None and is_agreed(outcome, "script" in plan) else outcome.exit_code or EXIT_CONFIG


def read_place(environment: Mapping[str, str]) -> Place:
    """Returns what Slurm and the job script say.

    Raises:
        ConfigError: it was not started by the script.
    """
    wanted = ("SLURM_NODEID", "SLURM_STEP_NUM_NODES", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in wanted if not environment.get(name)]
    if missing:
        raise ConfigError(Problem(f"{', '.join(missing)} not set: this is started by srun in fullrank's job script", fix="fullrank submit"))
    return Place(int(environment["SLURM_NODEID"]), int(environment["SLURM_STEP_NUM_NODES"]), environment["MASTER_ADDR"], environment["MASTER_PORT"])


def members(plan: Mapping[str, Any], place: Place, run: RunDir, attempt: Attempt) -> list[Member]:
    """Returns this node's ranks.

    Raises:
        ConfigError: the job has another number of nodes than was planned for.
    """
    processes, nodes = int(plan["processes_per_node"]), int(plan["nodes"])
    if place.num_nodes != nodes:
        raise ConfigError(Problem(f"the job has {place.num_nodes} nodes and the plan {nodes}", fix=f"sbatch --nodes={nodes}"))
    shared = dict(plan["environment"]) | {"FULLRANK_RUN_DIR": str(run.path), "FULLRANK_ATTEMPT": str(attempt.number), "PYTHONUNBUFFERED": "1"}
    joins = "MASTER_ADDR" in shared  # several ranks, or an engine that shards, which needs a group for one rank too
    if joins:
        shared |= {"MASTER_ADDR": place.master_address, "MASTER_PORT": place.master_port}
    folder = None
    if "script" in plan:
        folder = Path(plan["folder"])
        shared |= {"FULLRANK_STOP_FILE": str(attempt.stop_file)}
        if newest := run.newest_checkpoint():
            shared["FULLRANK_RESUME_FROM"] = str(newest)
    return [
        Member(rank, plan["command"], shared | _rank_place(rank, local, joins), attempt.rank_log(rank), on_terminal=False, folder=folder)
        for local, rank in enumerate(range(place.node * processes, (place.node + 1) * processes))
    ]


def _rank_place(rank: int, local_rank: int, joins: bool) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(local_rank)} if joins else {}


def _beat_of_all(attempt: Attempt, place: Place, lock: RunLock) -> Callable[[], None]:
    """Returns what node 0 does every few seconds: it shows for all nodes that the run lives, and at first looks whether they have come.

    Srun does not end the others where one could not be started, and they would wait for its ranks for half an hour.
    """
    started, has_come = time.monotonic(), False

    def beat() -> None:
        nonlocal has_come
        lock.beat_or_refuse()
        if has_come:
            return
        missing = [str(node) for node in range(place.num_nodes) if not attempt.node_report(node).exists()]
        has_come = not missing
        if missing and time.monotonic() > started + START_PATIENCE_S:
            what = f"node {', '.join(missing[:8])} of {place.num_nodes} of the job did not start within {START_PATIENCE_S:.0f} s"
            raise PreflightError(Problem(what, socket.gethostname(), fix="the job's log has srun's words; scontrol show hostnames names the nodes"))

    return beat


def _no_beat() -> None:
    """The agent of node 0 shows for all of them that the run lives."""


def is_agreed(outcome: Outcome, is_script: bool) -> bool:
    """Returns whether the ranks of this node are done, or stopped as they were asked to."""
    codes = (EXIT_DONE, EXIT_STOPPED, EXIT_INTERRUPTED)
    return outcome.exit_code in codes or (is_script and bool(outcome.heard))


def describe_outcome(outcome: Outcome) -> dict[str, Any]:
    """Returns what a node's report says at its end, beside what it said at its start."""
    return {
        "ended": time.time(),
        "exit_code": outcome.exit_code,
        "codes": list(outcome.codes),
        "heard": [number.name for number in outcome.heard],
        "failure": outcome.failure.as_dict() if outcome.failure else None,
        "num_others": outcome.num_others,
    }


def write_report(attempt: Attempt, node: int, report: dict[str, Any]) -> None:
    """Writes what `launch.scheduler.job end` reads; on a disk that cannot be written only srun's code tells."""
    try:
        attempt.nodes.mkdir(exist_ok=True)
        write_json(attempt.node_report(node), report)
    except OSError as error:
        print(f"warning: {attempt.nodes} cannot be written: {error.strerror}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
