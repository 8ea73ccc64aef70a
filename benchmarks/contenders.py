"""What gpu.py and scaling.py train, and the two loops that both compare: a plain one, and fullrank's.

Random weights, random data made beforehand; torch is imported where it is used, so that a machine without it is told so.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

ROOT = Path(__file__).resolve().parent.parent
LR, NUM_CLASSES, POOL = 1e-4, 10, 512


def count_workers() -> int:
    """Returns how many processes make batches: on the way through shared memory, of which a container may have 64 MiB, a batch of pictures is 39."""
    shared = Path("/dev/shm")
    if not shared.is_dir() or shutil.disk_usage(shared).free < 2 * 2**30:
        return 0
    return min(8, max(2, (os.cpu_count() or 2) // 2))


NUM_WORKERS = count_workers()


@dataclass(frozen=True)
class Work:
    """What is trained: a model's name, samples a step, tokens (or pixels an edge) a sample, FLOPs a sample forward and backward."""

    model: str
    batch_size: int
    edge: int
    flops: float


WORKS = {
    "bert": Work("BERT-base", 64, 128, 128 * (6 * 85.6e6 + 12 * 12 * 768 * 128)),
    "resnet": Work("ResNet-50", 128, 224, 3 * 8.2e9),
}
MINILM = Work("MiniLM's shape", 32, 24, 24 * 6 * 10.6e6)
"""For scaling.py: what a CPU can train, in the batches of its sentences (SST-2: 24 tokens)."""
TINY = {"bert": Work("tiny BERT", 8, 16, 0.0), "resnet": Work("tiny ResNet", 8, 32, 0.0)}


class Samples:
    """Random samples made once, asked for by index or by fullrank's (epoch, index)."""

    def __init__(self, kind: str, work: Work) -> None:
        import torch

        generator = torch.Generator().manual_seed(0)
        self.labels = torch.randint(NUM_CLASSES, (POOL,), generator=generator)
        if kind in ("bert", "minilm"):
            self.inputs = {"input_ids": torch.randint(5, 1000, (POOL, work.edge), generator=generator)}
            self.inputs["attention_mask"] = torch.ones_like(self.inputs["input_ids"])
        else:
            pixels = torch.randn(POOL, 3, work.edge, work.edge, generator=generator)
            self.inputs = {"pixel_values": pixels.bfloat16() if torch.cuda.is_available() else pixels}  # what autocast makes of them

    def __len__(self) -> int:
        return 10**7

    def __getitem__(self, key: Any) -> dict[str, Any]:
        index = (key[1] if isinstance(key, tuple) else key) % POOL
        return {name: tensor[index] for name, tensor in self.inputs.items()} | {"labels": self.labels[index]}


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns one batch."""
    import torch

    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def build_model(kind: str, tiny: bool) -> Any:
    """Returns a model with random weights; both are Transformers', so that every contender gets its loss the same way."""
    from transformers import BertConfig, BertForSequenceClassification, ResNetConfig, ResNetForImageClassification

    if kind == "minilm":
        return BertForSequenceClassification(
            BertConfig(num_labels=NUM_CLASSES, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
        )
    if kind == "bert":
        small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 1000}
        return BertForSequenceClassification(BertConfig(num_labels=NUM_CLASSES, **(small if tiny else {})))
    small = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    return ResNetForImageClassification(ResNetConfig(num_labels=NUM_CLASSES, **(small if tiny else {})))


def plain_steps(model: Any, samples: Samples, work: Work) -> Iterator[Any]:
    """Trains with what a person would write by hand, under DDP if there is a process group; yields each step's loss.

    As fullrank it clips, decays matrices alone, steps a schedule, prefetches by as many workers and reads the loss every ten steps; it writes no
    file, asks nobody whether to stop, and weighs no losses: every batch here is whole.
    """
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    if torch.distributed.is_initialized():
        model = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    optimizer = torch.optim.AdamW([{"params": matrices}, {"params": others, "weight_decay": 0.0}], lr=LR, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 10**5)
    loader = torch.utils.data.DataLoader(samples, work.batch_size, num_workers=NUM_WORKERS, collate_fn=collate, pin_memory=device.type == "cuda")
    for number, batch in enumerate(loader):
        batch = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if number % 10 == 9:
            print(f"step {number + 1} loss {float(loss.detach())}", file=sys.stderr)
        yield loss.detach()


