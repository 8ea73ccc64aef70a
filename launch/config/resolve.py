"""Derived values and rules that join several keys; pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from launch.config.durations import Duration
from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Evaluate, Experiment
from launch.config.load import LoadedExperiment
from launch.config.tasks import SquareViews
from launch.config.tasks.texts import TextsSection

LARGEST_DEFAULT_MICRO_BATCH = 64
"""Cap on a micro-batch nobody asked for. A rule of thumb until the memory estimate decides (BERT-base at 128 tokens: about 9 GiB)."""


@dataclass(frozen=True)
class BatchArithmetic:
    """global = micro x world x accumulation, exactly."""

    global_batch_size: int
    micro_batch_size: int
    gradient_accumulation_steps: int
    world_size: int


def resolve_batches(global_batch_size: int, world_size: int, micro_batch_size: int | None) -> BatchArithmetic:
    """Returns how a global batch is split; a null micro-batch becomes the largest divisor of a process's share up to the cap.

    Raises:
        ConfigError: the product cannot be met exactly; names the nearest values that can.
    """
    if global_batch_size % world_size:
        lower, upper = global_batch_size // world_size * world_size, math.ceil(global_batch_size / world_size) * world_size
        possible = " or ".join(str(n) for n in (lower, upper) if n)
        counts = ", ".join(str(n) for n in divisors(global_batch_size)[:12])
        raise ConfigError(
            Problem(
                f"{global_batch_size} samples do not split evenly over {world_size} processes",
                key="train.global_batch_size",
                allowed=f"a multiple of {world_size}, nearest {possible}; or {counts} processes",
                fix=f"train.global_batch_size={upper}",
            )
        )
    share = global_batch_size // world_size
    if micro_batch_size is None:
        micro_batch_size = max(n for n in divisors(share) if n <= LARGEST_DEFAULT_MICRO_BATCH)
    if share % micro_batch_size:
        near = min(divisors(share), key=lambda n: abs(n - (micro_batch_size or 0)))
        raise ConfigError(
            Problem(
                f"micro-batches of {micro_batch_size} do not add up to the {share} samples of a process "
                f"({global_batch_size} samples over {world_size} process{'es' if world_size > 1 else ''})",
                key="train.micro_batch_size",
                allowed=f"a divisor of {share}: {', '.join(map(str, divisors(share)))}",
                fix=f"train.micro_batch_size={near}",
            )
        )
    return BatchArithmetic(global_batch_size, micro_batch_size, share // micro_batch_size, world_size)


def steps_per_epoch(num_samples: int, global_batch_size: int) -> int:
    """Returns the optimizer steps of one epoch; the last one may be smaller."""
    return math.ceil(num_samples / global_batch_size)


def total_steps(duration: Duration, num_samples: int, global_batch_size: int) -> int:
    """Returns the optimizer steps of the whole training."""
    return duration.in_steps(steps_per_epoch(num_samples, global_batch_size))


def resolve(loaded: LoadedExperiment) -> Experiment:
    """Returns the experiment with its derived defaults set, after checking the rules that join several keys.

    Raises:
        ConfigError: with every broken rule at once.
    """
    experiment = loaded.experiment
    problems = [problem for rule in RULES for problem in rule(loaded)]
    if problems:
        raise ConfigError(*problems)
    wandb = experiment.tracking.wandb
    tracking = experiment.tracking.model_copy(update={"wandb": wandb.model_copy(update={"project": wandb.project or "fullrank"})})
    evaluate = experiment.evaluate.model_copy(update={"mode": _mode(experiment)})
    return experiment.model_copy(update={"tracking": tracking, "evaluate": evaluate})


def has_validation(experiment: Experiment) -> bool:
    """Returns whether there is a validation split, named or cut from train."""
    return "validation" in experiment.data.split_names()


def checkpoint_interval(experiment: Experiment) -> Duration | None:
    """Returns how often a checkpoint is written: as set, or at each evaluation."""
    return experiment.checkpoint.every or experiment.evaluate.every


def _mode(experiment: Experiment) -> str:
    metrics = experiment.task.metrics()
    return experiment.evaluate.mode if metrics is None else metrics[experiment.evaluate.metric]


def _model_problems(loaded: LoadedExperiment) -> list[Problem]:
    """A model has one origin, and what belongs to another kind of model is not ignored."""
    model, task = loaded.experiment.model, loaded.experiment.task
    problems = []
    if model.source is None and model.class_ is None:
        allowed = "where the pretrained model is, or model.class for a class of your own"
        problems.append(loaded.problem("model.source", "the key is missing", allowed=allowed))
    if model.source is not None and model.class_ is not None:
        fix = "model.source=null; a class starts from model.weights, a file or runs/<a run>"
        problems.append(loaded.problem("model.source", f"is set beside model.class {model.class_}, and one model has one origin", fix=fix))
    for key, source in {"model.source": model.source, "model.weights": model.weights, **task.sources()}.items():
        if source is not None and source.startswith("stages."):
            what = f"{source!r} is the model of a pipeline's stage, which a pipeline's overrides alone name"
            problems.append(loaded.problem(key, what, fix=f"a line '{key}: {source}' in the overrides of the pipeline's file"))
    if model.kwargs and model.class_ is None:
        problems.append(loaded.problem("model.kwargs", "only a model.class is built with them", fix="delete them"))
    if model.key_map and model.weights is None:
        problems.append(loaded.problem("model.key_map", "renames what stands in model.weights, which is not set", fix="model.weights=FILE"))
    if model.weights is not None and model.source is not None and not model.source.startswith("torchvision://"):
        what = f"{model.source} brings its own weights"
        problems.append(loaded.problem("model.weights", what, allowed="only with model.class or a torchvision:// source", fix="model.weights=null"))
    if task.READS in ("sounds", "tables") and model.source is not None:
        problems.append(loaded.problem("model.source", f"{task.kind} trains a network of a class", fix="model.source=null model.class=MODULE:NAME"))
    if model.config is not None and (task.READS != "texts" or model.source is None):
        problems.append(loaded.problem("model.config", f"only a model of texts with a tokenizer from model.source has one, not {task.kind}"))
    if model.config is not None and not isinstance(model.config.get("model_type"), str):
        problems.append(loaded.problem("model.config", "does not say which type of model", allowed="model_type: gpt2, bert, ... and its values"))
    if task.READS == "texts":
        if (model.source or "").startswith("torchvision://"):
            problems.append(loaded.problem("model.source", f"{model.source} is a network for pictures", allowed="a model of texts"))
        problems += [
            loaded.problem(key, f"has no meaning for {task.kind}", fix="delete it")
            for key, is_set in {"model.class": model.class_ is not None, "model.head": model.head is not None}.items()
            if is_set
        ]
    return problems


def _lora_problems(loaded: LoadedExperiment) -> list[Problem]:
    """Adapters rest on pretrained weights of transformers, all of which are frozen."""
    model = loaded.experiment.model
    if model.lora is None:
        return []
    problems = []
    if model.source is None or model.source.startswith("torchvision://"):
        what = f"adapts a pretrained model of transformers, and this is {model.class_ or model.source}"
        problems.append(loaded.problem("model.lora", what, fix="model.lora=null; model.freeze trains a part of any model"))
    if model.freeze:
        what = "has no meaning beside model.lora, which freezes all but the adapters and the head"
        problems.append(loaded.problem("model.freeze", what, fix="model.freeze=[]"))
    return problems


def _task_problems(loaded: LoadedExperiment) -> list[Problem]:
    """The task's own options fit together."""
    experiment = loaded.experiment
    return [loaded.problem(one.key or "task", one.what, one.allowed, one.fix) for one in experiment.task.problems(experiment.data)]


