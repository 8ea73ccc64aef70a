"""One GPU: fullrank's step against the stock Hugging Face Trainer and a plain PyTorch loop, BERT-base and ResNet-50 in bf16.

    python benchmarks/gpu.py                 # one CUDA GPU, about 6 minutes: tokens/s, samples/s, MFU, peak memory
    python benchmarks/gpu.py --tiny          # the same code on a CPU, small and in fp32: it proves that it runs, not how fast

Each contender runs in a process of its own: random weights, random data made beforehand, the same batches, AdamW, the same data workers (half the
cores, 8 at most; none where shared memory is too small). Needs torch and transformers; accelerate for the Trainer and for fullrank, pydantic and
PyYAML for fullrank: what is missing is said in its row, the others are measured. A machine without a package index takes them from a folder that
was filled elsewhere, for the same Python: `pip install --target FOLDER pydantic PyYAML`, `PYTHONPATH=FOLDER`.
MFU: 6 N + 12 L h s FLOPs a token (Chowdhery et al. 2022, PaLM, appendix B; N without embeddings), 3 x 8.2 GFLOPs a picture of 224 pixels
(4.1 GMACs forward; He et al. 2016), over the dense bf16 peak in NVIDIA's data sheets.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

ROOT = Path(__file__).resolve().parent.parent
CONTENDERS = ("fullrank", "HF Trainer", "plain loop")
PEAK_FLOPS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12, "4090": 165e12}
"""Dense bf16, by what the device's name holds; the first that fits counts."""
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


@dataclass(frozen=True)
class Result:
    """What one contender reached; `problem` instead where it could not run."""

    samples_per_second: float = 0.0
    peak_gib: float = 0.0
    steps: int = 0
    device: str = ""
    loss: float = 0.0
    problem: str = ""


def main() -> None:
    """Prints one table; with --contender it is one contender's process, and writes what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small models in fp32, on the CPU too")
    parser.add_argument("--seconds", type=float, help="measured time a row, after the warm-up (25; tiny: 1)")
    parser.add_argument("--limit-s", type=float, default=460, help="no row is begun that might end after this")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--work", choices=tuple(WORKS), help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.seconds = options.seconds or (1.0 if options.tiny else 25.0)
    if options.contender:
        options.result.write_text(json.dumps(asdict(measure(options))), encoding="utf-8")
        return
    started, results = time.monotonic(), {}
    for work in WORKS:
        for contender in CONTENDERS:
            left = options.limit_s - (time.monotonic() - started)
            results[work, contender] = run_apart(work, contender, options, left)
    if options.json:
        print(json.dumps({f"{work}: {contender}": asdict(result) for (work, contender), result in results.items()}, indent=2))
    else:
        print(render(results, options.tiny))


def run_apart(work: str, contender: str, options: argparse.Namespace, left_s: float) -> Result:
    """Returns what a contender reaches in a process of its own."""
    if left_s < options.seconds + 30:
        return Result(problem="no time left")
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "result.json"
        argv = [sys.executable, __file__, "--contender", contender, "--work", work, "--result", str(result), "--seconds", str(options.seconds)]
        try:
            done = subprocess.run([*argv, *(["--tiny"] if options.tiny else [])], cwd=scratch, capture_output=True, text=True, timeout=left_s)
        except subprocess.TimeoutExpired:
            return Result(problem="not done in time")
        if result.is_file():
            return Result(**json.loads(result.read_text(encoding="utf-8")))
        return Result(problem=(done.stderr.strip().splitlines() or ["no answer"])[-1][:150])


def measure(options: argparse.Namespace) -> Result:
    """Returns what one contender reaches, in this process."""
    import torch

    work = (TINY if options.tiny else WORKS)[options.work]
    if not torch.cuda.is_available() and not options.tiny:
        return Result(problem="no CUDA GPU: --tiny runs on a CPU")
    torch.manual_seed(0)
    model, samples = build_model(options.work, options.tiny), Samples(options.work, work)
    clock, loss = Clock(options.seconds, work.batch_size), 0.0
    if options.contender == "HF Trainer":
        loss = train_stock(model, samples, work, clock)
    else:
        take_steps = {"fullrank": fullrank_steps, "plain loop": plain_steps}[options.contender]
        for last in take_steps(model, samples, work):
            if clock.is_over():
                loss = float(last)
                break
    is_cuda = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() / 2**30 if is_cuda else 0.0
    return Result(clock.rate, peak, clock.steps, torch.cuda.get_device_name() if is_cuda else "CPU", loss)


class Clock:
    """Counts steps and time after a warm-up; waits for the GPU at both ends only."""

    def __init__(self, seconds: float, batch_size: int, warm_up: int = 10) -> None:
        self.seconds, self.batch_size, self.warm_up = seconds, batch_size, warm_up
        self.seen = self.steps = 0
        self.rate = 0.0

    def is_over(self) -> bool:
        """Call it after each step; returns whether the time is up."""
        self.seen += 1
        if self.seen == self.warm_up:
            wait_for_gpu()
            self._started = time.perf_counter()
        if self.seen <= self.warm_up or time.perf_counter() - self._started < self.seconds:
            return False
        wait_for_gpu()
        self.steps = self.seen - self.warm_up
        self.rate = self.steps * self.batch_size / (time.perf_counter() - self._started)
        return True


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


def train_stock(model: Any, samples: Samples, work: Work, clock: Clock) -> float:
    """Trains with the Hugging Face Trainer as it comes; returns the last loss it logged."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            control.should_training_stop = clock.is_over()

    is_cuda = torch.cuda.is_available()
    arguments = TrainingArguments(
        "trainer",
        per_device_train_batch_size=work.batch_size,
        max_steps=10**5,
        learning_rate=LR,
        bf16=is_cuda,
        use_cpu=not is_cuda,
        dataloader_num_workers=NUM_WORKERS,
        logging_steps=10,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=samples, data_collator=collate, callbacks=[Stop()])  # type: ignore[arg-type]
    trainer.train()
    return float(next((record["loss"] for record in reversed(trainer.state.log_history) if "loss" in record), 0.0))


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


def render(results: dict[tuple[str, str], Result], tiny: bool) -> str:
    """Returns the table in Markdown."""
    device = next((result.device for result in results.values() if result.device), "no device")
    precision = "fp32, tiny models" if tiny and device == "CPU" else "bf16"
    lines = [f"{device}, {precision}, {NUM_WORKERS} data workers", "", "| | | samples/s | tokens/s | MFU | peak GiB | steps |"]
    lines.append("|---|---|---:|---:|---:|---:|---:|")
    return "\n".join([*lines, *_rows(results, (TINY if tiny else WORKS), device)])


def _rows(results: dict[tuple[str, str], Result], works: dict[str, Work], device: str) -> Iterator[str]:
    peak = next((flops for name, flops in PEAK_FLOPS.items() if name in device), None)
    for (name, contender), result in results.items():
        work = works[name]
        if result.problem:
            yield f"| {work.model} | {contender} | not measured: {result.problem} | | | | |"
            continue
        tokens = f"{result.samples_per_second * work.edge:,.0f}" if name == "bert" else ""
        mfu = f"{result.samples_per_second * work.flops / peak:.1%}" if peak and work.flops else "unknown"
        memory = f"{result.peak_gib:.2f}" if result.peak_gib else ""
        yield f"| {work.model} | {contender} | {result.samples_per_second:,.1f} | {tokens} | {mfu} | {memory} | {result.steps} |"


def wait_for_gpu() -> None:
    """Returns when the GPU, if there is one, has done what it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
