"""The first passes under the engines that divide: the micro-batch is stepped down, by all ranks together, to what fits into memory.

Their ranks talk inside a pass, so one that runs out of memory there leaves the others waiting. Therefore each measures first what a few of the
longest samples take, and all go down to the size that the poorest has room for. Then a pass of that size is tried. Ranks that run out of memory
in it together step down once more; where only some do, all end, with the number to go on with on record.
"""

from __future__ import annotations

import gc
import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from launch.config.errors import FullrankError, Problem
from launch.config.resolve import BatchArithmetic, divisors, resolve_batches
from launch.config.run_dir import Attempt, write_json
from trainers.crash import CrashReport
from trainers.engine import BuildOptimizer, Engine
from trainers.tasks import Task
from trainers.warm_up import can_run_out_of_memory, is_out_of_memory, longest_samples, throw_away_pass

MARGIN = 1.25
"""On what is measured, for what autograd does not keep: intermediate results, and the holes between tensors."""

GRACE_S = 30.0
"""For the ranks that have memory to run out of it too, before they are taken for stuck."""


class Prepared(NamedTuple):
    """A model that trains in the memory there is, its optimizer, and how the global batch is divided."""

    model: nn.Module
    optimizer: Any
    arithmetic: BatchArithmetic


def prepare_what_fits(
    engine: Engine,
    task: Task,
    model: nn.Module,
    build: Callable[[], nn.Module],
    build_optimizer: BuildOptimizer,
    arithmetic: BatchArithmetic,
    watch: RehearsalWatch | None,
) -> Prepared:
    """Returns the prepared model with the largest micro-batch, at most the one given, that every rank has memory for. Every rank must call this.

    It draws random numbers.

    Args:
        watch: None: this micro-batch has been trained with before.
        build: builds the same model again: what was prepared for another micro-batch, or has passed through DeepSpeed, is not as before.

    Raises:
        FullrankError: not even one sample fits.
    """
    if watch is None or not (engine.divides_state and can_run_out_of_memory(engine)):
        return Prepared(*engine.prepare(model, build_optimizer), arithmetic)
    sizes = [n for n in divisors(arithmetic.global_batch_size // arithmetic.world_size) if n <= arithmetic.micro_batch_size]
    is_measured = False
    while sizes:
        current = resolve_batches(arithmetic.global_batch_size, arithmetic.world_size, sizes[-1])
        engine.use(current)
        prepared = Prepared(*engine.prepare(model, build_optimizer), current)
        with watch.over(sizes[-1], sizes[-2] if len(sizes) > 1 else sizes[-1]):
            room = sizes[-1] if is_measured else min(engine.gather_saved(_samples_in_memory(engine, task, prepared)))
            sizes, is_measured = [n for n in sizes if n <= room] or sizes[:1], True
            has_memory = sizes[-1] < current.micro_batch_size or _has_memory(engine, task, prepared, sizes[-1])
            if not has_memory:
                watch.tell()
            fits = sizes[-1] == current.micro_batch_size and all(engine.gather_saved(has_memory))
        if fits and engine.is_unchanged_by_passes:
            return prepared
        del prepared
        engine.discard()
        _free(engine)
        model = build()
        if fits:
            return Prepared(*engine.prepare(model, build_optimizer), current)
        sizes = sizes[:-1] if sizes[-1] == current.micro_batch_size else sizes
    what = "a rank has no memory for a pass over one sample"
    raise FullrankError(Problem(what, key="train.micro_batch_size", fix="a strategy that divides more, or model.gradient_checkpointing=true"))


class RehearsalWatch:
    """Ends this rank where another has run out of memory and this one waits for it in a collective."""

    def __init__(self, attempt: Attempt, crash: CrashReport, is_main: bool) -> None:
        self._attempt, self._crash, self._is_main = attempt, crash, is_main
        self._told = attempt.path / "out_of_memory"

    @contextmanager
    def over(self, size: int, smaller: int) -> Iterator[None]:
        """Watches while the block runs."""
        done = threading.Event()
        watcher = threading.Thread(target=self._wait, args=(done, size, smaller), name="rehearsal", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            self._told.unlink(missing_ok=True)

    def tell(self) -> None:
        """Tells all ranks that this one has run out of memory."""
        self._told.touch()

    def _wait(self, done: threading.Event, size: int, smaller: int) -> None:
        while not done.wait(0.2) and not self._told.exists():
            pass
        if done.wait(GRACE_S):
            return
        if self._is_main:
            write_json(self._attempt.start, {"first_step": 0, "checkpoint": None, "micro_batch_size": smaller})
        what = f"some ranks ran out of memory with micro-batches of {size}, and the others wait for them"
        fix = f"fullrank resume goes on with {smaller}; or train.micro_batch_size={smaller}"
        os._exit(self._crash.write(FullrankError(Problem(what, key="train.micro_batch_size", fix=fix))))


def _samples_in_memory(engine: Engine, task: Task, prepared: Prepared) -> int:
    """Returns how many of the longest samples this rank has room for, by what one and two of them take beside what the optimizer will keep."""
    one, two = (_bytes_of_pass(engine, task, prepared, num_samples) for num_samples in (1, 2))
    kept = 0 if not engine.is_unchanged_by_passes else 2 * sum(own.nbytes for own in engine.own_weights(prepared.model, prepared.optimizer))
    room = (_free_bytes(engine) - kept) / MARGIN - (2 * one - two)
    return max(1, int(room / max(two - one, 1)))


def _bytes_of_pass(engine: Engine, task: Task, prepared: Prepared, num_samples: int) -> int:
    """Returns what a pass over the longest samples takes at its peak; on a CPU, where nobody counts, what autograd keeps for the way back."""
    if engine.device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        _pass(engine, task, prepared, num_samples)
        return torch.cuda.max_memory_allocated() - before
    kept: dict[int, tuple[torch.UntypedStorage, int]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage, storage.nbytes()  # held, so that no other gets its number: FSDP2 gives back what lies in them meanwhile
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _pass(engine, task, prepared, num_samples)
    return sum(num_bytes for _, num_bytes in kept.values())


def _free_bytes(engine: Engine) -> int:
    """Returns what this rank can still have of its device, or of its limit."""
    if engine.device.type == "cuda":
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return resource.getrlimit(resource.RLIMIT_AS)[0] - pages * resource.getpagesize()


def _pass(engine: Engine, task: Task, prepared: Prepared, num_samples: int) -> None:
    with engine.accumulating(prepared.model, is_last=True):
        throw_away_pass(engine, task, prepared.model, longest_samples(task, num_samples))


def _has_memory(engine: Engine, task: Task, prepared: Prepared, num_samples: int) -> bool:
    """Makes a pass over the longest samples, beside what the optimizer will keep."""
    moments: list[torch.Tensor] = []
    try:
        if engine.is_unchanged_by_passes:  # DeepSpeed has made its own already
            moments += [torch.empty_like(own) for own in engine.own_weights(prepared.model, prepared.optimizer) for _ in range(2)]
        _pass(engine, task, prepared, num_samples)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        moments.clear()
        _free(engine)
    return True


def _free(engine: Engine) -> None:
    gc.collect()
    if engine.device.type == "cuda":
        torch.cuda.empty_cache()
