"""Builds everything that fit() drives, from an experiment and the process it runs in."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from launch.config.changes import check_end
from launch.config.experiment import Experiment, dump_experiment
from launch.config.load import LoadedExperiment, load_experiment
from launch.config.quantities import show_count
from launch.config.resolve import BatchArithmetic, resolve, resolve_batches, steps_per_epoch, total_steps
from launch.config.run_dir import Attempt, RunDir, update_status, write_json
from launch.config.strategy import load_strategy
from launch.config.tasks.base import TaskSection
from launch.config.tasks.language_modelling import LanguageModelling
from trainers.averaging import build_average
from trainers.checkpointing import Checkpoints, Progress
from trainers.checkpoints.manifest import find_newest
from trainers.checkpoints.random_states import seed_random_states
from trainers.console import Console
from trainers.crash import CrashReport
from trainers.engine import Engine
from trainers.engines import build_engine
from trainers.evaluation import Evaluator
from trainers.features.cache import FeatureTask, use_cached_features
from trainers.features.computed_once import OncePerSample
from trainers.hardware import choose_precision
from trainers.heartbeat import Heartbeat
from trainers.loader import build_step_loader
from trainers.loop import Training
from trainers.models.batch_norm import batch_norm_warning
from trainers.models.cpu_dropout import use_cpu_dropout
from trainers.models.lora import AdapterFiles, add_adapters
from trainers.models.model_files import ModelFiles, WholeModel
from trainers.optimizers import build_optimizer, build_schedule, freeze_parameters
from trainers.own_code import own_usage, use_own_code
from trainers.rehearsal import RehearsalWatch, prepare_what_fits
from trainers.reports.flops import arithmetic_facts, flops_per_token
from trainers.sampler import RankSteps
from trainers.stopping import StopRequests
from trainers.tasks import Draws, Precomputes, Task, build_task
from trainers.thawing import all_thawed, plan_thawing
from trainers.told import choose_strategy
from trainers.trackers import SILENT, open_trackers
from trainers.warm_up import fit_micro_batch, settle_reduction_order
from trainers.world import read_world


@dataclass(frozen=True)
class Joined:
    """A rank that has found the others, and what they are going to train."""

    loaded: LoadedExperiment
    experiment: Experiment
    arithmetic: BatchArithmetic
    engine: Engine


def join(config: str, overrides: Sequence[str], strategy_file: str | None, crash: CrashReport) -> Joined:
    """Reads the experiment and joins the process group. Every rank must call this."""
    world = read_world()
    loaded = load_experiment(config, overrides)
    experiment = resolve(loaded)
    use_own_code(experiment, loaded.path)
    strategy = choose_strategy(load_strategy(strategy_file) if strategy_file else None)
    arithmetic = resolve_batches(experiment.train.global_batch_size, world.world_size, experiment.train.micro_batch_size)
    crash.phase = "joining the other ranks"
    engine = build_engine(world, strategy, choose_precision(experiment.train.precision, strategy), experiment, arithmetic)
    return Joined(loaded, experiment, arithmetic, engine)


def build_training(joined: Joined, run: RunDir, attempt: Attempt, stops: StopRequests, crash: CrashReport) -> Training:
    """Loads data and model, restores the newest checkpoint, and opens the trackers. Every rank must call this."""
    experiment, engine, arithmetic = joined.experiment, joined.engine, joined.arithmetic
    world, values = engine.world, dump_experiment(experiment)
    console = Console(world.is_main)
    stops.leave_if_asked(engine.sum_over_ranks, "joining the other ranks")
    console.say("loading data and model")
    crash.phase = "loading data"
    task = build_task(experiment)
    stops.leave_if_asked(engine.sum_over_ranks, "loading data")
    num_samples = task.num_samples["train"]
    per_epoch = steps_per_epoch(num_samples, arithmetic.global_batch_size)
    num_steps = total_steps(experiment.train.duration, num_samples, arithmetic.global_batch_size)

    crash.phase = "loading the model"
    model = build_model(task, experiment)
    engine.refuse_unless_equal(rank_facts(values, model))
    num_parameters = count_parameters(model)
    flops = flops_per_token(model, getattr(task, "head_share", 0.0)) if experiment.task.READS == "texts" else None
    once = OncePerSample(engine, stops, experiment.data.num_workers)
    kept_notes = task.precompute(once) if isinstance(task, Precomputes) else []
    task, feature_notes = use_cached_features(once, task, model, experiment)
    num_workers = 0 if isinstance(task, FeatureTask) else experiment.data.num_workers  # nothing is left to prepare
    files: ModelFiles = AdapterFiles(task, model) if experiment.model.lora else WholeModel(task)
    thawing = plan_thawing(model, experiment, engine, per_epoch, num_steps)
    newest = engine.from_main(find_newest(run) if world.is_main else None)
    watch = None if newest else RehearsalWatch(attempt, crash, world.is_main)

    def build() -> nn.Module:
        return build_model(task, experiment)

    def build_trained(prepared: nn.Module) -> Optimizer:
        return build_optimizer(prepared, experiment.optimizer, thawing.names)

    model, optimizer, arithmetic = prepare_what_fits(engine, task, model, build, build_trained, arithmetic, watch)
    schedule = build_schedule(optimizer, experiment.schedule, num_steps, per_epoch)
    average = build_average(engine, model, optimizer, experiment.train.ema_decay)
    with all_thawed(engine.unwrap(model), thawing):
        arithmetic = fit_micro_batch(engine, task, model, arithmetic)
    settle_reduction_order(engine, task, model, arithmetic.micro_batch_size)
    seed_random_states(experiment.seed, world.rank)

    checkpoints = Checkpoints(run, experiment.checkpoint, engine, task, values, files, average)
    progress = checkpoints.restore(newest, model, optimizer, schedule) if newest else Progress()
    check_end(run.path, progress.step, num_steps)
    stops.leave_if_asked(engine.sum_over_ranks, "loading the model")
    held = engine.gather_objects(engine.parameter_bytes(model))
    arithmetic_rates = arithmetic_facts(engine, flops)
    if world.is_main:
        begun = {"first_step": progress.step, "checkpoint": newest.name if newest else None, "micro_batch_size": arithmetic.micro_batch_size}
        facts = {"engine": engine.name, "strategy_file": engine.strategy_file} | arithmetic_rates | own_usage(experiment)
        write_json(attempt.start, begun | facts)
        update_status(run, world_size=world.world_size, device=engine.device.type, precision=engine.precision, total_steps=num_steps)
        update_status(run, strategy=engine.describe(), parameter_bytes=held)
    console.say(describe(engine, num_parameters, max(held), arithmetic, num_steps) + describe_features(experiment))
    if arithmetic != joined.arithmetic:
        console.say(f"micro-batch {joined.arithmetic.micro_batch_size} -> {arithmetic.micro_batch_size}: a rank has no memory for the larger")
    precision_notes = [] if os.environ.get("FULLRANK_RUN_DIR") and engine.device.type == "cpu" else engine.notes  # the launcher has said it
    for note in (*kept_notes, *feature_notes, *checkpoints.notes, *task.notes, *precision_notes):
        console.say(note)
    warning = batch_norm_warning(engine.unwrap(model), arithmetic.micro_batch_size, arithmetic.global_batch_size)
    if warning:
        console.say(warning)
    if newest:
        console.say(f"resuming from {newest.name}")
    elif attempt.number > 1:
        console.say("no whole checkpoint: training begins at step 0")
    elif not os.environ.get("FULLRANK_RUN_DIR"):  # whoever set it has said it
        console.say(f"run directory {run.path}")

    facts = {"world_size": world.world_size, "precision": engine.precision, "attempt": attempt.number, "optimizer_steps": num_steps}
    return Training(
        run=run,
        experiment=experiment,
        engine=engine,
        task=task,
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        steps=build_step_loader(
            task.dataset("train"),
            task.collate,
            RankSteps(
                num_samples,
                arithmetic,
                rank=world.rank,
                seed=experiment.seed,
                first_step=progress.step,
                total_steps=num_steps,
                lengths=task.lengths("train") if experiment.train.group_by_length else None,
                batches_of=task.global_batches if isinstance(task, Draws) else None,
            ),
            num_workers,
            pin_memory=engine.device.type == "cuda",
        ),
        evaluator=Evaluator(engine, task, stops, experiment.evaluate.batch_size or 2 * arithmetic.micro_batch_size, num_workers),
        checkpoints=checkpoints,
        trackers=open_trackers(run, experiment, facts) if world.is_main else SILENT,
        stops=stops,
        heartbeat=Heartbeat(run, crash, world.is_main),
        console=console,
        progress=progress,
        total_steps=num_steps,
        steps_per_epoch=per_epoch,
        micro_batch_size=arithmetic.micro_batch_size,
        thawing=thawing,
        average=average,
    )


def build_model(task: Task, experiment: Experiment) -> nn.Module:
    """Returns the task's model as the experiment wants it trained."""
    model = task.build_model()
    if experiment.model.lora is not None:
        model = add_adapters(model, experiment.model.lora, experiment.seed)
    use_cpu_dropout(model)
    freeze_parameters(model, experiment.model.freeze)
    if experiment.model.compile:
        model.compile(dynamic=True if meets_many_shapes(experiment.task) else None)
    return model


