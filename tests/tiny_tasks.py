"""One experiment a task, small enough to be trained in a second: what tests/integration/test_tasks.py runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.tiny import tiny_bert, tiny_classifier, tiny_lines, tiny_sentences
from tests.tiny_annotated import tiny_coco
from tests.tiny_pairs import tiny_pairs, tiny_t5
from tests.tiny_pictures import tiny_folder
from tests.tiny_ratings import tiny_ratings
from tests.tiny_sounds import tiny_recordings
from tests.tiny_texts import tiny_glue, tiny_squad, tiny_tagged

Sections = dict[str, Any]
"""Sections of an experiment (model, task, data and what else matters), beside those of `shared`."""


@dataclass(frozen=True)
class TinyTask:
    """A row of the table.

    Args:
        write: writes model and data into a folder, and returns the sections that name them. No dropout: its masks follow the ranks.
        same_losses: whether two ranks lose as one does; not where BatchNorm sees micro-batches.
    """

    write: Callable[[Path], Sections]
    same_losses: bool = True


def text_classification(folder: Path) -> Sections:
    return {
        "model": {"source": str(tiny_bert(folder / "bert")), "dropout": 0.0},
        "task": {"kind": "text_classification", "text": "text", "label": "label", "max_length": 32},
        "data": {"source": str(tiny_sentences(folder / "sentences.tsv", 61)), **CUT},
    }


def packed_texts(folder: Path) -> Sections:
    sections = text_classification(folder)
    return sections | {"task": sections["task"] | {"packing": True}}


def bert_frozen(folder: Path) -> Sections:
    sections = text_classification(folder)
    return sections | {"model": sections["model"] | {"freeze": ["bert.*"]}, "task": sections["task"] | {"pooling": "mean"}}


def distill(folder: Path) -> Sections:
    """One of the teacher's two layers, and the words of the train split."""
    sections = text_classification(folder)
    teacher = str(tiny_classifier(folder / "teacher"))
    options = {"kind": "distill", "teacher": teacher, "layers": [1], "vocabulary": "train", "soft_share": 0.7}
    return sections | {"model": {"source": teacher, "dropout": 0.0}, "task": sections["task"] | options}


def glue_stsb(folder: Path) -> Sections:
    return {
        "model": {"source": str(tiny_bert(folder / "bert")), "dropout": 0.0},
        "task": {"kind": "glue", "name": "stsb", "layout": "tsv", "max_length": 32},
        "data": {
            "source": str(tiny_glue(folder / "glue", "stsb")),
            "splits": {"train": "train.tsv", "validation": "dev.tsv"},
            "num_workers": 0,
        },
        "optimizer": {"lr": 1e-2},  # answers that hardly differ would correlate by their last digits
        "evaluate": {"metric": "score", "mode": "max", "every": "4 steps", "batch_size": 4},
    }


def seq2seq(folder: Path) -> Sections:
    return {
        "model": tiny_t5(folder / "bert"),
        "task": {"kind": "seq2seq", "max_length": 24, "max_target_length": 6},
        "data": {"source": str(tiny_pairs(folder / "pairs.tsv", 61)), **CUT},
    }


def ner(folder: Path) -> Sections:
    return {
        "model": {"source": str(tiny_bert(folder / "bert")), "dropout": 0.0},
        "task": {"kind": "ner", "max_length": 16},
        "data": {"source": str(tiny_tagged(folder / "tagged.conll", 61)), **CUT},
        "optimizer": {"lr": 1e-2},
        "evaluate": {"metric": "f1", "mode": "max", "every": "4 steps", "batch_size": 4},
    }


def multitask(folder: Path) -> Sections:
    """Sentences and tagged words, more of the first; the second have data of their own."""
    sections = text_classification(folder)
    sentiment, tagged = sections["task"], {"source": str(tiny_tagged(folder / "tagged.conll", 31)), **CUT}
    tasks = {"sentiment": {"task": sentiment}, "names": {"task": {"kind": "ner", "max_length": 16}, "data": tagged}}
    return sections | {
        "task": {"kind": "multitask", "tasks": tasks, "temperature": 2.0},
        "optimizer": {"lr": 1e-2},
        "evaluate": {"metric": "score", "every": "4 steps", "batch_size": 4},
    }


