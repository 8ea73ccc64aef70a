"""Losses of one experiment over nodes, processes and both template forms on the test cluster, against one process here.

python -m tests.cluster up; python -P benchmarks/slurm_matrix.py --folder DIR [EXPERIMENT] [KEY=VALUE ...]
Prints a Markdown table of the largest relative difference of the training loss over all steps.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

SHAPES = ((1, 1), (2, 1), (3, 1), (2, 2))
FORMS = {"agent": "direct", "stock": "accelerate"}
SAME = ("train.precision=fp32", "model.dropout=0.0", "train.global_batch_size=24", "evaluate.every=null", "tracking.log_every=1 step")
ALIVE = ("pending", "running", "stopping", "requeued")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="?", default="quickstart")
    parser.add_argument("overrides", nargs="*", default=["train.duration=6 steps"])
    parser.add_argument("--folder", type=Path, required=True)
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
    reference = losses(here)
    print("| form | nodes x processes | largest relative difference of the loss |\n|---|---|---|")
    for form, launcher in FORMS.items():
        for nodes, processes in SHAPES:
            shape = ["--nodes", str(nodes), "--processes-per-node", str(processes), "--strategy", "cpu", "--launcher", launcher]
            run = Path(json.loads(fullrank("submit", *words, "--cluster", str(site), "--json", *shape))["run"])
            state = wait(run)
            found = losses(run)
            same = state == "completed" and found.keys() == reference.keys()
            difference = max(abs(found[step] - loss) / loss for step, loss in reference.items()) if same else None
            print(f"| {form} | {nodes} x {processes} | {state if difference is None else f'{difference:.1e}'} |", flush=True)


def fullrank(*words: str) -> str:
    """Returns what a verb prints; fails with its own words."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-P", "-m", "launch", *words], env=environment, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(ended.stdout + ended.stderr)
    return ended.stdout


def wait(run: Path) -> str:
    """Returns the state that a run ends in."""
    while True:
        state: str = json.loads(fullrank("status", str(run), "--json"))["state"]
        if state not in ALIVE:
            return state
        time.sleep(1)


def losses(run: Path) -> dict[int, float]:
    """Returns {step: training loss}."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {record["step"]: record["loss"] for record in records if record["split"] == "train"}


if __name__ == "__main__":
    main()
