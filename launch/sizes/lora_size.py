"""What LoRA adds to the size of a model, and what it trains; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from launch.config.experiment import Lora
from launch.config.lora import USUAL_TARGETS, is_target, layer_kinds, rank_above
from launch.sizes.model_size import ModelSize, UnknownSize

Shapes = Mapping[str, tuple[int, ...]]


def with_adapters(size: ModelSize, shapes: Shapes, head: int, lora: Lora, model_type: str) -> ModelSize | UnknownSize:
    """Returns the size with adapters: rank x (inputs + outputs) for each target (Hu et al. 2021, section 4.1), of which peft trains nothing else
    but the head, in a copy of its own.

    Args:
        shapes: of the parameters, by name.
        head: numbers of the model that are trained whole: a new head, a new pooler.
    """
    targets = lora.targets or USUAL_TARGETS.get(model_type)
    layers = linear_layers(shapes)
    if targets is None or not all(any(is_target(name, [target]) for name in layers) for target in targets):
        return UnknownSize(f"the layers that LoRA adapts are not among {', '.join(layer_kinds(list(layers)))}", key="model.lora.targets")
    adapted = {name: shape for name, shape in layers.items() if is_target(name, targets)}
    if too_large := rank_above(lora.rank, adapted):
        what, largest = too_large
        return UnknownSize(what, key="model.lora.rank", fix=f"model.lora.rank={min(8, largest)}")
    adapters = sum(lora.rank * sum(shape) for shape in adapted.values())
    return replace(size, parameters=size.parameters + adapters + head, trained=adapters + head)


def linear_layers(shapes: Shapes) -> Shapes:
    """Returns the names of the modules with a matrix of weights, embeddings left out, and its shape."""
    return {
        name.removesuffix(".weight"): shape for name, shape in shapes.items() if len(shape) == 2 and name.endswith(".weight") and "embed" not in name
    }
