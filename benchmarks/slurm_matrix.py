"""Losses of one experiment over strategies, nodes, processes and both template forms on the test cluster, against one process here.

    eval "$(python -m tests.cluster up | grep export)"  # and, at the end: python -m tests.cluster down
    python -P benchmarks/slurm_matrix.py --folder DIR [--strategies cpu,fsdp2] [EXPERIMENT] [KEY=VALUE ...]

Prints a Markdown table of the largest relative difference of the training loss over all steps; ends with 1 if one is above 1e-5 or a job
did not complete. `cpu` is DDP. A combination that DIR has already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

STRATEGIES = ("cpu", "fsdp2", "zero1", "zero2", "zero3")
SHAPES = ((1, 1), (2, 1), (3, 1), (2, 2))
FORMS = {"agent": "direct", "stock": "accelerate"}
SAME = ("train.precision=fp32", "model.dropout=0.0", "train.global_batch_size=24", "evaluate.every=null", "tracking.log_every=1 step")
ALIVE = ("pending", "running", "stopping", "requeued")
LARGEST = 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="?", default="quickstart")
    parser.add_argument("overrides", nargs="*", default=["train.duration=6 steps"])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--strategies", default=",".join(STRATEGIES), metavar="NAME,...")
    options = parser.parse_intermixed_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    site = options.folder / "site.yaml"
    site.write_text(
        f"partition: main\ncpus_per_node: 2\ntime_limit: '00:30:00'\nrun_root: {options.folder}/runs\nenvironment: {{OMP_NUM_THREADS: '1'}}\n"
    )
    words = [options.experiment, *SAME, *options.overrides]
    here = options.folder / "here"
    if not (here / "metrics.jsonl").exists():
        fullrank("run", *words, "--here", "--run-dir", str(here), "--strategy", "cpu")
    reference, worst = losses(here), 0.0
    print("| strategy | form | " + " | ".join(f"{nodes} x {processes}" for nodes, processes in SHAPES) + " |\n|" + "---|" * (2 + len(SHAPES)))
    for strategy in options.strategies.split(","):
        for form, launcher in FORMS.items():
            runs = [options.folder / f"{strategy}-{form}-{nodes}x{processes}" for nodes, processes in SHAPES]
            for run, (nodes, processes) in zip(runs, SHAPES, strict=True):
                if not run.exists():
                    shape = ["--nodes", str(nodes), "--processes-per-node", str(processes), "--strategy", strategy, "--launcher", launcher]
                    fullrank("submit", *words, "--cluster", str(site), "--run-dir", str(run), *shape)
            differences = [difference(run, reference) for run in runs]
            worst = max(worst, *(one if isinstance(one, float) else float("inf") for one in differences))
            print(f"| {strategy} | {form} | " + " | ".join(one if isinstance(one, str) else f"{one:.1e}" for one in differences) + " |", flush=True)
    print(f"\nlargest: {worst:.1e} in {len(reference)} steps")
    sys.exit(worst > LARGEST)


def difference(run: Path, reference: dict[int, float]) -> float | str:
    """Waits for a run, and returns its largest relative difference, or the state that it ended in instead."""
    while (state := json.loads(fullrank("status", str(run), "--json"))["state"]) in ALIVE:
        time.sleep(2)
    found = losses(run)
    if state != "completed":
        return str(state)
    if found.keys() != reference.keys():
        return f"{len(found)} of {len(reference)} steps"
    return max(abs(found[step] - loss) / loss for step, loss in reference.items())


def fullrank(*words: str) -> str:
    """Returns what a verb prints; fails with its own words."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-P", "-m", "launch", *words], env=environment, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(ended.stdout + ended.stderr)
    return ended.stdout


def losses(run: Path) -> dict[int, float]:
    """Returns {step: training loss}."""
    path = run / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {record["step"]: record["loss"] for record in records if record["split"] == "train"}


if __name__ == "__main__":
    main()
