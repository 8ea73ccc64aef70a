"""Pictures in real processes: the same samples on any number of ranks, what is saved can be used, and the examples run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import yaml

from tests.forked_ranks import ForkedRank, fork_ranks
from tests.ranks import ROOT, TIMEOUT_S, read_records, start_ranks, train
from tests.tiny_pictures import CLASSES, tiny_folder
from trainers.images.classifier import load_classifier

pytestmark = pytest.mark.integration

RECORDER = """\
import json, os
from pathlib import Path
from launch.config.tasks import ImageClassification
from trainers.images.samples import prepared
from trainers.tasks.image_classification import ImageClassificationTask

class Options(ImageClassification):
    kind: str = "image_classification"

class Recorded(ImageClassificationTask):
    def train_loss(self, model, batch, label_smoothing):
        line = [[int(picture.long().sum()), int(label)] for picture, label in zip(batch["pixels"], batch["labels"])]
        with Path(os.environ["RECORD"], os.environ.get("RANK", "0")).open("a") as file:
            file.write(json.dumps(line) + "\\n")
        return super().train_loss(model, batch, label_smoothing)

def build_task(experiment):
    return Recorded(experiment, *prepared(experiment))
"""


def write_experiment(folder: Path, **sections: dict[str, Any]) -> Path:
    """A ResNet-8 from random weights on 24 pictures of 3 classes, randomly cut and mirrored; BatchNorm frozen."""
    values: dict[str, Any] = {
        "name": "pictures",
        "model": {"class": "trainers.architectures.cifar_resnet:CifarResNet", "kwargs": {"depth": 8}, "batch_norm": "frozen"},
        "task": {"kind": "own", "file": "recorder.py", "options": {"size": 32, "crop": "resized", "flip": 0.5}},
        "data": {"source": str(tiny_folder(folder / "pictures", num_each=8)), "splits": {"validation": "val"}, "num_workers": 1},
        "train": {"duration": "4 steps", "global_batch_size": 8, "group_by_length": False},
        "optimizer": {"name": "sgd", "lr": 0.01},
        "schedule": {"name": "constant"},
        "evaluate": {"metric": "accuracy", "mode": "max"},
        "tracking": {"log_every": "1 step", "wandb": {"mode": "disabled"}},
    }
    (folder / "recorder.py").write_text(RECORDER)
    path = folder / "pictures.yaml"
    path.write_text(yaml.safe_dump(values | sections))
    return path


def recorded(folder: Path) -> list[list[Any]]:
    """Returns what every step saw over all ranks, sorted."""
    ranks = [[json.loads(line) for line in path.read_text().splitlines()] for path in sorted(folder.iterdir())]
    return [sorted(sample for batch in step for sample in batch) for step in zip(*ranks, strict=True)]


def test_two_processes_see_the_same_pictures_changed_alike_and_lose_alike(tmp_path: Path) -> None:
    experiment = write_experiment(tmp_path)
    started = []
    for num_processes in (1, 2):
        (tmp_path / f"record{num_processes}").mkdir()
        words = ["--config", str(experiment), "--run-dir", str(tmp_path / f"run{num_processes}"), f"train.micro_batch_size={8 // num_processes}"]
        started += fork_ranks(words, num_processes, RECORD=str(tmp_path / f"record{num_processes}"))
    finish(started)
    losses = {n: [r["loss"] for r in read_records(tmp_path / f"run{n}") if r["split"] in ("train", "validation")] for n in (1, 2)}
    one, two = recorded(tmp_path / "record1"), recorded(tmp_path / "record2")
    assert len(one) == 4
    assert two[-4:] == one  # DDP's throw-away pass comes first on two ranks
    assert losses[2] == pytest.approx(losses[1], rel=1e-4)


def test_what_a_run_saved_classifies_a_picture_in_three_lines(tmp_path: Path) -> None:
    task = {"kind": "image_classification", "size": 16}
    small = {"class": "trainers.architectures.small_cnn:SmallCnn", "kwargs": {"channels": 3, "size": 16}}
    experiment = write_experiment(tmp_path, task=task, model=small, optimizer={"name": "adamw", "lr": 0.003})
    train(experiment, tmp_path / "run", "train.duration=12 epochs", "data.num_workers=0")
    classify = load_classifier(tmp_path / "run" / "model")
    for name in CLASSES:
        assert next(iter(classify(tmp_path / f"pictures/val/{name}/0.png"))) == name


def test_the_examples_of_ones_own_code_run_and_keep_the_code(tmp_path: Path) -> None:
    pictures = tiny_folder(tmp_path / "pictures", num_each=4)
    overrides = (f"data.source={pictures}", "train.duration=1 epoch", "data.num_workers=0", "tracking.wandb.mode=disabled")
    examples = {name: shutil.copytree(ROOT / "examples" / name, tmp_path / name) for name in ("own_model", "own_task")}
    runs = {name: tmp_path / f"run_{name}" for name in examples}
    finish(
        [
            rank
            for name in examples
            for rank in start_ranks(["--config", str(examples[name] / f"{name}.yaml"), "--run-dir", str(runs[name]), *overrides], 1)
        ]
    )
    for name, example in examples.items():
        assert sum(len(path.read_text().splitlines()) for path in example.iterdir() if path.is_file()) < 60
        code = next(example.glob("*.py")).name
        assert (runs[name] / "code" / code).read_text() == (example / code).read_text()
        shutil.rmtree(example)  # from here on the run stands on its own
    words = {run: ["--config", str(run / "resolved.yaml"), "--run-dir", str(run), "train.duration=2 epochs"] for run in runs.values()}
    finish([rank for run in runs.values() for rank in fork_ranks(words[run], 1)])
    assert [len(read_records(run, "validation")) for run in runs.values()] == [2, 2]
    for run in runs.values():  # a task that is made of image classification is used as that is
        assert f'classify = load_classifier("{run / "model"}")' in (run / "report.md").read_text()


def finish(ranks: Sequence[Popen[str] | ForkedRank]) -> None:
    """Waits for processes that run side by side; fails with the output of all if one fails."""
    outputs = [rank.communicate(timeout=TIMEOUT_S)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * len(ranks), "\n".join(outputs)
