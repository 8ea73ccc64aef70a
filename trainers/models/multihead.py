"""One encoder with a linear head for each of several tasks: how it is built, saved, and used again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Model
from launch.config.run_dir import read_json
from launch.config.tasks.texts import Pooling
from trainers.models.pooled import WEIGHTS_FILE, Output, in_words, pool
from trainers.models.pretrained import load_model

CONFIG_KEY = "fullrank_heads"
"""Of the saved config.json: name -> what the head reads, and its classes."""


@dataclass(frozen=True)
class Head:
    """What a head reads, and what it tells apart.

    Args:
        pooling: which vector of the whole text; None: every token's own.
        label_names: empty: one number.
    """

    pooling: Pooling | None
    label_names: Sequence[str]


class MultiHeadNetwork(nn.Module):
    """A body of transformers under the library's own name for it (bert, ...), and heads.NAME, a linear layer, for each task."""

    def __init__(self, body: Any, heads: Mapping[str, Head]) -> None:
        super().__init__()
        self.base_model_prefix, self.shapes = str(body.base_model_prefix), dict(heads)
        if all(head.pooling != "pooler" for head in heads.values()) and hasattr(body, "pooler"):
            body.pooler = None  # nobody would train it, and DDP waits for every gradient
        self.add_module(self.base_model_prefix, body)
        self.dropout = nn.Dropout(getattr(body.config, "hidden_dropout_prob", None) or 0.0)
        self.heads = nn.ModuleDict({name: nn.Linear(body.config.hidden_size, len(head.label_names) or 1) for name, head in heads.items()})

    @property
    def body(self) -> Any:
        return self.get_submodule(self.base_model_prefix)

    @property
    def config(self) -> Any:
        return self.body.config

    def forward(self, part: str, **inputs: Tensor) -> Output:
        """Returns the logits of one task, [B, C], or [B, T, C] of a head that reads tokens; of input_ids and attention_mask, int64 [B, T].

        The other heads compute too, always in one order of modules, and in training times zero: every parameter has a gradient in every step,
        which the engines wait for, and ranks that judge batches of different tasks fetch the same divided parameters together (ZeRO-3).
        """
        output, mask = self.body(**inputs), inputs["attention_mask"]
        answers = {}
        for name, head in self.heads.items():
            states = self._read(name, output, mask)
            answers[name] = head(functional.dropout(states, self.dropout.p, self.training) if name == part else states[:1])
        answer = answers.pop(part)
        if self.training:
            answer = answer + 0.0 * torch.stack([other.sum() for other in answers.values()]).sum()
        return Output(answer)

    def _read(self, part: str, output: Any, mask: Tensor) -> Tensor:
        """Returns what a head is given: [B, H], or [B, T, H]."""
        pooling = self.shapes[part].pooling
        states: Tensor = output.last_hidden_state if pooling is None else pool(output, mask, pooling)
        return states

    def save_pretrained(self, folder: Path, state_dict: Mapping[str, Tensor]) -> None:
        """Writes config.json, which says the heads, and these weights."""
        from safetensors.torch import save_file

        setattr(self.config, CONFIG_KEY, {name: asdict(head) for name, head in self.shapes.items()})
        self.config.architectures = [type(self).__name__]
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save_pretrained(folder)
        save_file({name: tensor.contiguous() for name, tensor in state_dict.items()}, folder / WEIGHTS_FILE, metadata={"format": "pt"})


@dataclass(frozen=True)
class OnePart:
    """A network as one of its tasks sees it: a model of its own."""

    network: nn.Module
    part: str

    def __call__(self, **inputs: Tensor) -> Output:
        output: Output = self.network(part=self.part, **inputs)
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)


def build_multihead(model: Model, heads: Mapping[str, Head], seed: int, pad_token_id: int) -> MultiHeadNetwork:
    """Returns a body with its pretrained weights and new heads, drawn from `seed`, in float32 on the CPU.

    Raises:
        ConfigError: the body cannot be loaded, or has no pooler that a head reads.
    """
    body: Any = load_model("AutoModel", model, [], seed, pad_token_id)
    has_pooler = getattr(body, "pooler", None) is not None and not any("pooler" in name for name in getattr(body, "new_tensors", ()))
    for name in (name for name, head in heads.items() if head.pooling == "pooler" and not has_pooler):
        what = f"{model.source} has no weights for a pooler"
        raise ConfigError(Problem(what, key=f"task.tasks.{name}.task.pooling", allowed="mean, first", fix=f"task.tasks.{name}.task.pooling=mean"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MultiHeadNetwork(body, heads)
        for name, parameter in network.heads.named_parameters():
            if name.endswith("weight"):
                nn.init.normal_(parameter, std=getattr(body.config, "initializer_range", 0.02))
            else:
                nn.init.zeros_(parameter)
    return network


@dataclass(frozen=True)
class Predictor:
    """A task's name and a text go in; what the task's head makes of it comes out."""

    network: MultiHeadNetwork
    tokenizer: Any

    def __call__(self, part: str, text: str, pair: str | None = None) -> dict[str, float] | list[tuple[str, str]] | float:
        """Returns class name -> probability, the likeliest first; of a head that reads tokens (word, tag); of one without classes its value.

        Raises:
            KeyError: there is no such task.
        """
        head = self.network.shapes[part]
        given = text.split() if head.pooling is None else text
        encoded = self.tokenizer(given, pair, is_split_into_words=head.pooling is None, truncation=True, return_tensors="pt")
        inputs = {name: tensor for name, tensor in encoded.items() if name != "token_type_ids" or pair is not None}
        with torch.inference_mode():
            logits = self.network(part, **inputs).logits[0]
        if head.pooling is None:
            places = encoded.word_ids(0)
            firsts = [place for place, word in enumerate(places) if word is not None and (place == 0 or word != places[place - 1])]
            return [(given[places[place]], head.label_names[int(logits[place].argmax())]) for place in firsts]
        return in_words(logits, head.label_names)


def load_multihead(folder: str | Path) -> Predictor:
    """Returns what a run of multitask saved in its model/ folder, or what fullrank export made of that.

    Raises:
        ConfigError: no such run wrote it.
    """
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    from trainers.models.int8 import INT8_FILE, load_int8

    if (Path(folder) / INT8_FILE).is_file():
        network: MultiHeadNetwork = load_int8(folder)
    else:
        network = empty_network(Path(folder)).eval()
        network.load_state_dict(load_file(Path(folder) / WEIGHTS_FILE))
    return Predictor(network, AutoTokenizer.from_pretrained(folder))


def empty_network(folder: Path) -> MultiHeadNetwork:
    """Returns the network of a folder that a run of multitask wrote, with any weights.

    Raises:
        ConfigError: no such run wrote it.
    """
    from transformers import AutoConfig, AutoModel

    heads: Any = (read_json(folder / "config.json") or {}).get(CONFIG_KEY)
    if heads is None:
        raise ConfigError(Problem("is not the model of a multitask run", where=str(folder)))
    return MultiHeadNetwork(AutoModel.from_config(AutoConfig.from_pretrained(folder)), {name: Head(**head) for name, head in heads.items()})
