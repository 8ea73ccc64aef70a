"""Stands in for the training: says how it was started, writes what a training writes, ends as FAKE_END says."""

import json
import os
import sys
import time
from pathlib import Path

rank = int(os.environ.get("RANK", "0"))
words = ["started", rank, os.environ.get("WORLD_SIZE", "1"), os.environ["FULLRANK_ATTEMPT"], *sys.argv[1:]]
sys.stdout.write(" ".join(map(str, words)) + "\n")  # one write: ranks share a pipe, and print() writes word by word
run = Path(os.environ["FULLRANK_RUN_DIR"])
end = os.environ.get("FAKE_END", "well")
if rank == 0:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(
            json.dumps({"step": 4, "epoch": 1.0, "split": "test", "loss": 0.5, "accuracy": 0.875, "num_samples": 8, "seconds": 0.1, "time": 1.0})
            + "\n"
        )
if end == "fail" and rank == int(os.environ.get("WORLD_SIZE", "1")) - 1:
    print("RuntimeError: it broke", file=sys.stderr)
    sys.exit(1)
if end == "fail":
    time.sleep(60)
if end == "refuse":
    print("error: train.seed: refused", file=sys.stderr)
    sys.exit(2)
if end == "stop":
    sys.exit(75)
if rank == 0:
    (run / "model").mkdir(exist_ok=True)
    (run / "report.md").write_text("# report\n")
