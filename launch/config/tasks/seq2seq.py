"""Options of text to text: an encoder reads, a decoder writes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from launch.config.tasks.base import Metrics, TaskSection


class Seq2Seq(TaskSection):
    """A text for a text: translation, summaries, answers (T5: Raffel et al., arXiv:1910.10683)."""

    READS = "texts"
    USAGE = (
        "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer",
        'tokenizer, model = AutoTokenizer.from_pretrained("{model}"), AutoModelForSeq2SeqLM.from_pretrained("{model}")',
        'print(tokenizer.batch_decode(model.generate(**tokenizer("a text", return_tensors="pt")), skip_special_tokens=True))',
    )

    kind: Literal["seq2seq"] = Field(description="Which task this is; chooses the other keys.")
    text: str = Field("text", description="Column of what is read.")
    target: str = Field("target", description="Column of what is to be written.")
    prefix: str = Field("", description="Put before each text, e.g. 'translate English to German: '.")
    max_length: int = Field(128, ge=2, description="Longest text in tokens; longer ones are cut at the end.")
    max_target_length: int = Field(64, ge=2, description="Longest target in tokens; longer ones are cut, and nothing longer is written.")
    num_beams: int = Field(1, ge=1, le=64, description="Ways that an evaluation follows at once; 1: always the likeliest token.")

    def metrics(self) -> Metrics:
        return {"exact_match": "max", "rouge_l": "max", "loss": "min"}

    def columns(self) -> dict[str, list[str]]:
        return {"task.text": [self.text], "task.target": [self.target]}
