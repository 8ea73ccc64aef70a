"""Distillation: a small text classifier learns a teacher's logits beside the labels (Hinton, Vinyals and Dean, 2015)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from launch.config.errors import ConfigError, Problem
from launch.config.experiment import Experiment, Model
from launch.config.quantities import show_count
from launch.config.sources import HubName
from launch.config.tasks import Distill
from trainers.data_facts import fingerprint_files, point_to_facts
from trainers.features.computed_once import Kept, KeptNumbers, NotSharedError, OncePerSample, fingerprint
from trainers.models.pooled import CONFIG_KEY, load_pooled
from trainers.models.pretrained import load_config
from trainers.models.students import cut_student
from trainers.reading.columns import Indices
from trainers.sources import locate
from trainers.tasks import Batch, Sample, SampleKey
from trainers.tasks.text_classification import TextClassificationTask, prepared_classes
from trainers.tasks.text_classification import build_task as build_plain
from trainers.texts.tokens import PadTokens, TokenDataset

TEACHER = "teacher_logits"
"""Of a training sample and batch: float32 [C], [B, C]."""


def build_task(experiment: Experiment) -> DistillTask:
    """Returns the task with its data prepared for the student and for the teacher, whose tokenizers may differ.

    Ranks that call this together share one preparation, and one student.

    Raises:
        ConfigError: as text_classification; or there is no such teacher, or it tells other classes apart.
    """
    options = experiment.task
    assert isinstance(options, Distill)
    with _under("task.teacher"):
        teacher = build_plain(_plain(experiment, Model(source=options.teacher), packing=False))
        _check_classes(options, teacher.label_names)
    student = _plain(experiment, experiment.model.model_copy(update={"source": _student_source(experiment, options)}))
    task = DistillTask(options, teacher, student, *prepared_classes(student))
    assert task.num_samples == teacher.num_samples, (task.num_samples, teacher.num_samples)
    point_to_facts(experiment, task)
    return task


class DistillTask(TextClassificationTask):
    """See trainers.tasks.Task for what each method promises; a training batch has teacher_logits beside, float32 [B, C]."""

    def __init__(self, options: Distill, teacher: TextClassificationTask, student: Experiment, folder: Path, info: dict[str, Any]) -> None:
        super().__init__(student, folder, info)
        self.collate = PadTaught(info["pad_token_id"], info["padding_side"])
        self._distill, self._teacher = options, teacher
        weights = _weights_of(options.teacher)
        if weights:  # another teacher is another training, as other data is
            self.fingerprint = f"{info['fingerprint']}, teacher {fingerprint_files(weights)}"
        self._taught: Kept | None = None

    def precompute(self, once: OncePerSample) -> list[str]:
        """Computes the teacher's logits of the train split: its dropout is off and nothing is drawn, so they are the same in every epoch."""
        started, teacher, device = time.perf_counter(), self._teacher, once.engine.device
        network = self._load_teacher().to(device).eval()
        name = f"logits/{fingerprint(once.engine, network, {'data': teacher.fingerprint})}"
        what = "computing the teacher's logits"
        try:
            kept = self._taught = once.compute(what, name, teacher, ["train"], lambda batch: {TEACHER: teacher.logits(network, batch)})
        except NotSharedError as error:
            raise ConfigError(Problem(str(error), key="task.teacher", fix="FULLRANK_CACHE=DIR on a disk that every node sees")) from error
        done = f"computed in {time.perf_counter() - started:.1f} s" if kept.num_computed else "found"
        size = show_count(sum(parameter.numel() for parameter in network.parameters()))
        return [f"the teacher's logits ({size} parameters, {self.num_samples['train']} samples) {done}, kept in {kept.folder}"]

    def dataset(self, split: str) -> Any:
        tokens = super().dataset(split)
        return tokens if split != "train" or self._taught is None else TaughtTokens(tokens, self._taught.split(split))

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        return super().logits(model, {name: tensor for name, tensor in batch.items() if name != TEACHER})

    def train_loss(self, model: nn.Module, batch: Batch, label_smoothing: float) -> tuple[Tensor, Tensor]:
        logits, labels, options = self.logits(model, batch), batch["labels"], self._distill
        hard = functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=label_smoothing)
        soft = soft_loss(logits, batch[TEACHER], options.temperature)
        return (1 - options.soft_share) * hard + options.soft_share * soft, torch.tensor(labels.numel(), device=labels.device)

    def _load_teacher(self) -> nn.Module:
        with _under("task.teacher"):
            source = self._distill.teacher
            if hasattr(load_config(source), CONFIG_KEY):
                place = locate(source, "model.source")
                assert not isinstance(place, HubName), place
                return load_pooled(place).network
            network: Any = self._teacher.build_model()
            if network.new_tensors:
                what = f"{source} has no head for the classes ({network.new_tensors[0]} is missing): it has not been fine-tuned"
                raise ConfigError(Problem(what, key="model.source", fix="fine-tune it first: fullrank run, then task.teacher=runs/<that run>"))
            return network


