"""What many runs and many tasks cost the launcher: wall time and CPU time of its own commands.

    python -P benchmarks/slurm_scale.py [--runs 10000] [--tasks 1000]     (tasks are submitted where SLURM_CONF names a cluster)

Prints a Markdown table. Runs are made of status files alone: most completed, one in ten a job of Slurm's that waits.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.tiny import tiny_bert, tiny_sentences

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--tasks", type=int, default=1_000)
    options = parser.parse_args()
    print("| what | wall s | CPU s |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_runs(folder / "runs", options.runs)
        for _ in range(5):
            timed(f"status over {options.runs} run directories", "status", "--run-root", str(folder / "runs"))
        experiment, site = make_experiment(folder)
        words = ["submit", str(experiment), "--cluster", str(site), "--run-root", str(folder / "new")]
        if "SLURM_CONF" in os.environ:
            answer = timed(f"{options.tasks} array tasks submitted", *words, "--seeds", str(options.tasks), "--at-most", "5", "--json")
            sweep = json.loads(answer)["sweep"]
            queue = subprocess.run(["squeue", "-h", "-o", "%i"], capture_output=True, text=True, check=True).stdout.split()
            print(f"| jobs in the queue: {', '.join(queue)} | | |")
            timed("status of that sweep", "status", sweep)
            timed("cancel of that sweep", "cancel", sweep)


def timed(what: str, *words: str, code: int | None = 0) -> str:
    """Runs `fullrank WORDS`, prints a row, and returns what it said."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    ended = subprocess.run([sys.executable, "-P", "-m", "launch", *words], env=environment, capture_output=True, text=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if code is not None and ended.returncode != code:
        sys.exit(ended.stdout + ended.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"| {what} | {wall:.2f} | {cpu:.2f} |", flush=True)
    return ended.stdout


def make_runs(root: Path, count: int) -> None:
    """Writes the status files of runs, a hundred an experiment."""
    for number in range(count):
        run = root / f"experiment{number // 100}" / f"20260101-{number:06d}-abcdef"
        run.mkdir(parents=True)
        ended = {"state": "completed", "backend": "local", "step": 500, "total_steps": 500, "heartbeat": 1.7e9, "attempt": 1, "host": "h", "pid": 1}
        waits = {"state": "pending", "backend": "slurm", "job_id": str(number), "submitted": time.time(), "heartbeat": time.time(), "attempt": 1}
        (run / "status.json").write_text(json.dumps(waits if number % 10 == 0 else ended, indent=2))


def make_experiment(folder: Path) -> tuple[Path, Path]:
    """Returns a tiny experiment and a cluster file."""
    tiny_bert(folder / "bert")
    tiny_sentences(folder / "train.tsv", 96)
    experiment = folder / "tiny.yaml"
    experiment.write_text(
        f"name: tiny\nmodel: {{source: {folder}/bert}}\ntask: {{kind: text_classification, text: text, label: label}}\n"
        f"data: {{source: {folder}/train.tsv, format: tsv, splits: {{validation: null}}, validation_fraction: 0.1}}\n"
        "train: {duration: 12 steps, global_batch_size: 12}\noptimizer: {lr: 1.0e-3}\n"
    )
    site = folder / "site.yaml"
    site.write_text("partition: main\ncpus_per_node: 2\ntime_limit: '00:10:00'\nsbatch: {begin: now+1hour}\n")
    return experiment, site


if __name__ == "__main__":
    main()
