"""A pretrained body, one vector of what it read, and a linear layer: how it is built, saved, and used again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Model
from launch.config.run_dir import read_json
from launch.config.tasks.texts import Pooling
from trainers.models.pretrained import load_model

CONFIG_KEY = "fullrank_pooling"
"""Of the saved config.json: which vector the head reads."""

WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class Output:
    """What the network gives, under the name that the library's own models use."""

    logits: Tensor


class PooledNetwork(nn.Module):
    """A body of transformers and a linear head, in two parts that can be had apart: features(), and head.

    The body is registered under the library's own name for it (bert, distilbert, ...), so that `bert.*` freezes it, and AutoModel reads what
    is saved.
    """

    def __init__(self, body: Any, pooling: Pooling, num_outputs: int) -> None:
        super().__init__()
        self.base_model_prefix, self.pooling = str(body.base_model_prefix), pooling
        self.add_module(self.base_model_prefix, body)
        self.head = nn.Linear(body.config.hidden_size, num_outputs)

    @property
    def body(self) -> Any:
        return self.get_submodule(self.base_model_prefix)

    @property
    def config(self) -> Any:
        return self.body.config

    def features(self, **inputs: Tensor) -> Tensor:
        """Returns the vector that the head reads, [B, H], of input_ids and attention_mask, int64 [B, T]."""
        return pool(self.body(**inputs), inputs["attention_mask"], self.pooling)

    def forward(self, **inputs: Tensor) -> Output:
        """Returns logits, [B, C]."""
        return Output(self.head(self.features(**inputs)))

    def save_pretrained(self, folder: Path, state_dict: Mapping[str, Tensor]) -> None:
        """Writes config.json, which says the pooling, and these weights."""
        from safetensors.torch import save_file

        setattr(self.config, CONFIG_KEY, self.pooling)
        self.config.architectures = [type(self).__name__]
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save_pretrained(folder)
        save_file({name: tensor.contiguous() for name, tensor in state_dict.items()}, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def pool(output: Any, mask: Tensor, pooling: Pooling) -> Tensor:
    """Returns one vector a text, [B, H], of what a body gave; mask: int64 [B, T], 0 for padding."""
    if pooling == "pooler":
        vector: Tensor = output.pooler_output
        return vector
    states: Tensor = output.last_hidden_state
    if pooling == "first":
        return states[torch.arange(len(mask), device=mask.device), mask.argmax(dim=1)]  # after the padding, where that is on the left
    weights = mask[:, :, None].to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)


def build_pooled(model: Model, pooling: Pooling, label_names: Sequence[str], seed: int, pad_token_id: int) -> PooledNetwork:
    """Returns a body with its pretrained weights and a new head, drawn from `seed`, in float32 on the CPU; one output where there are no classes.

    A source that was itself saved with this pooling and as many outputs keeps its head.

    Raises:
        ConfigError: the body cannot be loaded, or has no pooler.
    """
    body: Any = load_model("AutoModel", model, label_names, seed, pad_token_id)
    new = {name for name in getattr(body, "new_tensors", ()) if "pooler" in name}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PooledNetwork(body, pooling, len(label_names) or 1)
        nn.init.normal_(network.head.weight, std=getattr(body.config, "initializer_range", 0.02))
        nn.init.zeros_(network.head.bias)
    if pooling == "pooler" and (getattr(body, "pooler", None) is None or new):
        what = f"{model.source} has no {'weights for its ' if new else ''}pooler"
        raise ConfigError(Problem(what, key="task.pooling", allowed="mean, first", fix="task.pooling=mean"))
    if pooling != "pooler" and getattr(body, "pooler", None) is not None:
        body.pooler.requires_grad_(False)  # nothing reads it, and DDP waits for the gradient of all that is trained
    return network


@dataclass(frozen=True)
class Predictor:
    """A text goes in, or a pair of texts; what the head makes of it comes out."""

    network: PooledNetwork
    tokenizer: Any
    label_names: Sequence[str]

    def __call__(self, text: str, pair: str | None = None) -> dict[str, float] | float:
        """Returns class name -> probability, the likeliest first; of a model without classes, its value."""
        encoded = self.tokenizer(text, pair, truncation=True, return_tensors="pt")
        encoded = {name: tensor for name, tensor in encoded.items() if name != "token_type_ids" or pair is not None}
        with torch.inference_mode():
            return in_words(self.network(**encoded).logits[0], self.label_names)


def in_words(logits: Tensor, label_names: Sequence[str]) -> dict[str, float] | float:
    """Returns what the logits of one text, [C], say: class name -> probability, the likeliest first; without classes, their value."""
    if not label_names:
        return float(logits)
    probabilities = logits.float().softmax(-1)
    return {label_names[n]: float(probabilities[n]) for n in probabilities.argsort(descending=True).tolist()}


def load_pooled(folder: str | Path) -> Predictor:
    """Returns what a run with task.pooling saved in its model/ folder, or what fullrank export made of that.

    Raises:
        ConfigError: no such run wrote it.
    """
    from transformers import AutoTokenizer

    network = _load_network(Path(folder))
    names = network.config.id2label
    num_outputs = network.head.out_features
    return Predictor(network, AutoTokenizer.from_pretrained(folder), [names[n] for n in range(num_outputs)] if num_outputs > 1 else [])


def empty_network(folder: Path, num_outputs: int) -> PooledNetwork:
    """Returns the network of a folder that a run with task.pooling wrote, with any weights.

    Raises:
        ConfigError: no such run wrote it.
    """
    from transformers import AutoConfig, AutoModel

    pooling: Any = (read_json(folder / "config.json") or {}).get(CONFIG_KEY)
    if pooling not in get_args(Pooling):
        raise ConfigError(Problem("is not the model of a run with task.pooling", where=str(folder)))
    return PooledNetwork(AutoModel.from_config(AutoConfig.from_pretrained(folder)), pooling, num_outputs)


def _load_network(folder: Path) -> PooledNetwork:
    """Returns the network with its weights, in float32 or, if fullrank export wrote the folder, in 8-bit integers."""
    from safetensors.torch import load_file

    from trainers.models.int8 import INT8_FILE, load_int8

    if (folder / INT8_FILE).is_file():
        quantised: PooledNetwork = load_int8(folder)
        return quantised
    weights = load_file(folder / WEIGHTS_FILE) if (folder / WEIGHTS_FILE).is_file() else {}
    network = empty_network(folder, len(weights.get("head.bias", ()))).eval()
    network.load_state_dict(weights)
    return network