def meets_many_shapes(task: TaskSection) -> bool:
    """Returns whether samples differ in length: compiled for the first one that it meets, a resumed training would compute with other kernels."""
    return task.READS in ("texts", "sounds") and not isinstance(task, LanguageModelling)


def rank_facts(values: dict[str, object], model: nn.Module) -> dict[str, str]:
    """Returns what must be equal on every rank before the first step, as short texts."""
    weights = hashlib.sha256()
    for name, parameter in model.named_parameters():
        weights.update(f"{name} {tuple(parameter.shape)} {float(parameter.detach().double().sum())!r}".encode())
    config = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode())
    return {"the experiment": config.hexdigest()[:12], "the initial weights": weights.hexdigest()[:12], "torch's version": torch.__version__}


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Returns how many numbers are trained, and how many there are."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad), sum(p.numel() for p in model.parameters())


def describe(engine: Engine, num_parameters: tuple[int, int], held_bytes: int, arithmetic: BatchArithmetic, num_steps: int) -> str:
    """Returns the line that says what is about to run; `held_bytes`: the parameters in the memory of the rank that has most of them."""
    trained, total = num_parameters
    batch = f"{arithmetic.global_batch_size} = {arithmetic.micro_batch_size} x {engine.world.world_size} x {arithmetic.gradient_accumulation_steps}"
    size = f"{'' if trained == total else f'{show_count(trained)} of '}{show_count(total)} parameters"
    memory = f"{size} ({held_bytes / 1e6:.3g} MB a rank)"
    how = f"{engine.describe()} on {engine.device.type}, {engine.precision}"
    if os.environ.get("FULLRANK_RUN_DIR"):  # the launcher has said device, precision and steps
        return f"{engine.describe()}, {memory}, {batch} samples a step (micro x processes x accumulation)"
    return f"{how}, {memory}, {num_steps} steps of {batch} samples (micro x processes x accumulation)"


def describe_features(experiment: Experiment) -> str:
    """Returns what else a reader of that line should know: what is trained instead of the weights, and what is evaluated."""
    lora, decay = experiment.model.lora, experiment.train.ema_decay
    adapters = f"; LoRA adapters of rank {lora.rank} and the head are trained" if lora else ""
    return adapters + (f"; evaluated and saved: the moving average of the weights (decay {decay:g})" if decay else "")
