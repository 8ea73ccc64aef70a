"""Networks in 8-bit integers for CPUs: linear layers whose inputs are rounded as they come (dynamic quantisation), and embeddings.

Symmetric, one scale a row: the largest value of an embedding's row becomes 127, that of a linear layer's row 63, because AVX2 adds two products of
a weight and an 8-bit input in 16 bits (2 x 63 x 255 < 2^15). A linear layer rounds what it is given, multiplies
integers and gives back float32 (FBGEMM, the kernels behind torch's quantize_dynamic); an embedding gives back its rows in float32.
torch 2.15 has no other int8 product for CPUs without VNNI that is faster than float32: torch._int_mm, which torchao builds on, took 51 to 67 times
as long (384 x 1536, 24 and 192 rows, AVX2).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from launch.config.errors import ConfigError, Problem
from launch.config.run_dir import read_json

INT8_FILE = "int8.safetensors"
"""Beside config.json and the tokenizer's files: every tensor; those of a layer in int8 are its weight and its scale."""

_SCALE = "scale"
_LARGEST_OF_ROW = {nn.Linear: 63, nn.Embedding: 127}


class Int8Linear(nn.Module):
    """A linear layer without gradients: int8 weights [out, in], a float32 scale a row [out], the inputs rounded to 8 bits at each call."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, in_features: int, out_features: int, has_bias: bool) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer("weight", torch.zeros(out_features, in_features, dtype=torch.int8))
        self.register_buffer(_SCALE, torch.ones(out_features))
        self.register_buffer("bias", torch.zeros(out_features) if has_bias else None)
        self._packed: Any = None

    def forward(self, inputs: Tensor) -> Tensor:
        if self._packed is None:
            self._packed = _pack(self.weight, self.scale, self.bias)
        # torch's own layer takes 8 bits for weights and 7 for inputs (reduce_range), whose outliers need the bit more.
        product: Tensor = torch.ops.quantized.linear_dynamic(inputs.float(), self._packed, reduce_range=False)
        return product

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_packed": None}


class Int8Embedding(nn.Module):
    """A table without gradients: int8 rows [N, D], a float32 scale a row [N]."""

    weight: Tensor
    scale: Tensor

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        self.register_buffer("weight", torch.zeros(num_embeddings, embedding_dim, dtype=torch.int8))
        self.register_buffer(_SCALE, torch.ones(num_embeddings))

    def forward(self, ids: Tensor) -> Tensor:
        rows: Tensor = self.weight[ids].float() * self.scale[ids][..., None]
        return rows


def quantize(network: nn.Module) -> list[str]:
    """Replaces the linear layers and embeddings of a network, on the CPU, and returns their names; whatever else it has stays in float32."""
    found = [(name, layer) for name, layer in network.named_modules() if type(layer) in _LARGEST_OF_ROW]
    for name, layer in found:
        scale, weight = round_rows(layer.weight.detach().float(), _LARGEST_OF_ROW[type(layer)])
        new = _stand_in(layer)
        tensors = {"weight": weight, _SCALE: scale} | ({"bias": layer.bias.detach().float()} if getattr(layer, "bias", None) is not None else {})
        new.load_state_dict(tensors)
        _replace(network, name, new)
    return [name for name, _ in found]


def round_rows(weight: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """Returns (scale, float32 [N]; rows, int8 [N, D]) of float32 [N, D]: rows * scale is at most half a scale away from each value."""
    scale = weight.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / largest
    return scale, (weight / scale[:, None]).round().clamp(-largest, largest).to(torch.int8)


def save_int8(network: nn.Module, folder: Path) -> Path:
    """Writes every tensor of a quantised network; returns the file."""
    from safetensors.torch import save_file

    path = folder / INT8_FILE
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path, metadata={"format": "pt"})
    return path


def load_int8(folder: str | Path) -> Any:
    """Returns the model that `fullrank export` wrote, in evaluation mode: one of transformers, whose pipelines take it, or a PooledNetwork.

    Raises:
        ConfigError: fullrank export did not write this folder, or its config.json is damaged.
    """
    from safetensors.torch import load_file

    path = Path(folder) / INT8_FILE
    if not path.is_file():
        raise ConfigError(Problem(f"has no {INT8_FILE}", where=str(folder), fix="fullrank export RUN writes such a folder"))
    tensors = load_file(path)
    network = _build(Path(folder), tensors)
    for name in (name.removesuffix(f".{_SCALE}") for name in tensors if name.endswith(f".{_SCALE}")):
        if tensors[f"{name}.weight"].dtype == torch.int8:
            _replace(network, name, _stand_in(network.get_submodule(name)))
    network.load_state_dict(tensors)
    return network.eval()


def read_config(folder: Path) -> dict[str, Any]:
    """Returns the config.json of a model's folder.

    Raises:
        ConfigError: it is damaged, or names no network that could be built.
    """
    import transformers

    from trainers.models import multihead, pooled

    file = folder / "config.json"
    facts, fix = read_json(file), "a copy of the file, e.g. that of a checkpoint of the run"
    if facts is None:
        raise ConfigError(Problem("is not whole: it holds no JSON object", where=str(file), fix=fix))
    names = facts.get("architectures")
    is_named = isinstance(names, list) and len(names) == 1 and isinstance(names[0], str) and hasattr(transformers, names[0])
    if not is_named and pooled.CONFIG_KEY not in facts and multihead.CONFIG_KEY not in facts:
        raise ConfigError(Problem(f"names no class of transformers: {names!r}", where=str(file), key="architectures", fix=fix))
    return facts


def _build(folder: Path, tensors: Mapping[str, Tensor]) -> Any:
    """Returns a network of the folder's class with any weights."""
    import transformers

    from trainers.models import multihead, pooled

    facts = read_config(folder)
    if pooled.CONFIG_KEY in facts:
        return pooled.empty_network(folder, len(tensors["head.bias"]))
    if multihead.CONFIG_KEY in facts:
        return multihead.empty_network(folder)
    return getattr(transformers, facts["architectures"][0])(transformers.AutoConfig.from_pretrained(folder))


def _stand_in(layer: Any) -> Int8Linear | Int8Embedding:
    """Returns the 8-bit layer of the same size, still empty."""
    if isinstance(layer, nn.Linear):
        return Int8Linear(layer.in_features, layer.out_features, layer.bias is not None)
    return Int8Embedding(layer.num_embeddings, layer.embedding_dim, layer.padding_idx)


def _replace(network: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, new)


def _pack(weight: Tensor, scale: Tensor, bias: Tensor | None) -> Any:
    """Returns the weights in the order in which the kernel reads them.

    torch 2.15 warns that the tensors which this takes will go (pytorch#184982); the kernel has no other door yet.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*quantized tensor creation functions", category=UserWarning)
        rounded = torch._make_per_channel_quantized_tensor(weight, scale.double(), torch.zeros(len(scale), dtype=torch.int64), 0)
    return torch.ops.quantized.linear_prepack(rounded, bias)
