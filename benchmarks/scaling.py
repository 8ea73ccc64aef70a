"""Samples/s a process and efficiency for 1, 2, 4, ... processes: fullrank's step beside raw DistributedDataParallel.

    python benchmarks/scaling.py [--processes 1,2,4] [--work bert|resnet] [--strategy FILE] [--tiny]
    srun ... torchrun --nnodes N --nproc-per-node 8 ... benchmarks/scaling.py     # a cluster: one line for the processes there are

Each process has the same share of work whatever their number (weak scaling): 1.0 is perfect. Random weights and data of benchmarks/gpu.py; on a CPU
the processes share the cores, so efficiency there says what cores there are, and only the two columns beside one another say something.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from gpu import TINY, WORKS, Clock, Samples, build_model, train_fullrank, train_plain

CONTENDERS = ("raw DDP", "fullrank")


def main() -> None:
    """Prints one table; as a rank it measures the contenders among the ranks there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", default="1,2,4", help="numbers of processes on this machine")
    parser.add_argument("--work", choices=tuple(WORKS), default="bert")
    parser.add_argument("--strategy", help="Accelerate file for the fullrank column; default: DDP")
    parser.add_argument("--steps", type=int, default=50, help="measured optimizer steps, after 10 of warm-up")
    parser.add_argument("--rounds", type=int, default=3, help="the median counts")
    parser.add_argument("--tiny", action="store_true", help="a small model")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if "WORLD_SIZE" in os.environ:
        measure_as_rank(options)
        return
    print("| processes | " + " | ".join(f"{name}, samples/s a process | efficiency" for name in CONTENDERS) + " | fullrank / raw DDP |")
    print("|---:|" + "---:|---:|" * len(CONTENDERS) + "---:|")
    alone: dict[str, float] = {}
    for count in (int(text) for text in options.processes.split(",")):
        rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        for _ in range(options.rounds):  # interleaved, so that both see the same machine
            for name in CONTENDERS:
                rates[name].append(start_ranks(count, name, options))
        medians = {name: sorted(values)[len(values) // 2] for name, values in rates.items()}
        alone = alone or medians
        cells = " | ".join(f"{medians[name]:,.1f} | {medians[name] / alone[name]:.2f}" for name in CONTENDERS)
        print(f"| {count} | {cells} | {medians['fullrank'] / medians['raw DDP']:.3f} |", flush=True)


def start_ranks(count: int, contender: str, options: argparse.Namespace) -> float:
    """Returns the samples/s of the slowest of `count` processes on this machine.

    Exits with a rank's last line if one fails.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "rate.json"
        argv = [sys.executable, __file__, "--contender", contender, "--work", options.work, "--steps", str(options.steps), "--result", str(result)]
        argv += (["--tiny"] if options.tiny else []) + (["--strategy", options.strategy] if options.strategy else [])
        common = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        common.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
        ranks = [
            subprocess.Popen(argv, env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE, text=True, cwd=scratch)
            for rank in range(count)
        ]
        errors = [rank.communicate()[1] for rank in ranks]
        if not result.is_file() or any(rank.returncode for rank in ranks):
            sys.exit(f"{contender} with {count} processes failed:\n" + "\n".join(error.strip()[-2000:] for error in errors))
        return float(json.loads(result.read_text(encoding="utf-8")))


def measure_as_rank(options: argparse.Namespace) -> None:
    """Measures among the ranks that a launcher started; rank 0 prints, or writes, the slowest rank's samples/s. Every rank must call this."""
    import torch

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    work, is_cuda = (TINY if options.tiny else WORKS)[options.work], torch.cuda.is_available()
    for contender in [options.contender] if options.contender else CONTENDERS:
        torch.manual_seed(0)
        model, samples = build_model(options.work, options.tiny), Samples(options.work, work)
        clock = Clock(0.0, work.batch_size, num_steps=options.steps)
        if contender == "raw DDP":
            if is_cuda:
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            if world > 1:
                torch.distributed.init_process_group("nccl" if is_cuda else "gloo")
            train_plain(model, samples, work, clock)
        else:
            train_fullrank(model, samples, work, clock, options.strategy)
        slowest = torch.tensor(clock.rate, device="cuda" if is_cuda else "cpu")
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(slowest, torch.distributed.ReduceOp.MIN)
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
        if rank == 0 and options.result:
            options.result.write_text(json.dumps(float(slowest)), encoding="utf-8")
        elif rank == 0:
            print(f"{world} processes, {contender}: {float(slowest):,.1f} samples/s a process", flush=True)


if __name__ == "__main__":
    main()