def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Returns T^2 KL(softmax(teacher / T) || softmax(student / T)), summed over the samples: float32 [], 0 where both agree.

    Hinton, Vinyals and Dean (2015), section 2: the gradients of the soft targets shrink as 1 / T^2. Their cross-entropy differs from the
    divergence by the teacher's entropy alone, which no weight of the student moves.

    Args:
        student, teacher: logits, float32 [B, C].
    """
    of_student, of_teacher = (functional.log_softmax(logits / temperature, dim=-1) for logits in (student, teacher.to(student)))
    return temperature**2 * functional.kl_div(of_student, of_teacher, reduction="sum", log_target=True)


@dataclass(frozen=True)
class TaughtTokens(Dataset[Sample]):
    """Samples with what the teacher makes of them, by (epoch, index)."""

    tokens: TokenDataset
    kept: KeptNumbers

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, key: SampleKey) -> Sample:
        return self.tokens[key] | self.kept[key]

    def lengths(self) -> Indices:
        return self.tokens.lengths()


class PadTaught(PadTokens):
    """Collates samples of texts, and stacks what the teacher makes of them."""

    def __call__(self, samples: list[Sample]) -> dict[str, Tensor]:
        batch = super().__call__([{name: value for name, value in sample.items() if name != TEACHER} for sample in samples])
        return batch | {TEACHER: torch.stack([sample[TEACHER] for sample in samples])} if TEACHER in samples[0] else batch


def _student_source(experiment: Experiment, options: Distill) -> str:
    """Returns what the student begins with: model.source, or what is cut out of it."""
    source = str(experiment.model.source)
    if options.layers is None and options.vocabulary == "whole":
        return source
    used = None
    if options.vocabulary == "train":
        dataset = build_plain(_plain(experiment, experiment.model)).dataset("train")
        used = {piece for index in range(len(dataset)) for piece in dataset[0, index]["input_ids"].tolist()}
    return str(cut_student(source, options.layers, used))


def _plain(experiment: Experiment, model: Model, **changes: Any) -> Experiment:
    """Returns the experiment that learns the same texts and labels without a teacher."""
    options = experiment.task
    assert isinstance(options, Distill)
    return experiment.model_copy(update={"task": options.plain().model_copy(update=changes), "model": model})


def _check_classes(options: Distill, label_names: list[str]) -> None:
    """Raises ConfigError if the teacher's classes are known to be others, or in another order."""
    names = [str(name) for name in (getattr(load_config(options.teacher), "id2label", None) or {}).values()]
    are_named = not all(re.fullmatch(r"LABEL_\d+", name) for name in names)  # transformers' stand-in for no name
    if len(names) != len(label_names) or (are_named and [n.casefold() for n in names] != [n.casefold() for n in label_names]):
        what = f"{options.teacher} tells {', '.join(names)} apart, and the classes of the data are {', '.join(label_names)}"
        raise ConfigError(Problem(what, key="model.source", fix="a teacher of the same classes; or task.label_names=[...] in the teacher's order"))


def _weights_of(source: str) -> list[Path]:
    """Returns the files of a teacher's weights; none where its name says which they are, as the hub's does."""
    with _under("task.teacher"):
        place = locate(source, "model.source")
    return [] if isinstance(place, HubName) else sorted([*place.glob("*.safetensors"), *place.glob("pytorch_model*.bin")])


@contextmanager
def _under(key: str) -> Iterator[None]:
    """Names `key` in problems of a model that is not model.source."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(*(replace(problem, key=key if problem.key == "model.source" else problem.key) for problem in error.problems)) from error
