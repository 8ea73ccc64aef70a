"""A script of the shape of Accelerate's NLP example: one training function, padding by batch, metrics gathered. It knows nothing of fullrank."""

import argparse
import csv

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup


def rows_of(path):
    with open(path, newline="") as file:
        return [(row["text"], int(row["label"])) for row in csv.DictReader(file, delimiter="\t")]


def training_function(config, args):
    accelerator = Accelerator(cpu=args.cpu, mixed_precision=args.mixed_precision)
    set_seed(config["seed"])
    tokenizer = AutoTokenizer.from_pretrained(args.model)

    def collate(rows):
        batch = tokenizer([text for text, _ in rows], padding="longest", truncation=True, return_tensors="pt")
        batch["labels"] = torch.tensor([label for _, label in rows])
        return batch

    train = DataLoader(rows_of(args.train), shuffle=True, collate_fn=collate, batch_size=args.batch_size, drop_last=True)
    validation = DataLoader(rows_of(args.validation), shuffle=False, collate_fn=collate, batch_size=args.batch_size)
    model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=2).to(accelerator.device)
    optimizer = torch.optim.AdamW(params=model.parameters(), lr=config["lr"])
    schedule = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=2, num_training_steps=len(train) * config["num_epochs"])
    model, optimizer, train, validation, schedule = accelerator.prepare(model, optimizer, train, validation, schedule)
    print(f"rank {accelerator.process_index} of {accelerator.num_processes}, {accelerator.distributed_type}, {accelerator.device}")

    for epoch in range(config["num_epochs"]):
        model.train()
        for batch in train:
            accelerator.backward(model(**batch).loss)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        model.eval()
        right = total = 0
        for batch in validation:
            with torch.no_grad():
                predictions = model(**batch).logits.argmax(dim=-1)
            predictions, references = accelerator.gather_for_metrics((predictions, batch["labels"]))
            right += int((predictions == references).sum())
            total += len(references)
        accelerator.print(f"epoch {epoch}: accuracy {right / total:.4f} of {total}")
    weights = torch.cat([p.detach().flatten() for p in accelerator.unwrap_model(model).parameters()])
    everywhere = accelerator.gather(weights.double().sum()[None])
    accelerator.print(f"ranks agree: {bool((everywhere == everywhere[0]).all())} over {len(everywhere)}")
    accelerator.end_training()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mixed_precision", default=None, choices=["no", "fp16", "bf16"])
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--validation", required=True)
    parser.add_argument("--batch-size", type=int, default=16)
    training_function({"lr": 1e-3, "num_epochs": 1, "seed": 42}, parser.parse_args())


if __name__ == "__main__":
    main()
