"""Warns trainings in every way, at random moments, resumes them, and checks that not one step was lost.

    python benchmarks/warned_stops.py [--stops 50] [--seed 0] [--steps 300] [--stops-a-run 10] [--ahead 0,0,0,10,30]
        [--strategy fsdp2|zero1|zero2|zero3] [--folder DIR]

The ways: SIGTERM, SIGUSR2, Ctrl-C (SIGINT) and the stop file; to one rank, to every rank, to the agent of `fullrank run`, to the whole group of
processes. After every stop: exit codes, the recorded cause, a checkpoint of the very last step, and metrics.jsonl with each step once.
At its end each training is compared bit by bit with one that nobody disturbed. Exit code 1 if anything was not so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import forked
from forked_experiments import differences, write_text_experiment

from tests.engines import STRATEGIES, told, write_strategies

SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGUSR2": signal.SIGUSR2, "SIGINT": signal.SIGINT}
WAYS = [(way, target) for way in SIGNALS for target in ("one rank", "every rank", "the agent", "the group")]
WAYS += [("stop file", "by hand"), ("stop file", "the agent")]
TIMEOUT_S = 180.0


@dataclass(frozen=True)
class Case:
    """What is trained, and the words that say under which strategy.

    Args:
        ahead: how many steps an attempt is to train before it may be warned; one of these, by chance.
    """

    experiment: Path
    told: list[str]
    ahead: tuple[int, ...]

    def by_hand(self, run: Path) -> list[str]:
        """Returns what a rank that was started by hand is told."""
        config = run / "resolved.yaml" if (run / "resolved.yaml").is_file() else self.experiment
        return ["--config", str(config), "--run-dir", str(run), *self.told]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stops", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    parser.add_argument("--stops-a-run", type=int, default=10)
    parser.add_argument("--ahead", default="0,0,0,10,30", help="steps that an attempt trains before it may be warned: one of these, by chance")
    parser.add_argument("--strategy", choices=tuple(STRATEGIES), help="of tests/engines.py, always on two processes; default: one process, or DDP")
    parser.add_argument("--folder", type=Path, help="keep the runs there")
    options = parser.parse_args()
    source, started, problems, ways, phases = random.Random(options.seed), time.monotonic(), [], Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("FULLRANK_CACHE", str(folder / "cache"))
        experiment = write_text_experiment(folder, options.steps, evaluate__every="20 steps", data__num_workers=2)
        write_strategies(folder)
        if options.strategy:
            forked.load_engines()
        case = Case(experiment, told(folder, options.strategy), tuple(int(number) for number in options.ahead.split(",")))
        counts = (2,) if options.strategy else (1, 2)
        whole = {count: folder / f"whole_{count}" for count in counts}
        for count, run in whole.items():
            codes = forked.wait(forked.start(case.by_hand(run), count, run.with_name(f"{run.name}.logs")))
            if any(codes):
                raise SystemExit(f"the undisturbed training ended with {codes}")
        plan = [WAYS[number % len(WAYS)] for number in range(options.stops)]
        source.shuffle(plan)
        trainings = 0
        while plan:
            trainings += 1
            run, count, begun = folder / f"run_{trainings}", source.choice(counts), trainings
            for _ in range(min(options.stops_a_run, len(plan))):
                way, target = plan.pop()
                if is_done(run):
                    plan.append((way, target))
                    break
                found = stop_once(case, run, count, way, target, source)
                if found is None:  # it was done before the request came
                    plan.append((way, target))
                    break
                ways[f"{way} to {target}" if target != "by hand" else way] += 1
                phases[found.pop(0)] += 1
                problems += [f"{run.name}: {way} to {target}: {text}" for text in found]
            if not is_done(run):
                codes = forked.wait(forked.start(case.by_hand(run), count, run.with_name(f"{run.name}.logs")))
                problems += [f"{run.name}: the last attempt ended with {codes}"] if any(codes) else []
            problems += [f"{run.name}: {text}" for text in differences(whole[count], run)]
            print(f"{sum(ways.values())} stops, {begun} trainings, {len(problems)} problems", flush=True)
    for problem in problems:
        print(problem)
    print(
        f"{options.strategy or 'DDP or one process'}: {sum(ways.values())} warned stops (seed {options.seed}) "
        f"in {trainings} trainings of {options.steps} steps: {dict(sorted(ways.items()))}\n"
        f"they hit: {dict(phases)}\n{len(problems)} problems; no step lost, each step once in metrics.jsonl, every finished training compared "
        f"bit by bit; {time.monotonic() - started:.0f} s"
    )
    return int(bool(problems))


def stop_once(case: Case, run: Path, count: int, way: str, target: str, source: random.Random) -> list[str] | None:
    """Trains on until a warning ends it; returns the phase that it hit and what was wrong, or None if the training was done before."""
    if target in ("the agent", "the group"):
        codes = stop_agent(case, run, count, way, target, source)
    else:
        codes = stop_ranks(case, run, count, way, target, source)
    if is_done(run) and not any(codes):
        return None
    status, steps = json.loads((run / "status.json").read_text()), [r["step"] for r in forked.read_records(run) if r["split"] == "train"]
    cause = "user" if way in ("SIGINT", "stop file") else "preempted"
    attempt = max((run / "attempts").iterdir())
    start = attempt / "start.json"
    problems = []
    if set(codes) != {130 if cause == "user" else 75}:
        problems.append(f"exit codes {codes}")
    if (status["state"], status.get("cause")) != ("stopped", cause):
        problems.append(f"recorded as {status['state']}, {status.get('cause')}")
    if steps != sorted(set(steps)):
        problems.append("a step is in metrics.jsonl twice")
    if steps and not (run / "checkpoints" / f"checkpoint-{steps[-1]}" / "manifest.json").is_file():
        problems.append(f"no checkpoint of step {steps[-1]}")
    if (attempt / "stop").exists():
        problems.append("the stop file outlived its attempt")
    is_training = start.is_file() and steps and steps[-1] > json.loads(start.read_text())["first_step"]
    return ["training" if is_training else "the start", *problems]


def stop_ranks(case: Case, run: Path, count: int, way: str, target: str, source: random.Random) -> list[int]:
    """Warns ranks that were started by hand; returns their exit codes."""
    attempt = run / "attempts" / f"{1 + len(list((run / 'attempts').glob('*'))):04d}"
    ranks = forked.start(case.by_hand(run), count, run.with_name(f"{run.name}.logs"))
    before, ahead = len(forked.read_records(run)), source.choice(case.ahead)
    forked.wait_until(lambda: attempt.is_dir() and ((ahead == 0 and source.random() < 0.02) or (attempt / "start.json").is_file()), ranks)
    forked.wait_until(lambda: len(forked.read_records(run)) >= before + ahead, ranks)
    wait_a_while(source, 1.5, ranks)
    if way == "stop file":
        (attempt / "stop").touch()
    else:
        for rank in ranks if target == "every rank" else [source.choice(ranks)]:
            rank.send(SIGNALS[way])
    return forked.wait(ranks)


def stop_agent(case: Case, run: Path, count: int, way: str, target: str, source: random.Random) -> list[int]:
    """Warns `fullrank run` or `fullrank resume`; returns its exit code."""
    words = ["resume", str(run)] if run.is_dir() else ["run", str(case.experiment), *(case.told or ["--strategy", "cpu"]), "--run-dir", str(run)]
    words += ["--processes-per-node", str(count)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(forked.ROOT)}
    number = 1 + len(list((run / "attempts").glob("*")))
    log = run.with_name(f"{run.name}.agent_{number}.log").open("w")
    process = subprocess.Popen([sys.executable, "-m", "launch", *words], env=environment, stdout=log, stderr=log, start_new_session=True)
    attempt, deadline = run / "attempts" / f"{number:04d}", time.monotonic() + TIMEOUT_S
    while not (attempt / "plan.json").is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    before, ahead = len(forked.read_records(run)), source.choice(case.ahead)
    if ahead or source.random() < 0.5:  # else it is still importing
        while not (attempt / "start.json").is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        while len(forked.read_records(run)) < before + ahead and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    wait_a_while(source, 1.5, [])
    if process.poll() is None:
        if way == "stop file":
            (attempt / "stop").touch()
        elif target == "the agent":
            process.send_signal(SIGNALS[way])
        else:
            for pid in [process.pid, *descendants(process.pid)]:  # Slurm gives it to every process of a step
                try_to_signal(pid, SIGNALS[way])
    return [process.wait(TIMEOUT_S)]


def descendants(pid: int) -> list[int]:
    """Returns the children of a process, and theirs."""
    children = [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]
    return [one for child in children for one in (child, *descendants(child))]


def try_to_signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_a_while(source: random.Random, most_s: float, ranks: list[forked.Rank]) -> None:
    deadline = time.monotonic() + source.random() * most_s
    while time.monotonic() < deadline and not (ranks and all(rank.poll() is not None for rank in ranks)):
        time.sleep(0.005)


def is_done(run: Path) -> bool:
    return (run / "status.json").is_file() and json.loads((run / "status.json").read_text()).get("state") == "completed"


if __name__ == "__main__":
    sys.exit(main())