def _target_problems(loaded: LoadedExperiment) -> list[Problem]:
    """What only classes have is not ignored."""
    task, smoothing = loaded.experiment.task, loaded.experiment.train.label_smoothing
    if task.SMOOTHS_LABELS or not smoothing:
        return []
    return [loaded.problem("train.label_smoothing", f"has no meaning for {task.kind}", fix="train.label_smoothing=0.0")]


def _packing_problems(loaded: LoadedExperiment) -> list[Problem]:
    """Packed texts have one vector each where the library's own head reads its first token, and nowhere else."""
    task = loaded.experiment.task
    if not isinstance(task, TextsSection) or not task.packing or task.pooling is None:
        return []
    return [loaded.problem("task.packing", "reads the library's own head, and task.pooling puts another in its place", fix="task.packing=false")]


def _freezing_problems(loaded: LoadedExperiment) -> list[Problem]:
    """Something is trained from the start, and only what is frozen can thaw, before the end."""
    freeze, train, key = loaded.experiment.model.freeze, loaded.experiment.train, "train.unfreeze_at"
    problems = []
    if "*" in freeze:
        what = "'*' freezes every parameter: nothing is left to train"
        problems.append(loaded.problem("model.freeze", what, fix="leave the head out of the patterns"))
    if train.unfreeze_at and not freeze:
        problems.append(loaded.problem(key, "nothing is frozen that could thaw", fix="model.freeze=[PATTERN, ...], or train.unfreeze_at={}"))
    late = [when for when in train.unfreeze_at if when.unit == train.duration.unit and when.amount >= train.duration.amount]
    problems += [loaded.problem(key, f"{when} never comes: training ends after {train.duration}", allowed="an earlier time") for when in late]
    never = [pattern for patterns in train.unfreeze_at.values() for pattern in patterns if not any(_may_meet(pattern, other) for other in freeze)]
    twice = _thawed_twice(train.unfreeze_at)
    problems += [loaded.problem(key, f"{pattern!r} has thawed before {when}", fix="delete one of the two") for when, pattern in twice]
    allowed = f"parts of what model.freeze freezes: {', '.join(freeze)}"
    problems += [loaded.problem(key, f"{pattern!r} matches nothing that model.freeze freezes", allowed) for pattern in never if freeze]
    return problems


