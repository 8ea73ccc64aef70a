"""The launcher's estimate of activations beside what torch keeps: transformers from random weights, a forward and a backward pass on the CPU.

    python benchmarks/activations.py [--only base]

kept: the distinct storages that autograd saves in the forward pass, the weights left out (saved_tensors_hooks). peak: the most that torch's
allocator gave out beyond weights and gradients during both passes (torch.profiler, profile_memory), temporaries of single operations included.
In bf16 the 16-bit copies of the weights, which autocast keeps, are left out of both: the launcher counts them with the weights.
Dropout makes attention on a CPU keep its scores; without it, its fused kernel does not. Exit code 1 if an estimate is further than 25 % from
what is kept (with checkpointing: from the peak, as layers are computed again in the backward pass).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch.profiler import ProfilerActivity, profile

from launch.config.experiment import Precision
from launch.sizes.memory import activation_bytes
from launch.sizes.model_size import read_model_size

SIZES = {"MiniLM": (384, 6, 12), "base": (768, 12, 12), "large": (1024, 4, 16)}
"""Name -> hidden size, layers (of `large` 4 instead of 24), heads; the MLP is four times as wide."""
CLOSE = 0.25


@dataclass(frozen=True)
class Case:
    """One pass: what model, samples and tokens, and how."""

    family: str
    size: str
    samples: int
    tokens: int
    dropout: float = 0.1
    precision: Precision = "fp32"
    checkpointing: bool = False


CASES = (
    Case("bert", "MiniLM", 32, 64),
    Case("bert", "MiniLM", 8, 256),
    Case("bert", "MiniLM", 32, 64, dropout=0.0),
    Case("bert", "base", 8, 128),
    Case("bert", "base", 8, 128, dropout=0.0),
    Case("bert", "MiniLM", 16, 64, dropout=0.0, precision="bf16"),
    Case("bert", "base", 8, 128, dropout=0.0, checkpointing=True),
    Case("bert", "large", 4, 128),
    Case("roberta", "base", 4, 128),
    Case("distilbert", "base", 8, 128),
    Case("electra", "MiniLM", 32, 64),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    options = parser.parse_args()
    print("| model | samples x tokens | | estimate, MiB | kept | peak | estimate / kept | / peak |")
    print("|---|---|---|---:|---:|---:|---:|---:|", flush=True)
    failed = 0
    for case in CASES:
        if options.only not in f"{case.family} {case.size} {case.precision}":
            continue
        expected, kept, peak = measure(case)
        words = [f"dropout {case.dropout}", case.precision, *(["checkpointing"] if case.checkpointing else [])]
        figures = " | ".join(f"{value / 2**20:.1f}" for value in (expected, kept, peak))
        print(f"| {case.family} {case.size} | {case.samples} x {case.tokens} | {', '.join(words)} | {figures} | ", end="")
        print(f"{expected / kept:.2f} | {expected / peak:.2f} |", flush=True)
        failed += abs(expected / (peak if case.checkpointing else kept) - 1) > CLOSE
    return int(failed > 0)


def measure(case: Case) -> tuple[int, int, int]:
    """Returns the bytes that are estimated, kept by autograd after the forward pass, and given out by the allocator at the most."""
    torch.manual_seed(0)
    model = build(case)
    with tempfile.TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)
        model.save_pretrained(folder)
        transformer = read_model_size(Path(folder)).transformer
    assert transformer is not None, case
    expected = activation_bytes(
        transformer, case.tokens, case.samples, case.precision, case.checkpointing, keeps_scores=case.dropout > 0, dropout=case.dropout > 0
    )
    model.train()
    if case.checkpointing:
        model.gradient_checkpointing_enable()
    run(model, case).backward()  # the gradients are there from here on
    kept, copies = kept_by_autograd(model, case)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run(model, case).backward()
    return expected, kept, peak_of(profiler) - copies


def build(case: Case) -> Any:
    """Returns a classifier of two classes with random weights."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    hidden, layers, heads = SIZES[case.size]
    names = ("dim", "n_layers", "n_heads", "hidden_dim") if case.family == "distilbert" else _BERT_NAMES
    shape = dict(zip(names, (hidden, layers, heads, 4 * hidden), strict=True))
    droppings = ("dropout", "attention_dropout") if case.family == "distilbert" else ("hidden_dropout_prob", "attention_probs_dropout_prob")
    extra = {"embedding_size": hidden} if case.family == "electra" else {}
    config = AutoConfig.for_model(case.family, vocab_size=2000, **shape, **dict.fromkeys(droppings, case.dropout), **extra)
    return AutoModelForSequenceClassification.from_config(config)


_BERT_NAMES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


def run(model: Any, case: Case) -> torch.Tensor:
    """Returns the loss of a batch without padding."""
    ids = torch.full((case.samples, case.tokens), 5)
    with torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "bf16"):
        loss: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=torch.zeros(case.samples, dtype=torch.long)).loss
    return loss


def kept_by_autograd(model: Any, case: Case) -> tuple[int, int]:
    """Returns the bytes of the distinct storages that a forward pass saves, and of autocast's copies of weights, told by their size."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes = {2 * parameter.numel() for parameter in model.parameters() if parameter.ndim == 2}
    kept: dict[int, int] = {}
    copies: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            is_copy = tensor.dtype == torch.bfloat16 and storage.nbytes() in sizes
            (copies if is_copy else kept)[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = run(model, case)
    del loss
    return sum(kept.values()), sum(copies.values())


def peak_of(profiler: profile) -> int:
    """Returns the most bytes that were given out at one time."""
    held = peak = 0
    changes = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]  # type: ignore[union-attr]
    for event in sorted(changes, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


if __name__ == "__main__":
    sys.exit(main())