def fullrank_steps(model: Any, samples: Samples, work: Work, strategy_file: str | None = None) -> Iterator[Any]:
    """Trains with fullrank's engine, loader and loop, with all that `fullrank run` does beside a step (the stop requests of all ranks, the
    heartbeat, metrics.jsonl) but evaluations and checkpoints; yields the last logged loss. Every rank must call this.
    """
    sys.path.insert(0, str(ROOT))
    import torch

    from launch.config.experiment import Experiment
    from launch.config.resolve import BatchArithmetic
    from launch.config.run_dir import RunDir
    from launch.config.strategy import load_strategy
    from trainers.checkpointing import Progress
    from trainers.console import Console
    from trainers.crash import CrashReport
    from trainers.engines import build_engine
    from trainers.hardware import choose_precision
    from trainers.heartbeat import Heartbeat
    from trainers.loader import build_step_loader
    from trainers.loop import Training, take_steps
    from trainers.optimizers import build_optimizer, build_schedule
    from trainers.sampler import RankSteps
    from trainers.stopping import StopRequests
    from trainers.trackers import SILENT, Trackers
    from trainers.tracking.metrics_file import MetricsFile
    from trainers.world import read_world

    world, precision = read_world(), "bf16" if torch.cuda.is_available() else "fp32"
    experiment = Experiment.model_validate(
        {
            "name": "gpu",
            "model": {"class": "none:None"},
            "task": {"kind": "own", "file": "none.py"},
            "data": {"source": "none"},
            "train": {"duration": "100000 steps", "global_batch_size": work.batch_size * world.world_size, "precision": precision},
            "optimizer": {"lr": LR},
        }
    )
    arithmetic = BatchArithmetic(work.batch_size * world.world_size, work.batch_size, 1, world.world_size)
    strategy = load_strategy(strategy_file) if strategy_file else None
    engine = build_engine(world, strategy, choose_precision(experiment.train.precision, strategy), experiment, arithmetic)
    model, optimizer = engine.prepare(model, lambda prepared: build_optimizer(prepared, experiment.optimizer))
    model.train()
    steps = RankSteps(10**5, arithmetic, rank=world.rank, seed=0, first_step=0, total_steps=10**5, lengths=None)
    loader = build_step_loader(samples, collate, steps, NUM_WORKERS, pin_memory=engine.device.type == "cuda")
    with tempfile.TemporaryDirectory() as folder:
        run, last = RunDir(Path(folder)), _Last()
        nothing: Any = SimpleNamespace(poll=lambda: None)
        training = Training(
            run=run,
            experiment=experiment,
            engine=engine,
            task=_Task(),  # type: ignore[arg-type]
            model=model,
            optimizer=optimizer,
            schedule=build_schedule(optimizer, experiment.schedule, 10**5, 10**5),
            steps=loader,
            evaluator=nothing,
            checkpoints=nothing,
            trackers=Trackers(MetricsFile(run.metrics), {"last": last}) if world.is_main else SILENT,
            stops=StopRequests(),
            heartbeat=Heartbeat(run, CrashReport(world.rank, None), world.is_main),
            console=Console(world.is_main),
            progress=Progress(),
            total_steps=10**5,
            steps_per_epoch=10**5,
            micro_batch_size=work.batch_size,
        )
        for batches in loader:
            training.steps = [batches]  # type: ignore[assignment]
            take_steps(training)
            yield last.loss


class _Last:
    """A tracker that keeps the last loss."""

    loss = 0.0

    def log(self, record: Any) -> None:
        self.loss = record["loss"]

    def close(self, exit_code: int) -> None:
        pass


class _Task:
    """What the loop asks of a task."""

    num_samples: ClassVar = {"train": 10**5}

    def batch_count(self, batch: Any) -> int:
        return len(batch["labels"])

    def batch_size_stats(self, batch: Any) -> tuple[int, int]:
        return 0, 0

    def train_loss(self, model: Any, batch: Any, label_smoothing: float) -> tuple[Any, Any]:
        import torch

        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        loss = torch.nn.functional.cross_entropy(model(**inputs).logits.float(), batch["labels"], reduction="sum", label_smoothing=label_smoothing)
        return loss, torch.tensor(len(batch["labels"]))


def wait_for_gpu() -> None:
    """Returns when the GPU, if there is one, has done what it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