def _thawed_twice(unfreeze_at: Mapping[Duration, Sequence[str]]) -> Iterator[tuple[Duration, str]]:
    """Yields the patterns whose every name has thawed earlier; nothing where times are of several units, which only the data put in order."""
    thawed: list[str] = []
    if len({when.unit for when in unfreeze_at}) == 1:
        for when, patterns in sorted(unfreeze_at.items(), key=lambda item: item[0].amount):
            yield from ((when, pattern) for pattern in patterns if any(fnmatchcase(pattern, earlier) for earlier in thawed))
            thawed += patterns


def _may_meet(pattern: str, other: str) -> bool:
    """Returns whether some name may match both shell patterns, as far as the letters before their first wildcard tell."""
    first, second = (re.split(r"[*?\[]", text, maxsplit=1)[0] for text in (pattern, other))
    return first.startswith(second) or second.startswith(first)


def _image_problems(loaded: LoadedExperiment) -> list[Problem]:
    """The options of a picture's way into the network fit together."""
    task = loaded.experiment.task
    if not isinstance(task, SquareViews):
        return []
    problems = []
    for key, values in {"task.mean": task.mean, "task.std": task.std}.items():
        if values is not None and len(values) != task.channels:
            what = f"{len(values)} numbers, but the network sees {task.channels} channel{'s' if task.channels > 1 else ''}"
            problems.append(loaded.problem(key, what, fix=f"{key}=null, or a list of {task.channels}"))
    if (task.mean is None) != (task.std is None):
        problems.append(loaded.problem("task.mean", "mean and std belong together", fix="task.mean=null and task.std=null for the weights' own"))
    if task.resize is not None and task.resize < task.size:
        problems.append(
            loaded.problem("task.resize", f"{task.resize} pixels, and a square of {task.size} is cut out of them", fix=f"task.resize={task.size}")
        )
    if task.padding and task.crop != "random":
        problems.append(loaded.problem("task.padding", f"has no meaning for task.crop {task.crop}", fix="task.crop=random"))
    if task.scale[0] > task.scale[1]:
        problems.append(loaded.problem("task.scale", f"{task.scale[0]} is above {task.scale[1]}", allowed="the smaller share first"))
    return problems


def _column_problems(loaded: LoadedExperiment) -> list[Problem]:
    """Each column has one part to play, and each name stands once."""
    task, data = loaded.experiment.task, loaded.experiment.data
    columns, problems = task.columns(), []
    roles: dict[str, str] = {}
    for key, names in columns.items():
        for name in names:
            first = roles.setdefault(name, key)
            if first != key:
                what = f"{name!r} is the column of the {first.removeprefix('task.')} too"
                problems.append(loaded.problem(key, what, allowed=f"another column than {first}"))
    lists = columns | {"task.label_names": getattr(task, "label_names", None) or [], "data.columns": data.columns or []}
    for key, names in lists.items():
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        problems += [loaded.problem(key, f"{name!r} stands {names.count(name)} times", allowed="each name once") for name in twice]
    return problems


