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
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from contenders import LR, NUM_WORKERS, TINY, WORKS, Samples, Work, build_model, collate, fullrank_steps, plain_steps, wait_for_gpu

CONTENDERS = ("fullrank", "HF Trainer", "plain loop")
PEAK_FLOPS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12, "4090": 165e12}
"""Dense bf16, by what the device's name holds; the first that fits counts."""


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


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
