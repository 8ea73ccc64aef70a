"""LoRA through peft: small trained matrices beside frozen weights (Hu et al. 2021, arXiv:2106.09685), and how they lie in files."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from launch.config.errors import ConfigError, Problem, install_words
from launch.config.experiment import Lora
from launch.config.lora import USUAL_TARGETS, is_target, layer_kinds, rank_above
from trainers.checkpoints.restoring import SavedWeights
from trainers.models.skeleton import without_weights
from trainers.tasks import Task

ADAPTER = "adapter"
_ADAPTER_FILE = "adapter_model.safetensors"


def add_adapters(model: Any, options: Lora, seed: int) -> Any:
    """Returns the model as a PeftModel: adapters in the target layers and the head are trained, everything else is frozen.

    Args:
        model: of transformers; its new weights (a head, a pooler) are trained whole.
        seed: of the adapters' weights; they change nothing before the first step.

    Raises:
        ConfigError: peft is missing, or a target is no layer of the model; names those that are.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ConfigError(Problem(f"peft cannot be imported: {error}", key="model.lora", fix=install_words("lora"))) from error
    if not hasattr(model, "base_model_prefix"):
        what = f"{type(model).__name__} is no model of transformers, with a body and a head"
        raise ConfigError(Problem(what, key="model.lora", fix="model.lora=null"))
    heads = new_modules(model)
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=find_targets(model, options, heads),
        exclude_modules=[name for head in heads for name, _ in model.get_submodule(head).named_modules(prefix=head)] or None,
        modules_to_save=heads or None,
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # peft 0.21 asks transformers 5 by its old name
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def find_targets(model: Any, options: Lora, heads: list[str]) -> list[str]:
    """Returns the ends of the names of the layers to adapt.

    Raises:
        ConfigError: nobody knows which, one matches nothing, or the rank is above the smaller side of a layer's matrix.
    """
    matrices = {name: tuple(module.weight.shape) for name, module in model.named_modules() if _is_linear(module) and not _is_inside(name, heads)}
    linear = list(matrices)
    kind = getattr(getattr(model, "config", None), "model_type", None)
    targets = options.targets or USUAL_TARGETS.get(str(kind))
    allowed = ", ".join(layer_kinds(linear))
    if targets is None:
        raise ConfigError(Problem(f"nobody knows the usual layers of a model of the type {kind!r}", key="model.lora.targets", allowed=allowed))
    problems = [
        Problem(f"{target!r} is no linear layer of {type(model).__name__}", key="model.lora.targets", allowed=allowed)
        for target in targets
        if not any(is_target(name, [target]) for name in linear)
    ]
    if too_large := rank_above(options.rank, {name: shape for name, shape in matrices.items() if is_target(name, targets)}):
        what, largest = too_large
        problems.append(Problem(what, key="model.lora.rank", allowed=f"1 to {largest}", fix=f"model.lora.rank={min(8, largest)}"))
    if problems:
        raise ConfigError(*problems)
    return list(targets)


def new_modules(model: Any) -> list[str]:
    """Returns the names of the modules that are trained whole: the head of a task, and what the pretrained weights lack.

    A head that gives words (its output embeddings) is as pretrained as the body, and often tied to it: it stays.
    """
    words = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    heads = [
        name
        for name, child in model.named_children()
        if name != model.base_model_prefix and any(True for _ in child.parameters()) and not any(module is words for module in child.modules())
    ]
    lacking = [name.rpartition(".")[0] for name in getattr(model, "new_tensors", ())]
    return heads + [name for name in dict.fromkeys(lacking) if name and not _is_inside(name, heads) and model.get_submodule(name) is not words]


class AdapterFiles:
    """Checkpoints hold the adapter in peft's own format; the result is the merged model, and the adapter beside it."""

    def __init__(self, task: Task, model: Any) -> None:
        """Args: model: a PeftModel with its weights, before an engine divides it."""
        self._task = task
        self._names = adapter_names(model)
        self.foundation: str | None = fingerprint({n: p for n, p in model.named_parameters() if n not in self._names})

    def write(self, module: Any, folder: Path, weights: Mapping[str, Tensor]) -> None:
        module.save_pretrained(folder, state_dict=dict(weights), save_embedding_layers=False)

    def open(self, folder: Path) -> SavedWeights:
        return SavedWeights(folder / _ADAPTER_FILE, self._names, is_part=True)

    def export(self, module: Any, folder: Path, weights: Mapping[str, Tensor]) -> None:
        whole = merged(module, weights)
        self._task.save(whole, folder, whole.state_dict())
        self.write(module, folder / ADAPTER, weights)


def adapter_names(model: Any) -> dict[str, str]:
    """Returns {name of a trained tensor in the model: its name in peft's file}, as peft itself names them."""
    from peft import get_peft_model_state_dict

    names: Any = {name: name for name in model.state_dict()}
    in_file: Mapping[str, str] = get_peft_model_state_dict(model, state_dict=names, save_embedding_layers=False)
    return {name: file_name for file_name, name in in_file.items()}


def merged(module: Any, weights: Mapping[str, Tensor]) -> nn.Module:
    """Returns the library's own model with the adapters added to its weights by peft, in host memory; `weights` stay as they are."""
    model: Any = without_weights(module)
    copies = {name: tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else None, copy=True) for name, tensor in weights.items()}
    model.load_state_dict(copies, assign=True)
    whole: nn.Module = model.merge_and_unload()
    return whole


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Returns a short text that equal tensors share; sums of their bits, so that neither threads nor order matter."""
    bits = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        bits.update(f"{name} {tuple(tensor.shape)} {int(tensor.detach().contiguous().view(torch.int32).sum(dtype=torch.int64))}".encode())
    return bits.hexdigest()[:16]


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"  # GPT-2's name for a linear layer


def _is_inside(name: str, modules: list[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)