def question_answering(folder: Path) -> Sections:
    return {
        "model": {"source": str(tiny_bert(folder / "bert")), "dropout": 0.0},
        "task": {"kind": "question_answering", "max_length": 32, "stride": 8},
        "data": {"source": str(tiny_squad(folder / "squad.json", 20)), "format": "squad", **CUT},
        "optimizer": {"lr": 1e-2},
        "evaluate": {"metric": "f1", "mode": "max", "every": "4 steps", "batch_size": 2},
    }


def speech_ctc(folder: Path) -> Sections:
    return {
        "model": {"class": "trainers.architectures.speech_network:SpeechNetwork", "kwargs": {"width": 16, "num_recurrent": 1}, "dropout": 0.0},
        "task": {"kind": "speech_ctc", "name_pattern": r"(?P<text>[ab]+)_\d+\.wav", "sample_rate": 8000, "num_mels": 16},
        "data": {
            "source": str(tiny_recordings(folder / "sounds", 61)),
            "format": "audio_folder",
            **CUT,
            "splits": {"train": "*.wav", "validation": None},
        },
        "evaluate": {"metric": "wer", "every": "4 steps", "batch_size": 4},
    }


def recommender_autoencoder(folder: Path) -> Sections:
    return {
        "model": {"class": "trainers.architectures.item_autoencoder:ItemAutoencoder", "kwargs": {"width": 8}},
        "task": {"kind": "recommender_autoencoder", "top": 3, "min_items": 3},
        "data": {"source": str(tiny_ratings(folder / "ratings.csv", 61)), **CUT},
        "evaluate": {"metric": "recall", "every": "4 steps", "batch_size": 4},
    }


def masked_lm(folder: Path) -> Sections:
    return {
        "model": {"source": str(tiny_bert(folder / "bert")), "dropout": 0.0},
        "task": {"kind": "masked_lm", "block_size": 16, "rows": "packed", "whole_words": True},
        "data": {"source": str(tiny_lines(folder / "lines.txt", 120)), **CUT},
        "evaluate": {"metric": "perplexity", "every": "4 steps", "batch_size": 4},
    }


def causal_lm(folder: Path) -> Sections:
    config = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 64}
    return masked_lm(folder) | {
        "model": {"source": str(folder / "bert"), "config": config, "dropout": 0.0},
        "task": {"kind": "causal_lm", "block_size": 16, "rows": "single"},
    }


def thawing(folder: Path) -> Sections:
    """Both thaws lie between what a stopped run saves and its end, or before it."""
    sections = text_classification(folder)
    thaws = {"3 steps": ["bert.encoder.layer.0.*"], "8 steps": ["*"]}
    return sections | {
        "model": sections["model"] | {"freeze": ["bert.embeddings.*", "bert.encoder.layer.0.*"]},
        "train": {"duration": "10 steps", "global_batch_size": 8, "micro_batch_size": 2, "unfreeze_at": thaws},
    }


def autoencoder(folder: Path) -> Sections:
    return {
        "model": {"class": "trainers.architectures.autoencoder:ConvAutoencoder", "kwargs": {"code": 8, "width": 2}},
        "task": {"kind": "autoencoder", "size": 16, "hidden": 0.5},
        "data": {"source": str(tiny_folder(folder / "pictures", num_each=20)), "format": "image_folder", **CUT},
    }


def image_frozen(folder: Path) -> Sections:
    """The head alone, on features that are computed once."""
    return {
        "model": {
            "class": "trainers.architectures.cifar_resnet:CifarResNet",
            "kwargs": {"depth": 8},
            "freeze": ["conv1.*", "bn1.*", "layer*"],
        },
        "task": {"kind": "image_classification", "size": 32},
        "data": {"source": str(tiny_folder(folder / "pictures", num_each=20)), "format": "image_folder", **CUT},
    }


