"""Prints the shapes of a model's parameters, where no formula is known: trainers.models.parameter_counts transformers FOLDER | torchvision NAME.

The launcher runs it once, in a process of its own, and keeps the answer. The model is built on the meta device: no weights are read or made.
"""

from __future__ import annotations

import argparse
import json

import torch
from torch import nn


def main(arguments: list[str] | None = None) -> None:
    """Prints {parameter's name: its shape} as JSON."""
    parser = argparse.ArgumentParser(prog="trainers.models.parameter_counts", description=__doc__)
    parser.add_argument("library", choices=("transformers", "torchvision"))
    parser.add_argument("model", help="a folder with a config.json, or a name")
    parser.add_argument("--num-labels", type=int, help="classes of the head")
    options = parser.parse_args(arguments)
    model = build_on_meta(options.library, options.model, options.num_labels)
    print(json.dumps({name: list(parameter.shape) for name, parameter in model.named_parameters()}))


def build_on_meta(library: str, model: str, num_labels: int | None) -> nn.Module:
    """Returns the classifier without memory for its weights."""
    with torch.device("meta"):
        if library == "torchvision":
            from torchvision.models import get_model

            network: nn.Module = get_model(model, weights=None, **({"num_classes": num_labels} if num_labels else {}))
            return network
        from transformers import AutoConfig, AutoModelForSequenceClassification

        config = AutoConfig.from_pretrained(model, local_files_only=True, **({"num_labels": num_labels} if num_labels else {}))
        built: nn.Module = AutoModelForSequenceClassification.from_config(config)
        return built


if __name__ == "__main__":
    main()
