"""A script of the shape of transformers' GLUE example without a Trainer: datasets mapped by the main process first, decay groups,
its own checkpoints and resume, a progress bar, results as JSON. It knows nothing of fullrank."""

import argparse
import json
import logging
import math
import os

import datasets
import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, get_scheduler

logger = get_logger(__name__)


def parse_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--validation", required=True)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max_train_steps", type=int, default=None)
    parser.add_argument("--num_train_epochs", type=int, default=1)
    parser.add_argument("--gradient_accumulation_steps", type=int, default=1)
    parser.add_argument("--checkpointing_steps", type=int, default=None)
    parser.add_argument("--resume_from_checkpoint", default=None)
    parser.add_argument("--output_dir", default="out")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main():
    args = parse_args()
    accelerator = Accelerator(gradient_accumulation_steps=args.gradient_accumulation_steps)
    logging.basicConfig(format="%(asctime)s - %(levelname)s - %(name)s - %(message)s", level=logging.INFO)
    logger.info(accelerator.state, main_process_only=False)
    set_seed(args.seed)
    if accelerator.is_main_process:
        os.makedirs(args.output_dir, exist_ok=True)
    accelerator.wait_for_everyone()

    raw = datasets.load_dataset("csv", data_files={"train": args.train, "validation": args.validation}, delimiter="\t")
    label_list = sorted(raw["train"].unique("label"))
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    config = AutoConfig.from_pretrained(args.model, num_labels=2)
    model = AutoModelForSequenceClassification.from_pretrained(args.model, config=config)
    logger.info(f"labels {label_list}")

    def preprocess(examples):
        result = tokenizer(examples["text"], padding=False, max_length=32, truncation=True)
        result["labels"] = examples["label"]
        return result

    with accelerator.main_process_first():
        processed = raw.map(preprocess, batched=True, remove_columns=raw["train"].column_names, desc="tokenizing")
    collator = DataCollatorWithPadding(tokenizer)
    train = DataLoader(processed["train"], shuffle=True, collate_fn=collator, batch_size=args.batch_size)
    validation = DataLoader(processed["validation"], collate_fn=collator, batch_size=args.batch_size)

    kept = ["bias", "LayerNorm.weight"]
    groups = [
        {"params": [p for n, p in model.named_parameters() if not any(name in n for name in kept)], "weight_decay": 0.01},
        {"params": [p for n, p in model.named_parameters() if any(name in n for name in kept)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    steps_per_epoch = math.ceil(len(train) / args.gradient_accumulation_steps)
    total = args.max_train_steps or args.num_train_epochs * steps_per_epoch
    schedule = get_scheduler("linear", optimizer=optimizer, num_warmup_steps=0, num_training_steps=total)
    model, optimizer, train, validation, schedule = accelerator.prepare(model, optimizer, train, validation, schedule)

    if args.resume_from_checkpoint:
        accelerator.load_state(args.resume_from_checkpoint)
    done, bar = 0, tqdm(range(total), disable=not accelerator.is_local_main_process)
    for epoch in range(args.num_train_epochs):
        model.train()
        for batch in train:
            with accelerator.accumulate(model):
                loss = model(**batch).loss
                accelerator.backward(loss)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients:
                bar.update(1)
                done += 1
                if args.checkpointing_steps and done % args.checkpointing_steps == 0:
                    accelerator.save_state(os.path.join(args.output_dir, f"step_{done}"))
            if done >= total:
                break
        model.eval()
        right = count = 0
        for batch in validation:
            with torch.no_grad():
                predictions = model(**batch).logits.argmax(dim=-1)
            predictions, references = accelerator.gather_for_metrics((predictions, batch["labels"]))
            right += int((predictions == references).sum())
            count += len(references)
        logger.info(f"epoch {epoch}: accuracy {right / count}")
    if accelerator.is_main_process:
        with open(os.path.join(args.output_dir, "all_results.json"), "w") as file:
            json.dump({"eval_accuracy": right / count, "count": count, "num_processes": accelerator.num_processes}, file)
    accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main()
