"""Samples/s a process and efficiency for 1, 2, 4, ... processes: fullrank's step beside raw DistributedDataParallel.

    python benchmarks/scaling.py [--processes 1,2,4] [--work minilm|bert|resnet] [--strategy FILE] [--tiny] [--rounds 9] [--steps 10]
    srun ... torchrun --nnodes N --nproc-per-node 8 ... benchmarks/scaling.py     # a cluster: one line for the processes there are

Each process has the same share of work whatever their number (weak scaling): 1.0 is perfect. Random weights and data; contenders.py
says what the raw loop does and what it leaves out; fullrank's is its whole loop, with stop requests, heartbeat and metrics.jsonl. Both contenders
live in the same processes and take turns of a few steps; rates are of the slowest rank, the median of the rounds, and the quotient is the median of
the rounds' quotients. Processor time a step is counted too: on a CPU that others use as well it is the steadier of the two, and the efficiency there
says what cores there are.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from contenders import MINILM, TINY, WORKS, Samples, build_model, fullrank_steps, plain_steps, wait_for_gpu

CONTENDERS = ("fullrank", "raw DDP")
Rounds = dict[str, list[tuple[float, float]]]
"""Contender -> for each round (samples/s of the slowest rank, processor seconds a step of all ranks)."""


def main() -> None:
    """Prints one table; as a rank it measures among the ranks there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", default="1,2,4", help="numbers of processes on this machine")
    parser.add_argument("--work", choices=("minilm", *WORKS), default="bert")
    parser.add_argument("--strategy", help="Accelerate file for the fullrank column; default: DDP")
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps of a turn")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each; one more is a warm-up")
    parser.add_argument("--tiny", action="store_true", help="a small model")
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if "WORLD_SIZE" in os.environ:
        measure_as_rank(options)
        return
    print("| processes | raw DDP, samples/s a process | efficiency | fullrank | efficiency | fullrank / raw DDP | the same in processor time |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    alone: dict[str, float] = {}
    for count in (int(text) for text in options.processes.split(",")):
        rounds = start_ranks(count, options)
        alone = alone or {name: rate_of(rounds, name) for name in CONTENDERS}
        print(f"| {row(count, rounds, alone)} |", flush=True)


def row(count: int, rounds: Rounds, alone: dict[str, float]) -> str:
    """Returns the cells of one line."""
    rates = {name: rate_of(rounds, name) for name in CONTENDERS}
    cells = [f"{rates[name]:,.1f} | {rates[name] / alone[name]:.2f}" for name in ("raw DDP", "fullrank")]
    pairs = list(zip(rounds["fullrank"], rounds["raw DDP"], strict=True))
    return " | ".join(
        [str(count), *cells, f"{median(mine[0] / raw[0] for mine, raw in pairs):.3f}", f"{median(mine[1] / raw[1] for mine, raw in pairs):.3f}"]
    )


def rate_of(rounds: Rounds, name: str) -> float:
    return median(rate for rate, _ in rounds[name])


def start_ranks(count: int, options: argparse.Namespace) -> Rounds:
    """Returns what `count` processes on this machine measure.

    Exits with a rank's last lines if one fails.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "rounds.json"
        argv = [
            sys.executable,
            __file__,
            "--work",
            options.work,
            "--steps",
            str(options.steps),
            "--rounds",
            str(options.rounds),
            "--result",
            str(result),
        ]
        argv += (["--tiny"] if options.tiny else []) + (["--strategy", options.strategy] if options.strategy else [])
        common = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        common.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
        ranks = [
            subprocess.Popen(argv, env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE, text=True, cwd=scratch)
            for rank in range(count)
        ]
        errors = [rank.communicate()[1] for rank in ranks]
        if not result.is_file() or any(rank.returncode for rank in ranks):
            sys.exit(f"{count} processes failed:\n" + "\n".join(error.strip()[-2000:] for error in errors))
        return {name: [(rate, seconds) for rate, seconds in rounds] for name, rounds in json.loads(result.read_text(encoding="utf-8")).items()}


def measure_as_rank(options: argparse.Namespace) -> None:
    """Measures among the ranks that a launcher started; rank 0 prints, or writes, what came out. Every rank must call this."""
    import torch

    work = (TINY if options.tiny else WORKS | {"minilm": MINILM})[options.work]
    samples, trained = Samples(options.work, work), dict[str, Iterator[Any]]()
    for name in CONTENDERS:  # fullrank first: it opens the process group, and DDP uses it
        torch.manual_seed(0)
        model = build_model(options.work, options.tiny)
        trained[name] = fullrank_steps(model, samples, work, options.strategy) if name == "fullrank" else plain_steps(model, samples, work)
        next(trained[name])
    rounds: Rounds = {name: [] for name in CONTENDERS}
    for number in range(options.rounds + 1):
        for name in CONTENDERS if number % 2 else reversed(CONTENDERS):
            turn = take_turn(trained[name], options.steps, work.batch_size)
            if number:
                rounds[name].append(turn)
    if options.result and int(os.environ["RANK"]) == 0:
        options.result.write_text(json.dumps(rounds), encoding="utf-8")
    elif int(os.environ["RANK"]) == 0:
        print(f"| {row(int(os.environ['WORLD_SIZE']), rounds, {name: rate_of(rounds, name) for name in CONTENDERS})} |", flush=True)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def take_turn(steps: Iterator[Any], num_steps: int, batch_size: int) -> tuple[float, float]:
    """Returns the samples/s of the slowest rank in the next steps, and the processor seconds a step of all ranks. Every rank must call this."""
    import torch

    is_spread = torch.distributed.is_initialized()
    if is_spread:
        torch.distributed.barrier()
    wait_for_gpu()
    started, worked = time.perf_counter(), time.process_time()
    for _ in range(num_steps):
        next(steps)
    wait_for_gpu()
    figures = torch.tensor([num_steps * batch_size / (time.perf_counter() - started), (time.process_time() - worked) / num_steps])
    figures = figures.to("cuda" if torch.cuda.is_available() else "cpu")
    if is_spread:
        torch.distributed.all_reduce(figures[:1], torch.distributed.ReduceOp.MIN)
        torch.distributed.all_reduce(figures[1:])
    return float(figures[0]), float(figures[1])


if __name__ == "__main__":
    main()
