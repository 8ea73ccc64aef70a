"""Kills trainings (SIGKILL) at random moments, half of them while a checkpoint is written, and resumes them until they are done.

    python benchmarks/kills.py [--kills 200] [--seed 0] [--steps 400] [--every 10] [--strategy fsdp2|zero1|zero2|zero3] [--folder DIR]
    python benchmarks/kills.py --kills 12 --steps 120 --every 4 --ahead 1,2,2,3 --strategy zero3    # nearly every kill is resumed from a checkpoint

Each training takes one or two processes (two, where a strategy divides the model) and data workers, or none, by chance. After every
kill: which checkpoints are whole is worked out here, independently of the trainers; the resumed training must go on from the newest of
these. At its end each training is compared bit by bit with one that nobody disturbed. Exit code 1 if anything was not so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import forked
from forked_experiments import differences, write_text_experiment

from tests.engines import STRATEGIES, told, write_strategies


@dataclass(frozen=True)
class Manner:
    """When trainings are killed.

    Args:
        every: steps between checkpoints.
        ahead: how many checkpoints an attempt is to come to before it may be killed; one of these, by chance.
        within_s: how long after (or in) its start, at the most, where it is not killed in a checkpoint.
    """

    every: int
    ahead: tuple[int, ...]
    within_s: float


@dataclass
class Tally:
    """What came of the kills.

    Args:
        lost: for each kill, the steps between the newest whole checkpoint and the last recorded step.
        lost_while_writing: those of the kills that hit a checkpoint being written.
    """

    kills: int = 0
    while_writing: int = 0
    trainings: int = 0
    resumes: int = 0
    lost: list[int] = field(default_factory=list)
    lost_while_writing: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    phases: Counter[str] = field(default_factory=Counter)


def main(typed: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=400, help="of each training")
    parser.add_argument("--every", type=int, default=10, help="steps between checkpoints")
    parser.add_argument("--kills-a-run", type=int, default=20)
    parser.add_argument("--ahead", default="0,0,1,2,3", help="checkpoints an attempt comes to before it may be killed: one of these, by chance")
    parser.add_argument("--within", type=float, default=3.0, help="seconds after (or in) its start that a training is killed, if not in a checkpoint")
    parser.add_argument("--strategy", choices=tuple(STRATEGIES), help="of tests/engines.py; default: one process, or DDP")
    parser.add_argument("--folder", type=Path, help="keep the runs there")
    options = parser.parse_args(typed)
    source, tally, started = random.Random(options.seed), Tally(), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("FULLRANK_CACHE", str(folder / "cache"))
        every = {"checkpoint__every": f"{options.every} steps", "evaluate__every": "50 steps", "tracking__log_every": "1 step"}
        experiment = write_text_experiment(folder, options.steps, **every)
        write_strategies(folder)
        if options.strategy:
            forked.load_engines()
        words, counts = ["--config", str(experiment), *told(folder, options.strategy)], (2,) if options.strategy else (1, 1, 2)
        whole = {count: train_whole(words, folder / f"whole_{count}", count) for count in sorted(set(counts))}
        manner = Manner(options.every, tuple(int(number) for number in options.ahead.split(",")), options.within)
        while tally.kills < options.kills:
            tally.trainings += 1
            count = source.choice(counts)
            run = folder / f"run_{tally.trainings}"
            disturb(words, run, count, source, tally, manner, min(options.kills_a_run, options.kills - tally.kills))
            tally.problems += [f"{run.name}: {found}" for found in differences(whole[count], run)]
            print(
                f"{tally.kills:>4} kills, {tally.while_writing} while writing, {tally.trainings} trainings, {len(tally.problems)} problems",
                flush=True,
            )
    for problem in tally.problems:
        print(problem)
    aside = [lost for lost in tally.lost if lost > options.every]
    print(
        f"{options.strategy or 'DDP or one process'}: {tally.kills} kills (seed {options.seed}), "
        f"{tally.while_writing} of them while a checkpoint was written, in {tally.trainings} trainings of "
        f"{options.steps} steps, a checkpoint every {options.every}; {tally.resumes} resumes\n"
        f"killed during: {dict(tally.phases)}\n"
        f"steps lost: at most {max(tally.lost, default=0)} ({len(aside)} times more than {options.every}); "
        f"at most {max(tally.lost_while_writing, default=0)} when a checkpoint was being written\n"
        f"{len(tally.problems)} problems; every finished training was compared bit by bit; {time.monotonic() - started:.0f} s"
    )
    return int(bool(tally.problems))


def train_whole(words: list[str], run: Path, count: int) -> Path:
    """Returns the run of a training that nobody disturbs."""
    codes = forked.wait(forked.start([*words, "--run-dir", str(run)], count, run.with_name(f"{run.name}.logs")))
    if any(codes):
        raise SystemExit(f"the undisturbed training ended with {codes}: {run}.logs")
    return run


def disturb(words: list[str], run: Path, count: int, source: random.Random, tally: Tally, manner: Manner, kills: int) -> None:
    """Starts a training and kills it, again and again, then lets it end."""
    logs = run.with_name(f"{run.name}.logs")
    for attempt in range(kills + 1):
        expected = newest_whole(run)
        workers = f"data.num_workers={source.choice((0, 0, 2))}"
        ranks = forked.start([*words, "--run-dir", str(run), workers], count, logs / str(attempt))
        was_killed = attempt < kills and kill_somewhen(run, ranks, source, tally, manner)
        codes = forked.wait(ranks)
        check_start(logs / str(attempt), expected, tally, run)
        if was_killed:
            continue
        if any(codes):
            tally.problems.append(f"{run.name}: attempt {attempt + 1} ended with {codes}")
        return


def kill_somewhen(run: Path, ranks: list[forked.Rank], source: random.Random, tally: Tally, manner: Manner) -> bool:
    """Kills a random rank at a random moment; returns False if the training was done before."""
    number, chance, ahead = attempt_number(run) + 1, source.random(), source.choice(manner.ahead)
    if ahead:  # else the first checkpoint is in the way of all others
        wanted = newest_step(run) + ahead * manner.every
        forked.wait_until(lambda: has_started(run, number) and forked.last_step(run) >= wanted, ranks)
    if chance < 0.5:
        if not forked.wait_until(lambda: is_writing(run), ranks):
            return False
        time.sleep(source.random() * 0.02)
    else:
        if chance > 0.6:  # else it may be starting yet
            forked.wait_until(lambda: has_started(run, number), ranks)
        deadline = time.monotonic() + source.random() * manner.within_s
        forked.wait_until(lambda: time.monotonic() > deadline, ranks)
    victim = source.choice(ranks)
    if victim.poll() is not None:
        return False
    hit = is_writing(run)
    victim.send(signal.SIGKILL)
    forked.wait(ranks)
    lost = max(0, forked.last_step(run) - newest_step(run))
    tally.kills += 1
    tally.while_writing += hit
    tally.lost.append(lost)
    if hit:
        tally.lost_while_writing.append(lost)
    tally.phases["a checkpoint" if hit else "steps" if has_started(run, number) else "the start"] += 1
    return True


def check_start(logs: Path, expected: str | None, tally: Tally, run: Path) -> None:
    """Compares what a training said it went on from with the newest checkpoint that was whole before."""
    log = logs / "rank_0.log"
    text = log.read_text(errors="replace") if log.is_file() else ""  # killed before its first line
    if "damaged" in text:
        tally.problems.append(f"{run.name}: a damaged checkpoint: {logs}")
    said = re.search(r"resuming from (checkpoint-\d+)", text)
    if said or "run directory" in text:  # else it was killed before it said anything
        tally.resumes += bool(said)
        if (said.group(1) if said else None) != expected:
            tally.problems.append(f"{run.name}: went on from {said and said.group(1)} instead of {expected}: {logs}")


def newest_whole(run: Path) -> str | None:
    """Returns the newest checkpoint all of whose files are as its manifest says; reads them itself."""
    found = []
    for manifest in (run / "checkpoints").glob("checkpoint-*/manifest.json"):
        files = json.loads(manifest.read_text())["files"]
        if all(hashlib.sha256((manifest.parent / name).read_bytes()).hexdigest() == facts["sha256"] for name, facts in files.items()):
            found.append(int(manifest.parent.name.rpartition("-")[2]))
    return f"checkpoint-{max(found)}" if found else None


def newest_step(run: Path) -> int:
    return int((newest_whole(run) or "-0").rpartition("-")[2])


def attempt_number(run: Path) -> int:
    return len(list((run / "attempts").glob("*")))


def has_started(run: Path, number: int) -> bool:
    """Returns whether the start of an attempt is over."""
    return (run / "attempts" / f"{number:04d}" / "start.json").is_file()


def is_writing(run: Path) -> bool:
    """Returns whether a checkpoint is being written at this moment."""
    return any((run / "checkpoints").glob(".checkpoint-*.tmp"))


if __name__ == "__main__":
    sys.exit(main())
