"""DeepSpeed's own configuration: read and checked, every "auto" of it resolved."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.config.deepspeed_keys import FOLLOW_HIDDEN_SIZE, HONOURED, REFUSED
from launch.config.errors import ConfigError, Problem, suggest
from launch.config.experiment import Experiment, Precision
from launch.config.resolve import BatchArithmetic
from launch.config.sharding import DeepSpeed


@dataclass(frozen=True)
class DeepSpeedFacts:
    """What is decided elsewhere and a DeepSpeed file may not contradict.

    Args:
        hidden_size: width of the model, which "auto" bucket sizes follow; None: unknown, DeepSpeed's own defaults are written.
        num_parameters: of the model: buckets that nobody set need not be larger; None: unknown.
    """

    experiment: Experiment
    batches: BatchArithmetic
    precision: Precision
    hidden_size: int | None = None
    num_parameters: int | None = None


def read_deepspeed(path: Path) -> DeepSpeed:
    """Returns the configuration in a DeepSpeed JSON file, its keys checked.

    Raises:
        ConfigError: unreadable, not JSON, a key that stands twice, or as check_deepspeed.
    """
    twice: list[str] = []

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in found]
        twice.extend(name for name in dict.fromkeys(names) if names.count(name) > 1)
        return dict(found)

    try:
        config = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=pairs)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(Problem(f"cannot be read: {getattr(error, 'strerror', None) or error}", str(path))) from error
    except json.JSONDecodeError as error:
        raise ConfigError(Problem(f"not valid JSON: {error.msg}", f"{path}:{error.lineno}")) from error
    if not isinstance(config, dict):
        raise ConfigError(Problem("the file is not one {...} of keys", str(path)))
    if twice:
        raise ConfigError(*(Problem("the key stands twice", str(path), name, fix="delete one of the two") for name in twice))
    deepspeed = DeepSpeed(config, str(path), {})
    check_deepspeed(deepspeed)
    return deepspeed


def check_deepspeed(deepspeed: DeepSpeed) -> None:
    """Refuses keys DeepSpeed does not know, keys that cannot take effect here, and values that contradict one another.

    Raises:
        ConfigError: with every problem at once.
    """
    problems = [*_key_problems(deepspeed, deepspeed.config, HONOURED, ""), *_contradictions(deepspeed)]
    if problems:
        raise ConfigError(*problems)


def resolve_deepspeed(deepspeed: DeepSpeed, facts: DeepSpeedFacts) -> dict[str, Any]:
    """Returns the configuration as deepspeed.initialize takes it: numbers only, without an optimizer section (the experiment's is built).

    Raises:
        ConfigError: the file says other batch sizes, clipping, precision or optimizer than the experiment; names both places.
    """
    decided = _decided(facts)
    problems = [problem for key, (value, says) in decided.items() for problem in _disagreement(deepspeed, key, value, says)]
    problems += _optimizer_problems(deepspeed, facts.experiment)
    if deepspeed.stage == 0:
        where, key = deepspeed.place("zero_optimization.stage")
        what = "stage 0 divides nothing, and DeepSpeed reports no norm of its gradients"
        problems.append(Problem(what, where, key, allowed="1, 2, 3", fix="--strategy ddp, which does the same"))
    if deepspeed.stage == 3 and facts.experiment.train.ema_decay is not None:
        where, _ = deepspeed.place("zero_optimization.stage")
        what = "DeepSpeed's stage 3 has no way to lend the model other weights for an evaluation and take them back"
        problems.append(Problem(what, where, "train.ema_decay", fix="--strategy fsdp2, which divides as much; or train.ema_decay=null"))
    if problems:
        raise ConfigError(*problems)
    config = _without_auto({key: value for key, value in deepspeed.config.items() if key != "optimizer"}, HONOURED, "", facts.hidden_size)
    for key, (value, _) in decided.items():
        block, _, name = key.rpartition(".")
        (config.setdefault(block, {}) if block else config)[name] = value
    zero = config.setdefault("zero_optimization", {})
    for name in ("reduce_bucket_size", "allgather_bucket_size") if facts.num_parameters else ():
        zero.setdefault(name, min(HONOURED["zero_optimization"][name], facts.num_parameters))
    for name in ("steps_per_print", "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer"):
        config.setdefault(name, HONOURED[name])
    return {name: config[name] for name in HONOURED if name in config}


def _decided(facts: DeepSpeedFacts) -> dict[str, tuple[Any, str]]:
    """Returns {dotted key: (its one possible value, what decides it)}."""
    batches, train = facts.batches, facts.experiment.train
    product = f"{batches.global_batch_size} = {batches.micro_batch_size} x {batches.world_size} x {batches.gradient_accumulation_steps}"
    return {
        "train_batch_size": (batches.global_batch_size, f"train.global_batch_size is {batches.global_batch_size}"),
        "train_micro_batch_size_per_gpu": (batches.micro_batch_size, f"the micro-batch is {batches.micro_batch_size} ({product})"),
        "gradient_accumulation_steps": (
            batches.gradient_accumulation_steps,
            f"{batches.gradient_accumulation_steps} micro-batches are accumulated ({product})",
        ),
        "gradient_clipping": (train.gradient_clip_norm or 0.0, f"train.gradient_clip_norm is {train.gradient_clip_norm or 'null'}"),
        "fp16.enabled": (facts.precision == "fp16", f"the precision is {facts.precision}"),
        "bf16.enabled": (facts.precision in ("bf16", "fp8"), f"the precision is {facts.precision}"),
    }


def _disagreement(deepspeed: DeepSpeed, key: str, value: Any, says: str) -> Iterator[Problem]:
    written = value_at(deepspeed.config, key)
    if written is not None and written != "auto" and written != value:
        where, name = deepspeed.place(key)
        yield Problem(
            f"{written!r}, but {says}", where, name, allowed=f'"auto", {json.dumps(value)}, or without the key', fix="change one of the two"
        )


def _optimizer_problems(deepspeed: DeepSpeed, experiment: Experiment) -> Iterator[Problem]:
    """An optimizer section must be the experiment's optimizer: that one is built, once, with its groups of parameters."""
    section = deepspeed.config.get("optimizer")
    if section is None:
        return
    optimizer, params = experiment.optimizer, dict(section.get("params") or {})
    is_adamw = str(section.get("type")).lower() == "adamw" or params.pop("adam_w_mode", True)
    name = {"adamw": "adamw", "adam": "adamw" if is_adamw else "adam", "sgd": "sgd"}.get(str(section.get("type")).lower())
    params.pop("torch_adam", None)
    if name != optimizer.name:
        where, key = deepspeed.place("optimizer.type")
        yield Problem(
            f"{section.get('type')!r} (DeepSpeed's {name or 'own'}), but optimizer.name is {optimizer.name}",
            where,
            key,
            allowed="the experiment's optimizer, or no optimizer section",
            fix="delete the section; optimizer.name, optimizer.lr, ... say it" + (f"; or optimizer.name={name}" if name else ""),
        )
    own = {"lr": optimizer.lr, "weight_decay": optimizer.weight_decay, "betas": list(optimizer.betas), "eps": optimizer.eps}
    own |= {"momentum": optimizer.momentum, "nesterov": optimizer.nesterov}
    for param, written in params.items():
        where, key = deepspeed.place(f"optimizer.params.{param}")
        if param not in own:
            near = suggest(param, own)
            what = "is not an option of the experiment's optimizer" + (f"; did you mean {near!r}?" if near else "")
            yield Problem(what, where, key, allowed=", ".join(own), fix="delete it")
        elif written not in ("auto", own[param]):
            yield Problem(f"{written!r}, but optimizer.{param} is {own[param]}", where, key, allowed='"auto", or equal', fix="change one of the two")


def _key_problems(deepspeed: DeepSpeed, block: Mapping[str, Any], known: Mapping[str, Any], prefix: str) -> Iterator[Problem]:
    for name, value in block.items():
        key = f"{prefix}{name}"
        where, shown = deepspeed.place(key)
        if key in REFUSED:
            yield Problem("cannot be honoured", where, shown, fix=REFUSED[key])
        elif key == "optimizer":
            if not isinstance(value, dict) or not isinstance(value.get("type"), str):
                yield Problem(f"{value!r} names no type of optimizer", where, shown, fix='delete it, or {"type": "AdamW", "params": {...}}')
        elif name not in known:
            near = suggest(name, [*known, *(other.removeprefix(prefix) for other in REFUSED)])
            what = "DeepSpeed has no such key" + (f"; did you mean {near!r}?" if near else "")
            yield Problem(what, where, shown, allowed=None if near else ", ".join(known))
        elif isinstance(known[name], dict) and value is not None:
            if isinstance(value, dict):
                yield from _key_problems(deepspeed, value, known[name], f"{key}.")
            else:
                yield Problem(f"{value!r} stands where a block of keys is expected", where, shown, allowed=", ".join(known[name]))
        elif not _fits(value, known[name]):
            kind = type(known[name]).__name__.replace("str", "word").replace("int", "whole number").replace("bool", "true or false")
            yield Problem(f"{value!r} is not possible", where, shown, allowed=f'{kind}, or "auto"')


def _fits(value: Any, default: Any) -> bool:
    if default is None or value is None or value == "auto":
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, int):
        return isinstance(value, int | float) and value == int(value)
    return isinstance(value, int | float) if isinstance(default, float) else isinstance(value, type(default))