def segmentation_fcn(folder: Path) -> Sections:
    """Crops and mirrors draw from (seed, epoch, sample); frozen BatchNorm does not see micro-batches."""
    network = "trainers.architectures.mobilenet_markers:MobileNetFcn"
    return {
        "model": {"class": network, "kwargs": {"width": 0.1}, "dropout": 0.0, "batch_norm": "frozen"},
        "task": {"kind": "segmentation_fcn", "size": 32, "crop": "resized", "flip": 0.5, "unlabelled": "background"},
        "data": {"source": str(tiny_coco(folder / "coco", 20, 3)), **ANNOTATED},
        "evaluate": {"metric": "miou", "mode": "max", "every": "5 steps", "batch_size": 1},
    }


def detection_faster_rcnn(folder: Path) -> Sections:
    sizes = {"width": 0.1, "pyramid": 8, "representation": 16, "min_size": 48, "max_size": 64, "rpn_pre_nms_top_n_train": 50}
    return {
        "model": {"class": "trainers.architectures.mobilenet_markers:MobileNetFasterRcnn", "kwargs": sizes},
        "task": {"kind": "detection_faster_rcnn", "flip": 0.5},
        "data": {"source": str(tiny_coco(folder / "coco", 11, 2)), **ANNOTATED},
        "train": {"duration": "7 steps", "global_batch_size": 4, "micro_batch_size": 1},
        "evaluate": {"metric": "map", "mode": "max", "every": "5 steps", "batch_size": 1},
    }


ANNOTATED: Sections = {"splits": {"train": "train.json", "validation": "val.json", "test": None}, "num_workers": 0}
CUT: Sections = {"splits": {"validation": None}, "validation_fraction": 0.2, "test_fraction": 0.1, "num_workers": 0}
"""Of a data section: validation and test are cut from train."""

TINY_TASKS: dict[str, TinyTask] = {
    "text_classification": TinyTask(text_classification),
    "bert_frozen": TinyTask(bert_frozen),
    "packed_texts": TinyTask(packed_texts),
    "distill": TinyTask(distill),
    "thawing": TinyTask(thawing),
    "autoencoder": TinyTask(autoencoder),
    "image_frozen": TinyTask(image_frozen),
    "segmentation_fcn": TinyTask(segmentation_fcn),
    "detection_faster_rcnn": TinyTask(detection_faster_rcnn),
    "glue_stsb": TinyTask(glue_stsb),
    "ner": TinyTask(ner),
    "multitask": TinyTask(multitask),
    "question_answering": TinyTask(question_answering),
    "seq2seq": TinyTask(seq2seq),
    "speech_ctc": TinyTask(speech_ctc),
    "masked_lm": TinyTask(masked_lm),
    "causal_lm": TinyTask(causal_lm),
    "recommender_autoencoder": TinyTask(recommender_autoencoder),
}
"""By name: every task, and every way of one that learns by other code."""


def write_experiment(name: str, folder: Path) -> Path:
    """Writes the experiment of a row, with its model and data, into `folder`; returns its file. It makes 10 steps of two micro-batches or more."""
    import yaml

    sections = TINY_TASKS[name].write(folder)
    shared: Sections = {
        "name": name,
        "seed": 3,
        "train": {"duration": "10 steps", "global_batch_size": 8, "micro_batch_size": 2},
        "optimizer": {"lr": 1e-3},
        "evaluate": {"every": "4 steps", "batch_size": 4},
        "checkpoint": {"every": "1000 steps"},
        "tracking": {"log_every": "1 step", "wandb": {"mode": "disabled"}},
    }
    joined = {section: shared.get(section, {}) | values if isinstance(values, dict) else values for section, values in sections.items()}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(shared | joined, sort_keys=False), encoding="utf-8")
    return path
