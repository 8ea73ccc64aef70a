"""Loads pretrained models and tokenizers with transformers, or says in one line why not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from launch.config.errors import ConfigError, Problem, suggest
from launch.config.experiment import Model
from launch.config.sources import HubName
from trainers.models.attention import use_attention
from trainers.sources import MISSING_HUB_FIX, NOT_CACHED, hub_is_offline, locate, use_hub_cache_if_unreachable


def load_tokenizer(source: str) -> Any:
    """Returns the tokenizer of a model source; one without a padding token pads with its end token.

    Raises:
        ConfigError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    tokenizer = _load(AutoTokenizer, source, "tokenizer")
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ConfigError(Problem(f"the tokenizer of {source} has no padding token", key="model.source"))
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_config(source: str) -> Any:
    """Returns the configuration of a model source.

    Raises:
        ConfigError: it cannot be loaded.
    """
    from transformers import AutoConfig

    return _load(AutoConfig, source, "configuration")


def new_config(model: Model) -> Any:
    """Returns the configuration that model.config describes, for the vocabulary and the special tokens of the source's tokenizer.

    Raises:
        ConfigError: transformers has no such type, or its configuration no such key or value.
    """
    from transformers import AutoConfig

    values = dict(model.config or {})
    kind, tokenizer = str(values.pop("model_type")), load_tokenizer(_source(model))
    begin, end = (tokenizer.bos_token_id, tokenizer.cls_token_id), (tokenizer.eos_token_id, tokenizer.sep_token_id)
    of_tokenizer: dict[str, Any] = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    of_tokenizer |= {
        name: next((token for token in tokens if token is not None), None) for name, tokens in {"bos_token_id": begin, "eos_token_id": end}.items()
    }
    try:
        known = AutoConfig.for_model(kind)
    except ValueError as error:
        raise ConfigError(Problem(f"transformers has no model type {kind!r}", key="model.config.model_type", allowed="gpt2, bert, ...")) from error
    unknown = [name for name in values if not hasattr(known, name)]
    if unknown:
        near = suggest(unknown[0], [name for name in known.to_dict() if not name.startswith("_")])
        what = f"a configuration of {kind} has no {unknown[0]!r}" + (f"; did you mean {near!r}?" if near else "")
        raise ConfigError(Problem(what, key=f"model.config.{unknown[0]}"))
    try:
        return AutoConfig.for_model(kind, **(of_tokenizer | values))
    except (ValueError, TypeError) as error:
        raise ConfigError(Problem(f"is no configuration of {kind}: {error}", key="model.config")) from error


def load_model(kind: str, model: Model, label_names: Sequence[str], seed: int, pad_token_id: int) -> nn.Module:
    """Returns a model in float32 on the CPU; weights the source lacks (a new head) are drawn from `seed`.

    Args:
        kind: the class of transformers that builds it: AutoModelForSequenceClassification, AutoModelForMaskedLM, ...
        label_names: the classes of its head; empty for a model without classes.

    Raises:
        ConfigError: it cannot be loaded, has no body of that kind, or has no dropout to set.
    """
    import transformers

    config = load_config(_source(model)) if model.config is None else new_config(model)
    config.pad_token_id = pad_token_id if getattr(config, "pad_token_id", None) is None else config.pad_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, _ = _load_network(getattr(transformers, kind), config, model, label_names)
    return network


def load_saved(source: str) -> Any:
    """Returns a model with all that its source has: a head for sequences if one was trained, else the body alone.

    Raises:
        ConfigError: it cannot be loaded.
    """
    from transformers import AutoModel, AutoModelForSequenceClassification

    config = load_config(source)
    has_head = any(name.endswith("ForSequenceClassification") for name in getattr(config, "architectures", None) or ())
    return _load_weights(AutoModelForSequenceClassification if has_head else AutoModel, config, Model(source=source))


def load_image_model(model: Model, label_names: list[str]) -> tuple[nn.Module, list[str]]:
    """Returns a classifier of pictures in float32 on the CPU, a new head drawn from torch's random state, and a word on it.

    Raises:
        ConfigError: it cannot be loaded, is no classifier's body, or has no dropout to set.
    """
    from transformers import AutoModelForImageClassification

    if model.head is not None:
        raise ConfigError(Problem("transformers knows the head of its models", key="model.head", fix="model.head=null"))
    config = load_config(_source(model))
    same_classes = list(getattr(config, "id2label", {}).values()) == label_names
    network, new = _load_network(AutoModelForImageClassification, config, model, label_names)
    if not same_classes and not new:  # as many classes, but others
        _draw_head(network, len(label_names))
    return network, [] if same_classes else [f"the head is new: {len(label_names)} classes"]


