"""A stock Accelerate loop, made resumable by the lines marked with `# +`.

fullrank run --script examples/resumable.py -- --model DIR_OR_HUB_NAME --train train.tsv --validation dev.tsv
fullrank run --script examples/resumable.py --processes-per-node 2 -- ...
fullrank resume latest

The files have a sentence and a label (0, 1, ...) a line, under a header line. Stopped at any step and resumed on as many
processes, it ends with the same weights as if it had never been stopped.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import torch
from accelerate import Accelerator, DataLoaderConfiguration, skip_first_batches  # + skip_first_batches
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

from trainers.runtime import latest_checkpoint, publish_checkpoint, should_stop  # +


def main() -> None:
    options = parse_arguments()
    accelerator = Accelerator(dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True))  # + the order of an epoch from its number
    set_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=options.num_labels)
    train_rows, validation_rows = read_rows(options.train), read_rows(options.validation)

    def collate(rows: list[tuple[str, int]]) -> dict[str, torch.Tensor]:
        texts = tokenizer([text for text, _ in rows], padding=True, truncation=True, return_tensors="pt")
        return {**texts, "labels": torch.tensor([label for _, label in rows])}

    order = torch.Generator().manual_seed(options.seed)  # + so that starting an epoch again leaves dropout's random numbers alone
    train_loader = DataLoader(train_rows, shuffle=True, batch_size=options.batch_size, collate_fn=collate, drop_last=True, generator=order)
    validation_loader = DataLoader(validation_rows, batch_size=2 * options.batch_size, collate_fn=collate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr)
    num_steps = options.epochs * (len(train_loader) // accelerator.num_processes)
    schedule = get_linear_schedule_with_warmup(optimizer, num_steps // 10 * accelerator.num_processes, num_steps * accelerator.num_processes)
    model, optimizer, train_loader, validation_loader, schedule = accelerator.prepare(model, optimizer, train_loader, validation_loader, schedule)

    step = 0
    if checkpoint := latest_checkpoint():  # +
        accelerator.load_state(checkpoint)  # +
        step = int(checkpoint.name.rpartition("-")[2])  # +
    for epoch in range(step // len(train_loader), options.epochs):
        train_loader.set_epoch(epoch)  # +
        model.train()
        for batch in skip_first_batches(train_loader, step % len(train_loader)):  # +
            loss = model(**batch).loss
            accelerator.backward(loss)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            if should_stop() or step % options.save_every == 0:  # +
                with publish_checkpoint(step) as folder:  # +
                    accelerator.save_state(folder)  # +
                if should_stop():  # +
                    sys.exit(75)  # +
        accuracy = evaluate(accelerator, model, validation_loader)
        accelerator.print(f"epoch {epoch}: loss {loss.item():.6f}  accuracy {accuracy:.4f}")
    accelerator.wait_for_everyone()
    accelerator.unwrap_model(model).save_pretrained(options.output, is_main_process=accelerator.is_main_process)
    accelerator.end_training()


def evaluate(accelerator: Accelerator, model: torch.nn.Module, loader: DataLoader) -> float:
    """Returns the share of rows whose label is predicted. Every rank must call this."""
    model.eval()
    right = total = 0
    for batch in loader:
        with torch.no_grad():
            predicted = model(**batch).logits.argmax(dim=-1)
        predicted, labels = accelerator.gather_for_metrics((predicted, batch["labels"]))
        right += int((predicted == labels).sum())
        total += len(labels)
    return right / total


def read_rows(path: Path) -> list[tuple[str, int]]:
    """Returns (sentence, label) pairs of a tsv file with a header line."""
    with path.open(encoding="utf-8", newline="") as file:
        return [(text, int(label)) for text, label in list(csv.reader(file, delimiter="\t"))[1:]]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder or hub name")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--validation", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("model"))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16, help="of one process")
    parser.add_argument("--lr", type=float, default=2e-5)
    parser.add_argument("--num-labels", type=int, default=2)
    parser.add_argument("--save-every", type=int, default=100, metavar="STEPS")
    parser.add_argument("--seed", type=int, default=42)
    return parser.parse_args()


if __name__ == "__main__":
    main()