def _metric_problems(loaded: LoadedExperiment) -> list[Problem]:
    evaluate: Evaluate = loaded.experiment.evaluate
    metrics = loaded.experiment.task.metrics()
    if metrics is None:
        return []
    if evaluate.metric not in metrics:
        return [
            loaded.problem("evaluate.metric", f"{evaluate.metric!r} is not a metric of {loaded.experiment.task.kind}", allowed=", ".join(metrics))
        ]
    if evaluate.mode != metrics[evaluate.metric] and loaded.origins["evaluate.mode"].kind != "default":
        right = metrics[evaluate.metric]
        return [
            loaded.problem("evaluate.mode", f"{evaluate.mode!r}, but a better {evaluate.metric} is the {right}imum", fix=f"evaluate.mode={right}")
        ]
    return []


def _split_problems(loaded: LoadedExperiment) -> list[Problem]:
    experiment, problems = loaded.experiment, []
    data, splits = experiment.data, experiment.data.splits
    for split, named, fraction in (("validation", splits.validation, data.validation_fraction), ("test", splits.test, data.test_fraction)):
        if named is not None and fraction is not None:
            problems.append(
                loaded.problem(
                    f"data.{split}_fraction",
                    f"the {split} split is {named!r} (data.splits.{split}) and cut from train, both",
                    fix=f"data.splits.{split}=null to cut it, or data.{split}_fraction=null",
                )
            )
    if (data.validation_fraction or 0) + (data.test_fraction or 0) >= 1:
        problems.append(loaded.problem("data.validation_fraction", "with data.test_fraction it leaves nothing to train on", allowed="a sum below 1"))
    if not has_validation(experiment):
        wanting = {
            "evaluate.early_stopping": experiment.evaluate.early_stopping is not None,
            "schedule.name": experiment.schedule.name == "plateau",
        }
        for key, wanted in wanting.items():
            if wanted:
                problems.append(loaded.problem(key, "needs a validation split", fix="data.validation_fraction=0.1"))
    if has_validation(experiment) and experiment.evaluate.test == "best" and not experiment.checkpoint.keep_best:
        problems.append(
            loaded.problem(
                "checkpoint.keep_best", "the best checkpoint is wanted at the end (evaluate.test: best) and not kept", fix="evaluate.test=last"
            )
        )
    return problems


def _optimizer_problems(loaded: LoadedExperiment) -> list[Problem]:
    """A setting that cannot take effect is an error."""
    optimizer, schedule, problems = loaded.experiment.optimizer, loaded.experiment.schedule, []
    unused = {"sgd": ("betas", "eps"), "adam": ("momentum", "nesterov"), "adamw": ("momentum", "nesterov")}[optimizer.name]
    for key in unused:
        if _is_set(loaded, f"optimizer.{key}"):
            problems.append(
                loaded.problem(f"optimizer.{key}", f"has no meaning for {optimizer.name}", fix="delete it, or choose another optimizer.name")
            )
    if optimizer.nesterov and not optimizer.momentum:
        problems.append(loaded.problem("optimizer.nesterov", "needs a momentum", fix="optimizer.momentum=0.9"))
    if schedule.name == "plateau" and schedule.warmup:
        problems.append(loaded.problem("schedule.warmup", "has no meaning for plateau", fix="schedule.warmup=null"))
    meaning = {
        "decay": ("wsd",),
        "power": ("polynomial",),
        "min_lr_ratio": ("cosine", "polynomial", "wsd"),
        "patience": ("plateau",),
        "factor": ("plateau",),
    }
    for key, names in meaning.items():
        if _is_set(loaded, f"schedule.{key}") and schedule.name not in names:
            problems.append(
                loaded.problem(f"schedule.{key}", f"has no meaning for {schedule.name}", allowed=f"only with schedule.name {' or '.join(names)}")
            )
    return problems


RULES: tuple[Callable[[LoadedExperiment], list[Problem]], ...] = (
    _model_problems,
    _lora_problems,
    _task_problems,
    _target_problems,
    _packing_problems,
    _column_problems,
    _image_problems,
    _freezing_problems,
    _metric_problems,
    _split_problems,
    _optimizer_problems,
)


def _is_set(loaded: LoadedExperiment, key: str) -> bool:
    """Returns whether somebody chose the value: set, and not to what the default is (a resolved.yaml sets everything)."""
    section, name = key.split(".")
    model = getattr(loaded.experiment, section)
    return loaded.origins[key].kind != "default" and getattr(model, name) != type(model).model_fields[name].default


def divisors(number: int) -> list[int]:
    """Returns every whole number that divides `number`, ascending."""
    small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
    return sorted({*small, *(number // n for n in small)})