def load_image_statistics(source: str) -> tuple[list[float], list[float]] | None:
    """Returns the mean and standard deviation of each channel that a model of the hub was trained with; None where its files do not say."""
    from transformers import AutoImageProcessor

    try:
        processor = _load(AutoImageProcessor, source, "image processor")
    except ConfigError:
        load_config(source)
        return None
    mean, std = getattr(processor, "image_mean", None), getattr(processor, "image_std", None)
    return (list(mean), list(std)) if mean is not None and std is not None else None


def _load_network(kind: Any, config: Any, model: Model, label_names: Sequence[str]) -> tuple[Any, list[str]]:
    """Returns a model with a head for these classes (if there are any), and the names of its new tensors."""
    if model.dropout is not None:
        _set_dropout(config, model)
    if label_names:
        config.id2label = dict(enumerate(label_names))
        config.label2id = {name: number for number, name in config.id2label.items()}
    if model.config is not None:
        network = kind.from_config(config)
        network.new_tensors = []
    else:
        network = _load_weights(kind, config, model)
    use_attention(network)
    if model.gradient_checkpointing:
        network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return network, network.new_tensors


def _load_weights(kind: Any, config: Any, model: Model) -> Any:
    """Returns the source's model; `new_tensors` are those that it has no weights for."""
    # A head for another number of classes is replaced, not an error: that is fine-tuning.
    options = {"config": config, "dtype": torch.float32, "ignore_mismatched_sizes": True, "output_loading_info": True}
    network, report = _load(kind, _source(model), "model", **options)
    _check_weights(network, report, _source(model))
    network.new_tensors = [*report["missing_keys"], *(str(entry[0]) for entry in report["mismatched_keys"])]
    return network


def _draw_head(network: nn.Module, num_classes: int) -> None:
    from trainers.models.heads import find_head, replace_head

    replace_head(network, find_head(network, None), num_classes)


def _source(model: Model) -> str:
    assert model.source is not None, "resolve() refuses a class for this task"
    return model.source


def _load(kind: Any, source: str, what: str, **options: Any) -> Any:
    """Calls from_pretrained without its reports, and turns what it raises into one problem."""
    import transformers

    place = locate(source, "model.source")
    if isinstance(place, HubName):
        use_hub_cache_if_unreachable()
        if place.configuration is not None:
            what = f"{source!r}: only a data set has a configuration after a colon"
            raise ConfigError(Problem(what, key="model.source", fix=f"model.source={place.name}"))
    elif not (place / "config.json").is_file():
        raise ConfigError(Problem(f"{place} is not a model's folder: it has no config.json", key="model.source"))
    name = place.name if isinstance(place, HubName) else str(place)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        return kind.from_pretrained(name, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        if isinstance(place, HubName) and hub_is_offline():
            reason = NOT_CACHED
        fix = MISSING_HUB_FIX if isinstance(place, HubName) else None
        raise ConfigError(Problem(f"the {what} of {source} cannot be loaded: {reason}", key="model.source", fix=fix)) from error


def _set_dropout(config: Any, model: Model) -> None:
    """Sets every dropout probability of a configuration, the classifier's too; the names differ from model to model."""
    names = [name for name, value in config.to_dict().items() if _is_dropout(name, value)]
    if not names and model.dropout:
        raise ConfigError(Problem(f"the model {model.source} has no dropout to set", key="model.dropout", fix="model.dropout=null"))
    for name in names:
        setattr(config, name, model.dropout)


def _is_dropout(name: str, value: object) -> bool:
    return ("dropout" in name or name.endswith("_pdrop")) and not isinstance(value, bool) and (value is None or isinstance(value, (int, float)))


def _check_weights(network: Any, report: dict[str, Any], source: str) -> None:
    """Raises ConfigError if part of the body would start from random weights; only a head or a pooler may."""
    body = "" if network.base_model is network else f"{network.base_model_prefix}."
    missing = [name for name in report["missing_keys"] if name.startswith(body) and "pooler" not in name]
    missing += [str(entry[0]) for entry in report["mismatched_keys"] if str(entry[0]).startswith(body)]
    if missing:
        what = f"{source} has no weights for {len(missing)} tensors of {type(network).__name__}, e.g. {missing[0]}"
        raise ConfigError(Problem(what, key="model.source", fix="the folder whose weights belong to its config.json"))
