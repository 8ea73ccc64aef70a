"""The training loop: step, log, evaluate, checkpoint, stop. It constructs nothing."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from launch.config.durations import Duration
from launch.config.errors import FullrankError, Problem
from launch.config.experiment import Experiment
from launch.config.resolve import checkpoint_interval
from launch.config.run_dir import Cause, RunDir
from trainers.averaging import NO_AVERAGE, NoAverage
from trainers.checkpointing import Checkpoints, Progress
from trainers.console import Console
from trainers.engine import Engine
from trainers.evaluation import Evaluation, Evaluator, remove_pictures, write_evaluation
from trainers.heartbeat import Heartbeat
from trainers.loader import StepBatches, move_batch
from trainers.optimizers import set_training_mode
from trainers.profiling import NoProfiler
from trainers.sampler import samples_in_step
from trainers.stopping import StopAgreed, StopRequests, agreed_cause
from trainers.tasks import Task
from trainers.thawing import Thawing, thaw_due
from trainers.trackers import Trackers


@dataclass
class Throughput:
    """Counts since the last record; time spent evaluating or saving is left out."""

    started: float = field(default_factory=time.perf_counter)
    samples: int = 0
    real_tokens: int = 0
    computed_tokens: int = 0

    def pause(self, seconds: float) -> None:
        self.started += seconds


@dataclass
class Training:
    """Everything that fit() drives."""

    run: RunDir
    experiment: Experiment
    engine: Engine
    task: Task
    model: nn.Module
    optimizer: Any
    schedule: Any
    steps: DataLoader[StepBatches]
    evaluator: Evaluator
    checkpoints: Checkpoints
    trackers: Trackers
    stops: StopRequests
    heartbeat: Heartbeat
    console: Console
    progress: Progress
    total_steps: int
    steps_per_epoch: int
    micro_batch_size: int
    average: NoAverage = NO_AVERAGE
    thawing: Thawing = field(default_factory=Thawing)
    profiler: NoProfiler = field(default_factory=NoProfiler)
    throughput: Throughput = field(default_factory=Throughput)

    def is_due(self, every: Duration | None) -> bool:
        """Returns whether something that happens `every` so often happens after this step."""
        return every is not None and self.progress.step % every.in_steps(self.steps_per_epoch) == 0

    @property
    def owes_evaluation(self) -> bool:
        """Returns whether the evaluation of this step is due and not done, perhaps because a stop cut it short."""
        return self.progress.step > 0 and self.progress.evaluated_step != self.progress.step and self.is_due(self.experiment.evaluate.every)

    @property
    def is_done(self) -> bool:
        return self.progress.step >= self.total_steps


@dataclass(frozen=True)
class StepResult:
    """One optimizer step: this rank's loss sum (float32 []), the count of targets on all ranks, the gradient's norm before clipping."""

    loss_sum: Tensor
    global_count: float
    gradient_norm: Tensor
    lr: float
    cause: Cause | None


def fit(training: Training) -> Cause | None:
    """Trains to the end, or until all ranks agree to stop; returns why it stopped, None if it did not. Every rank must call this."""
    set_training_mode(training.model)
    training.console.start(training.progress.step, training.total_steps)
    training.throughput = Throughput()
    try:
        take_steps(training)
        evaluate_last_step(training)
    except StopAgreed as stop:
        training.heartbeat.announce_stop(stop.cause)
        save(training)  # of the last whole step; an evaluation that was cut short comes first in the resumed run
        training.checkpoints.wait()
        return stop.cause
    try:
        test(training)
    except StopAgreed as stop:  # the last checkpoint has everything, and the weights in memory may be the best ones
        return stop.cause
    return None


def take_steps(training: Training) -> None:
    """Takes the steps that are left, with what is due after each. Every rank must call this.

    Raises:
        StopAgreed: on every rank, after the same step.
    """
    experiment, progress = training.experiment, training.progress
    if training.owes_evaluation and evaluate_now(training):
        save(training)
    for batches in training.profiler.steps(training.steps, progress.step) if not has_no_gain(training) else ():
        thaw_due(training)
        result = train_step(training, batches)
        training.average.update()
        progress.step += 1
        progress.samples_consumed += samples_in_step(progress.step, training.task.num_samples["train"], experiment.train.global_batch_size)
        training.heartbeat.beat(progress.step)
        training.checkpoints.poll()
        training.console.advance()
        if training.is_due(experiment.tracking.log_every) or training.is_done or progress.step == 1:
            with training.profiler.phase("logging"):
                log_step(training, result)
        if result.cause:
            raise StopAgreed(result.cause, "training")
        paused = time.perf_counter()
        with training.profiler.phase("evaluation and checkpoint"):
            is_best = training.owes_evaluation and evaluate_now(training)
            if is_best or training.is_due(checkpoint_interval(experiment)):
                save(training)
        training.throughput.pause(time.perf_counter() - paused)
        if has_no_gain(training):
            training.console.say(f"stopping early: no gain in {experiment.evaluate.metric} for {progress.evaluations_without_gain} evaluations")
            break


def train_step(training: Training, batches: StepBatches) -> StepResult:
    """Makes one optimizer step. Every rank must call this.

    The loss is divided once, by the targets of the whole step on all ranks, so uneven ranks and accumulation average right.
    The all-reduce of that count also carries the ranks' wishes to stop.
    """
    engine, task, train, phase = training.engine, training.task, training.experiment.train, training.profiler.phase
    counts = [0 if padding else task.batch_count(batch) for batch, padding in zip(batches.batches, batches.is_padding, strict=True)]
    with phase("counting and stop requests"):
        global_count, *flags = engine.sum_over_ranks([float(sum(counts)), *training.stops.flags()])
    loss_sum = torch.zeros((), device=engine.device)
    last = len(batches.batches) - 1
    for number, (batch, padding) in enumerate(zip(batches.batches, batches.is_padding, strict=True)):
        with engine.accumulating(training.model, is_last=number == last):
            with phase("forward"):
                batch_loss, _ = task.train_loss(training.model, move_batch(batch, engine.device), train.label_smoothing)
            if padding:
                batch_loss = batch_loss * 0.0
            with phase("backward"):
                engine.backward(batch_loss, global_count)
        loss_sum += batch_loss.detach()
        count_throughput(training, batch, padding)
    lr = max(group["lr"] for group in training.optimizer.param_groups)
    with phase("optimizer"):
        norm = engine.take_step(training.model, training.optimizer, train.gradient_clip_norm)
    if training.experiment.schedule.name != "plateau":
        training.schedule.step()
    return StepResult(loss_sum, global_count, norm, lr, agreed_cause(flags))


def count_throughput(training: Training, batch: dict[str, Tensor], padding: bool) -> None:
    """Adds a micro-batch to the counts of this rank."""
    real, computed = training.task.batch_size_stats(batch)
    training.throughput.samples += 0 if padding else len(next(iter(batch.values())))
    training.throughput.real_tokens += 0 if padding else real
    training.throughput.computed_tokens += computed


def log_step(training: Training, result: StepResult) -> None:
    """Records the step that was just made. Every rank must call this.

    Raises:
        FullrankError: the loss is no longer a number.
    """
    counts, progress = training.throughput, training.progress
    loss_sum, samples, real, computed = training.engine.sum_over_ranks(
        [result.loss_sum, float(counts.samples), float(counts.real_tokens), float(counts.computed_tokens)]
    )
    loss = loss_sum / result.global_count
    if not math.isfinite(loss):
        fix = "a lower optimizer.lr, a longer schedule.warmup, or train.gradient_clip_norm=1.0; fp16 overflows where bf16 does not"
        raise FullrankError(
            Problem(f"the training loss is {loss} at step {progress.step}: the weights are lost from here on", key="optimizer.lr", fix=fix)
        )
    now = time.perf_counter()
    seconds = max(now - counts.started, 1e-9)
    record = {
        "loss": loss,
        "lr": result.lr,
        "gradient_norm": float(result.gradient_norm),
        "samples_per_second": samples / seconds,
    }
    if computed:
        record |= {"tokens_per_second": real / seconds, "real_token_share": real / computed}
    write_record(training, "train", progress.step, record)
    training.throughput = Throughput(started=now)


def evaluate_now(training: Training, split: str = "validation") -> bool:
    """Evaluates the validation split, moves what depends on it, and returns whether it is the best so far. Every rank must call this."""
    options, progress = training.experiment.evaluate, training.progress
    if split not in training.task.num_samples:
        progress.evaluated_step = progress.step
        return False
    evaluation = judge(training, split, progress.step)
    progress.evaluated_step = progress.step
    value = evaluation.metrics[options.metric]
    if training.experiment.schedule.name == "plateau":
        training.schedule.step(value if options.mode == "min" else -value)
    if progress.best is None:
        gained = is_best = True
    else:
        gain = value - progress.best if options.mode == "max" else progress.best - value
        is_best = gain > 0
        gained = gain > (options.early_stopping.min_delta if options.early_stopping else 0)
    progress.evaluations_without_gain = 0 if gained else progress.evaluations_without_gain + 1
    if is_best:
        progress.best, progress.best_step = value, progress.step
    if is_best or options.test == "last":
        keep_evaluation(training, evaluation, progress.step)
    return is_best


def judge(training: Training, split: str, step: int) -> Evaluation:
    """Evaluates a split with the weights of `step` and records what came out. Every rank must call this."""
    with training.average.applied():
        evaluation = training.evaluator.evaluate(training.model, split)
    set_training_mode(training.model)
    write_record(training, split, step, evaluation.metrics | {"num_samples": evaluation.num_samples, "seconds": evaluation.seconds})
    return evaluation


def keep_evaluation(training: Training, evaluation: Evaluation, step: int) -> None:
    """Writes what an evaluation of the weights that will be the result gave beyond its metrics. Every rank must call this."""
    if training.engine.world.is_main:
        remove_pictures(training.run, evaluation.split)
    with training.average.applied():
        illustration = training.evaluator.illustrate(training.model, evaluation.split, training.run.figures)
    set_training_mode(training.model)
    if training.engine.world.is_main:
        write_evaluation(training.run, step, evaluation, training.task, illustration)


def write_record(training: Training, split: str, step: int, values: dict[str, Any]) -> None:
    """Hands one record to the trackers and shows it."""
    record = {"step": step, "epoch": round(step / training.steps_per_epoch, 4), "split": split, **values, "time": time.time()}
    training.trackers.log(record)
    training.console.show(record)


def save(training: Training) -> None:
    """Writes a checkpoint of this step, of parameters that are in step. Every rank must call this."""
    training.engine.refuse_unless_in_step(training.model, training.progress.step)
    training.checkpoints.save(training.model, training.optimizer, training.schedule, training.progress)


def has_no_gain(training: Training) -> bool:
    """Returns whether early stopping ends the training here."""
    stopping = training.experiment.evaluate.early_stopping
    return stopping is not None and training.progress.evaluations_without_gain >= stopping.patience


def evaluate_last_step(training: Training) -> None:
    """Evaluates what the last step left, and saves it. Every rank must call this.

    Raises:
        StopAgreed: on every rank, if one was asked to stop meanwhile.
    """
    if training.progress.evaluated_step != training.progress.step:
        evaluate_now(training)
    save(training)
    training.checkpoints.wait()
    training.engine.barrier()


def test(training: Training) -> None:
    """Picks the best weights, and lets the test split see them once. Every rank must call this.

    Raises:
        StopAgreed: on every rank, if one was asked to stop meanwhile.
    """
    progress = training.progress
    training.console.stop()
    tested_step = progress.step
    if training.experiment.evaluate.test == "best" and progress.best_step not in (None, progress.step):
        tested_step = load_best(training)
    if "test" in training.task.num_samples:
        keep_evaluation(training, judge(training, "test", tested_step), tested_step)


def load_best(training: Training) -> int:
    """Replaces the weights by those of the best checkpoint, after verifying it; returns the step they are of. Every rank must call this."""
    engine, progress, console = training.engine, training.progress, training.console
    assert progress.best_step is not None
    best = engine.from_main(training.checkpoints.find_step(progress.best_step) if engine.world.is_main else None)
    if best is None:
        console.say(
            f"warning: the best checkpoint, of step {progress.best_step}, is damaged or gone: the last weights (step {progress.step}) are the result"
        )
        return progress.step
    console.say(f"best {training.experiment.evaluate.metric} {progress.best:.4g} at step {progress.best_step}: its weights are the result")
    training.checkpoints.load_weights(best, training.model)
    return progress.best_step
