"""Every feature of a training, and every task, under every strategy: as without the strategy, and resumed bit by bit?

    python benchmarks/strategy_matrix.py [--features clipping,freezing,...|tasks] [--strategies fsdp2,zero3,...] [--folder DIR]

`--features tasks` takes the tasks' own tiny experiments (tests/tiny_tasks.py); without --features all but them are taken. Two ranks over gloo,
8 steps of a tiny BERT (or ResNet, or ViT) with an evaluation and a checkpoint in the middle. A cell says: the largest relative difference of a
loss from the reference; the largest difference of an exported weight from the reference's; whether the same training, gone on with from its
middle, ends with the same records, weights, optimizer and random states. The reference is one process; for BatchNorm, which sees micro-batches,
DDP; for `compile` and packed texts the model without them. Adam's first steps divide gradients near zero by themselves, so a weight may be 1e-3
off where a loss is not: SGD here, but for `AdamW`. Exit code 1 if a training failed, was not exact, or a loss is further off than 1e-5 (bf16: 5e-2).
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import forked
import torch
from forked_experiments import differences, write_image_experiment, write_text_experiment
from safetensors.torch import load_file

from tests.engines import told, write_strategies
from tests.tiny_tasks import TINY_TASKS, write_experiment

STRATEGIES = ("ddp", "fsdp2", "zero1", "zero2", "zero3", "zero3_offload")
STEPS, MIDDLE = 8, 4
SGD = ("optimizer.name=sgd", "optimizer.lr=0.5", "optimizer.momentum=0.9")
SHARED = (f"train.duration={STEPS} steps", f"evaluate.every={MIDDLE} steps", f"checkpoint.every={MIDDLE} steps", "data.num_workers=0")


@dataclass(frozen=True)
class Feature:
    """What is switched on, and of which experiment.

    Args:
        reference: the strategy it is compared with, None: one process.
        close: how far a loss may be from the reference's.
        without: strategies that refuse it.
        not_in_reference: what the reference is not told.
    """

    words: tuple[str, ...]
    kind: str = "text"
    reference: str | None = None
    close: float = 1e-5
    without: tuple[str, ...] = ()
    not_in_reference: tuple[str, ...] = ()


_STAGE_3 = ("zero3", "zero3_offload")
FEATURES = {
    "AdamW": Feature(("optimizer.lr=1e-3", "optimizer.weight_decay=0.1")),
    "clipping": Feature((*SGD, "train.gradient_clip_norm=0.05")),
    "accumulation": Feature((*SGD, "train.micro_batch_size=2")),
    "freezing": Feature((*SGD, "model.freeze=[bert.embeddings.*, bert.encoder.layer.0.*]")),
    "layer_decay": Feature((*SGD, "optimizer.layer_decay=0.8")),
    "gradient checkpointing": Feature((*SGD, "model.gradient_checkpointing=true")),
    "compile": Feature((*SGD, "model.compile=true"), not_in_reference=("model.compile=true",)),
    "bf16": Feature((*SGD, "train.precision=bf16"), close=0.05),
    "LoRA": Feature((*SGD, "model.lora={rank: 4}")),
    "LoRA in bf16": Feature((*SGD, "model.lora={rank: 4}", "train.precision=bf16"), close=0.05),
    "LoRA of a ViT": Feature((*SGD, "optimizer.lr=0.05", "model.lora={rank: 4}"), "vit"),
    "moving average": Feature((*SGD, "train.ema_decay=0.9"), without=_STAGE_3),
    "LoRA and moving average": Feature((*SGD, "model.lora={rank: 4}", "train.ema_decay=0.9"), without=_STAGE_3),
    "thawing": Feature(
        (*SGD, "model.freeze=[bert.*]", "train.unfreeze_at={5 steps: [bert.encoder.layer.1.*]}"), without=("zero1", "zero2", *_STAGE_3)
    ),
    "packed texts": Feature((*SGD, "task.packing=true"), not_in_reference=("task.packing=true",)),
    "packed texts and compile": Feature(
        (*SGD, "task.packing=true", "model.compile=true"), not_in_reference=("task.packing=true", "model.compile=true")
    ),
    "packed rows": Feature((*SGD, "optimizer.lr=0.05", "task.rows=packed"), "causal_lm"),
    "packed rows and compile": Feature(
        (*SGD, "optimizer.lr=0.05", "task.rows=packed", "model.compile=true"), "causal_lm", not_in_reference=("model.compile=true",)
    ),
    "BatchNorm": Feature((*SGD, "optimizer.lr=0.05"), "image", "ddp"),
    "BatchNorm in bf16": Feature((*SGD, "optimizer.lr=0.05", "train.precision=bf16"), "image", "ddp", close=0.05),
}
TASKS = {name: Feature(("optimizer.name=sgd", "optimizer.lr=0.05"), name) for name in TINY_TASKS if name != "thawing"}
"""Thawing is a feature above."""


def main(typed: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", default=",".join(FEATURES))
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--folder", type=Path, help="keep the runs there")
    options = parser.parse_args(typed)
    chosen = TASKS if options.features == "tasks" else FEATURES | TASKS
    features = [name for name in chosen if options.features == "tasks" or name in options.features.split(",")]
    strategies = options.strategies.split(",")
    forked.load_engines()
    print("| | " + " | ".join(strategies) + " |")
    print("|---|" + "---|" * len(strategies), flush=True)
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("FULLRANK_CACHE", str(folder / "cache"))
        write_strategies(folder)
        network = {"class": "trainers.architectures.cifar_resnet:CifarResNet", "kwargs": {"depth": 8, "num_classes": 2}}
        experiments = {
            "text": write_text_experiment(folder, STEPS, model__dropout=0.0),
            "image": write_image_experiment(folder, STEPS, model=network, task__channels=3),
        }
        if "LoRA of a ViT" in features:
            vit = {"source": str(tiny_vit(folder / "vit")), "dropout": 0.0}
            (folder / "of_vit").mkdir(exist_ok=True)
            experiments["vit"] = write_image_experiment(folder / "of_vit", STEPS, model=vit, task__channels=3)
        for name in features:
            feature = chosen[name]
            if feature.kind in TINY_TASKS and feature.kind not in experiments:
                (folder / "of_tasks" / feature.kind).mkdir(parents=True, exist_ok=True)
                experiments[feature.kind] = write_experiment(feature.kind, folder / "of_tasks" / feature.kind)
            case = folder / name.replace(" ", "_")
            shutil.rmtree(case, ignore_errors=True)
            words = ["--config", str(experiments[feature.kind]), *SHARED, *feature.words]
            reference = case / (feature.reference or "one")
            ended = train(reference, [word for word in words if word not in feature.not_in_reference], 2 if feature.reference else 1)
            if ended:
                raise SystemExit(f"{name}: the reference {ended}")
            cells = []
            for strategy in strategies:
                typed_words, run = [*told(folder, strategy), *words], case / strategy
                cells.append(refusal(run, typed_words) if strategy in feature.without else judge(run, reference, typed_words, feature.close))
            failed += sum(not cell.endswith(("exact", "refused")) for cell in cells)
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    return int(failed > 0)


def refusal(run: Path, words: list[str]) -> str:
    """Returns a cell of a training that is to be refused."""
    ended = train(run, words, 2)
    return "refused" if (ended or "").startswith("ended with 2") else f"not refused: {ended or 'trained'}"


def judge(run: Path, reference: Path, words: list[str], close: float) -> str:
    """Returns a cell: what became of a training, and of its second half gone on with."""
    ended = train(run, words, 2) if run != reference else None
    if ended:
        return ended
    pairs = [(mine["loss"], theirs["loss"]) for mine, theirs in zip(*(forked.read_records(one) for one in (run, reference)), strict=True)]
    loss = max(abs(mine - theirs) / abs(theirs) for mine, theirs in pairs)
    weights, expected = (load_file(one / "model" / "model.safetensors") for one in (run, reference))
    assert weights.keys() == expected.keys(), weights.keys() ^ expected.keys()
    weight = max(float((weights[name].float() - expected[name].float()).abs().max()) for name in expected)
    half = run.with_name(f"{run.name}-half")
    shutil.copytree(run, half)
    for path in (half / "model", half / "checkpoints" / f"checkpoint-{STEPS}"):
        shutil.rmtree(path)
    ended = train(half, words, 2)
    found = differences(run, half)
    verdict = ended or "; ".join(found)[:80] or ("exact" if loss <= close else "exact, but far")
    return f"{loss:.0e}, {weight:.0e}, {verdict}"


def tiny_vit(folder: Path) -> Path:
    """Writes a vision transformer of two layers with random weights; returns its folder."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    ViTForImageClassification(ViTConfig(image_size=16, patch_size=4, num_labels=2, **shape)).save_pretrained(folder)
    return folder


def train(run: Path, words: list[str], num_processes: int) -> str | None:
    """Trains to the end; returns the last line of a rank that failed, None if none did."""
    logs = run.with_name(f"{run.name}.logs")
    codes = forked.wait(forked.start([*words, "--run-dir", str(run)], num_processes, logs))
    bad = next((rank for rank, code in enumerate(codes) if code), None)
    if bad is None:
        return None
    lines = (logs / f"rank_{bad}.log").read_text(errors="replace").strip().splitlines()
    return f"ended with {codes[bad]}: {lines[-1][:100]}" if lines else f"ended with {codes[bad]}"


if __name__ == "__main__":
    sys.exit(main())
