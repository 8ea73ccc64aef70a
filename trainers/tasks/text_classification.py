"""Text classification: one label for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from launch.config.experiment import Experiment
from launch.config.tasks import TextClassification
from trainers.reports.explaining import can_be_explained, explain_tokens, with_gradients
from trainers.reports.explanations import explained_indices, explained_texts, pieces
from trainers.tasks import Batch
from trainers.tasks.classification import Classification
from trainers.tasks.labels import read_labels
from trainers.tasks.texts import TextsTask, prepared


def build_task(experiment: Experiment) -> TextClassificationTask:
    """Returns the task with its data prepared; ranks that call this together share one preparation."""
    return TextClassificationTask(experiment, *prepared_classes(experiment))


def prepared_classes(experiment: Experiment) -> tuple[Path, dict[str, Any]]:
    """Returns the folder of the prepared texts with their classes, and the facts about them."""
    options = experiment.task
    assert isinstance(options, TextClassification)
    return prepared(experiment, lambda splits, bad_rows: read_labels(splits, options, bad_rows))


class TextClassificationTask(TextsTask, Classification):
    """See trainers.tasks.Task for what each method promises."""

    def illustrate(self, model: nn.Module, split: str, place: Callable[[Batch], Batch], folder: Path | None) -> str:
        """Returns which words spoke for the predicted class in a few texts; nothing where ranks divide the model."""
        if folder is None or not can_be_explained(model):
            return ""
        with with_gradients(model):
            samples = [self._explained(model, split, index, place) for index in explained_indices(self.num_samples[split])]
        return explained_texts(split, folder, samples)

    def _explained(self, model: nn.Module, split: str, index: int, place: Callable[[Batch], Batch]) -> dict[str, Any]:
        batch = dict(place(self.collate([self.dataset(split)[0, index]])))
        label, ids = int(batch.pop("labels")), batch["input_ids"][0]
        words, special = pieces(self._tokenizer, ids)
        with torch.no_grad():
            predicted = int(self.logits(model, batch)[0].argmax())
        added, logit, baseline = explain_tokens(model, batch, predicted, self.collate.pad_token_id, special.to(ids.device))
        return {
            "index": index,
            "words": [word for word, is_special in zip(words, special.tolist(), strict=True) if not is_special],
            "added": added[~special.to(ids.device)].tolist(),
            "predicted": self.label_names[predicted],
            "label": self.label_names[label],
            "logit": logit,
            "baseline": baseline,
        }
