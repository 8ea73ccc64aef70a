"""Causal language modelling: the next token is predicted from those before it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from launch.config.experiment import Experiment
from trainers.reports.rendering import escaped, table
from trainers.tasks import Batch
from trainers.tasks.language_modelling import LanguageModellingTask, prepared
from trainers.texts.tokens import TokenDataset

NUM_SHOWN, PROMPT_TOKENS, WRITTEN_TOKENS = 5, 8, 24


def build_task(experiment: Experiment) -> CausalLmTask:
    """Returns the task with its data prepared; ranks that call this together share one preparation."""
    return CausalLmTask(experiment, *prepared(experiment))


class CausalLmTask(LanguageModellingTask):
    """See trainers.tasks.Task for what each method promises."""

    KIND = "AutoModelForCausalLM"
    IS_CAUSAL = True

    def dataset(self, split: str) -> TokenDataset:
        return self.rows(split)

    def illustrate(self, model: nn.Module, split: str, place: Callable[[Batch], Batch], folder: Path | None) -> str:
        """Returns what the model writes behind the first words of some rows, always the likeliest token.

        Without a cache, and as many tokens for every row: engines that divide parameters need the same passes on all ranks.
        """
        rows = []
        for index in range(min(NUM_SHOWN, self.num_samples[split])):
            prompt = self.rows(split)[0, index]["input_ids"][:PROMPT_TOKENS].tolist()
            written: list[int] = []
            for _ in range(min(WRITTEN_TOKENS, self._options.block_size - len(prompt))):
                ids = place({"input_ids": torch.tensor([prompt + written])})["input_ids"]
                written.append(int(model(input_ids=ids, use_cache=False).logits[0, -1].argmax()))
            rows.append((escaped(self.tokenizer.decode(prompt)), escaped(self.tokenizer.decode(written))))
        return "## What the model writes\n\n" + table(("given", "written"), rows)
