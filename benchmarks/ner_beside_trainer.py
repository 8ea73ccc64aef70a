"""Named entities, step by step beside the Hugging Face Trainer: one epoch in the same order, no dropout, every loss and the F1 compared.

    FULLRANK_DATA=../shared/data python benchmarks/ner_beside_trainer.py [--limit 600] [--lr 5e-4]

What is left between the two is then rounding; what docs/tasks.md shows between them without this is the order, the dropout's draws and chance.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tutorial_text import BATCH_SIZE, MODEL, align, judge_names, read_columns

from launch.config.metrics import read_metrics
from trainers.sampler import global_batches
from trainers.sources import locate

FILES = {"train": "wnut17train.conll", "validation": "emerging.dev.conll"}
SEED = 0


def main() -> None:
    """Trains both, and prints how far apart they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=600)
    parser.add_argument("--lr", type=float, default=5e-4)
    options = parser.parse_args()
    data = Path(os.environ.get("FULLRANK_DATA", "")).absolute() / "wnut17"
    if not data.is_dir():
        sys.exit("FULLRANK_DATA does not name the folder with the data: nothing was measured")
    ours = train_here(data, options)
    theirs, f1 = train_stock(data, options)
    steps = [record for record in ours if record["split"] == "train"]
    apart = {
        name: max(abs(record[name] - log[stock]) / log[stock] for record, log in zip(steps, theirs, strict=True))
        for name, stock in {"loss": "loss", "gradient_norm": "grad_norm"}.items()
    }
    print(f"{len(steps)} steps; largest relative difference: " + ", ".join(f"{name} {value:.1e}" for name, value in apart.items()))
    print(f"validation F1: fullrank {ours[-1]['f1']:.4f}, Trainer {f1:.4f}")


def train_here(data: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns the records of `fullrank run ner`."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            *(f"model.source={MODEL}", "model.dropout=0.0", f"data.source={data}", "data.format=conll", f"data.limit={options.limit}"),
            *(f"data.splits.train={FILES['train']}", f"data.splits.validation={FILES['validation']}", "data.splits.test=null"),
            *("train.duration=1 epoch", f"optimizer.lr={options.lr}", "schedule.warmup=10 steps", f"seed={SEED}"),
            *("tracking.log_every=1 step", "tracking.wandb.mode=disabled", "evaluate.every=null", "data.num_workers=0"),
        ]
        run = Path(folder) / "run"
        subprocess.run([Path(sys.executable).with_name("fullrank"), "run", "ner", *words, "--run-dir", run], check=True)
        return read_metrics(run / "metrics.jsonl")


def train_stock(data: Path, options: argparse.Namespace) -> tuple[list[dict[str, float]], float]:
    """Returns the Trainer's log of every step, and its F1 of the validation split; it sees the sentences in fullrank's order."""
    import torch
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForTokenClassification, AutoTokenizer, DataCollatorForTokenClassification, Trainer, TrainingArguments

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any) -> SequentialSampler:
            return SequentialSampler(self.train_dataset)

    source = str(locate(MODEL, "model.source"))
    tokenizer = AutoTokenizer.from_pretrained(source)
    read = {split: read_columns(data / name)[: options.limit] for split, name in FILES.items()}
    types = sorted({tag[2:] for sentence in read["train"] for _, tag in sentence if tag != "O"})
    names = ["O", *(f"{part}-{kind}" for kind in types for part in "BI")]
    rows, judged = ([align(tokenizer, sentence, names) for sentence in read[split]] for split in FILES)
    lengths = [len(row["input_ids"]) for row in rows]
    order = [int(index) for batch in global_batches(len(rows), BATCH_SIZE, SEED, 0, lengths) for index in batch]
    torch.manual_seed(SEED)  # draws the head
    model = AutoModelForTokenClassification.from_pretrained(source, num_labels=len(names), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=options.lr,
            weight_decay=0.01,
            warmup_steps=10,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = InOrder(
            model=model, args=arguments, train_dataset=[rows[index] for index in order], data_collator=DataCollatorForTokenClassification(tokenizer)
        )
        trainer.train()
        return [log for log in trainer.state.log_history if "grad_norm" in log], judge_names(trainer.predict(judged), len(types))


if __name__ == "__main__":
    main()
