"""Masked language modelling: hidden tokens are guessed from both sides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from launch.config.experiment import Experiment
from launch.config.tasks.masked_lm import MaskedLm
from trainers.reports.rendering import escaped, table
from trainers.tasks import Batch
from trainers.tasks.language_modelling import LanguageModellingTask, prepared
from trainers.texts.masking import MaskedRows, Recipe
from trainers.texts.tokens import NO_LABEL

STREAMS = {"train": 0, "validation": 1, "test": 2}
NUM_SHOWN, TOKENS_SHOWN = 5, 24


def build_task(experiment: Experiment) -> MaskedLmTask:
    """Returns the task with its data prepared; ranks that call this together share one preparation."""
    return MaskedLmTask(experiment, *prepared(experiment))


class MaskedLmTask(LanguageModellingTask):
    """See trainers.tasks.Task for what each method promises."""

    KIND = "AutoModelForMaskedLM"
    IS_CAUSAL = False

    def dataset(self, split: str) -> MaskedRows:
        options, tokenizer = self._options, self.tokenizer
        assert isinstance(options, MaskedLm)
        recipe = Recipe(
            probability=options.mask_probability,
            whole_words=options.whole_words,
            mask_token_id=tokenizer.mask_token_id,
            vocabulary=len(tokenizer),
            untouched=frozenset(tokenizer.all_special_ids) - {tokenizer.unk_token_id},
            seed=self._experiment.seed,
            stream=STREAMS[split],
        )
        return MaskedRows(self.rows(split), recipe)

    def illustrate(self, model: nn.Module, split: str, place: Callable[[Batch], Batch], folder: Path | None) -> str:
        """Returns what the model guesses in the first rows: the hidden text, and its guesses beside the truth."""
        samples, rows = self.dataset(split), []
        for index in range(min(NUM_SHOWN, len(samples))):
            sample = {name: values[:TOKENS_SHOWN] for name, values in samples[0, index].items()}
            batch = place(self.collate([sample]))
            guesses = self.logits(model, batch).argmax(dim=-1).tolist()
            truth = [token for token in sample["targets"].tolist() if token != NO_LABEL]
            pairs = [f"{self._word(guess)} ({'right' if guess == token else self._word(token)})" for guess, token in zip(guesses, truth, strict=True)]
            rows.append((escaped(self.tokenizer.decode(sample["input_ids"].tolist())), ", ".join(pairs)))
        return "## What the model guesses\n\n" + table(("what it sees", "its guesses (and the truth)"), rows)

    def _word(self, token: int) -> str:
        return escaped(str(self.tokenizer.decode([token])).strip())