def _contradictions(deepspeed: DeepSpeed) -> Iterator[Problem]:
    """What DeepSpeed would refuse or ignore at the start of the training, by rules of its own."""
    config = deepspeed.config
    zero = config.get("zero_optimization")
    zero = zero if isinstance(zero, dict) else {}
    stage = zero.get("stage", 0)
    if stage not in (0, 1, 2, 3) or isinstance(stage, bool):
        yield Problem(f"{stage!r} is not a stage of ZeRO", *deepspeed.place("zero_optimization.stage"), allowed="0, 1, 2, 3")
        return
    for name, stages in (("offload_optimizer", (1, 2, 3)), ("offload_param", (3,))):
        block = zero.get(name)
        block = block if isinstance(block, dict) else {}
        device = block.get("device", "none")
        place = deepspeed.place(f"zero_optimization.{name}.device")
        if device not in ("none", "cpu", "nvme"):
            yield Problem(f"{device!r} is not possible", *place, allowed="none, cpu, nvme")
        elif device != "none" and stage not in stages:
            yield Problem(f"{device!r} has no effect at stage {stage}", *place, allowed=f"stage {' or '.join(map(str, stages))}")
        elif device == "nvme" and stage != 3:
            yield Problem("nvme needs stage 3", *place, fix="stage 3, or device cpu")
        elif device == "nvme" and not block.get("nvme_path"):
            yield Problem("nvme needs a folder on that disk", *deepspeed.place(f"zero_optimization.{name}"), fix='"nvme_path": "/local_nvme"')
    halves = [name for name in ("fp16", "bf16") if isinstance(config.get(name), dict) and config[name].get("enabled") is True]
    if len(halves) == 2:
        yield Problem("fp16 and bf16 are both enabled", *deepspeed.place("bf16.enabled"), allowed="one of them")


def _without_auto(block: Mapping[str, Any], known: Mapping[str, Any], prefix: str, hidden_size: int | None) -> dict[str, Any]:
    """Returns a block with each "auto" replaced by its number; what only DeepSpeed itself can fill is left out."""
    resolved: dict[str, Any] = {}
    for name, value in block.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and isinstance(known.get(name), dict):
            resolved[name] = _without_auto(value, known[name], f"{key}.", hidden_size)
            continue
        if value == "auto":
            value = _automatic(key, known[name], hidden_size)
        if value is not None:
            resolved[name] = int(value) if isinstance(known[name], int) and isinstance(value, float) else value
    return resolved


def _automatic(key: str, default: Any, hidden_size: int | None) -> Any:
    factor = FOLLOW_HIDDEN_SIZE.get(key)
    if factor is None or hidden_size is None:
        return default
    return int(factor * hidden_size * (1 if key.endswith("threshold") else hidden_size))


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """Returns the value behind a dotted key, None where there is none."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
