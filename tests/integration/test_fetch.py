"""What `fullrank fetch` brought is all that a training needs: with the index shut down and the hub switched off it runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.package_index import make_zip, serve
from tests.tiny import tiny_bert, tiny_sentences

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def fullrank(*words: object, cwd: Path, **environment: str) -> Ended:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PIP_", "UV_", "FULLRANK_", "WANDB_"))}
    settings = {"XDG_CACHE_HOME": str(cwd / "home"), "PIP_CONFIG_FILE": os.devnull, "OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, "-m", "launch", *map(str, words)]
    ended = subprocess.run(command, cwd=cwd, env=kept | settings, capture_output=True, text=True)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert") / "bert")


def written(folder: Path, model: str, data: str) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(
        f"name: tiny\nmodel: {{source: '{model}'}}\ntask: {{kind: text_classification, text: text, label: label, max_length: 16}}\n"
        f"data: {{source: '{data}', splits: {{validation: null}}, validation_fraction: 0.25, num_workers: 0}}\n"
        "train: {duration: 2 steps, global_batch_size: 8}\noptimizer: {lr: 1e-3}\ntracking: {wandb: {mode: disabled}}\n",
        encoding="utf-8",
    )
    return path


def test_after_fetch_a_training_runs_without_index_and_hub(bert: Path, tmp_path: Path) -> None:
    rows = tiny_sentences(tmp_path / "rows.tsv", 40).read_bytes()
    wheel = make_zip({f"tiny/bert/{file.name}": file.read_bytes() for file in bert.iterdir()})
    with serve(tmp_path / "index") as index:
        model_sha = index.add("tiny-bert", "tiny_bert-1.0-py3-none-any.whl", wheel)
        data_sha = index.add("tiny-rows", "tiny_rows-1.0.zip", make_zip({"rows/rows.tsv": rows}))
        experiment = written(
            tmp_path, f"pypi://tiny-bert==1.0/tiny/bert#sha256={model_sha}", f"pypi://tiny-rows==1.0/rows/rows.tsv#sha256={data_sha}"
        )
        address = {"PIP_INDEX_URL": index.url, "FULLRANK_CACHE": str(tmp_path / "cache")}
        fetched = fullrank("fetch", experiment, "--json", cwd=tmp_path, **address)
        assert fetched.code == 0, fetched.err
        answer = json.loads(fetched.out)
        assert [(part["part"], part["num_bytes"] > 0) for part in answer["fetched"]] == [("model", True), ("data", True)]
        assert answer["fetched"][1]["notes"] == ["samples: 30 train, 10 validation"]
        assert answer["environment"] == {"FULLRANK_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
        requests = len(index.requests)
        assert fullrank("fetch", experiment, cwd=tmp_path, **address).code == 0
        assert len(index.requests) == requests  # once

    trained = fullrank("run", experiment, "--strategy", "cpu", cwd=tmp_path, **(address | answer["environment"]))
    assert trained.code == 0, trained.err
    (run,) = (tmp_path / "runs/tiny").iterdir()
    assert json.loads((run / "status.json").read_text())["state"] == "completed"


def test_every_part_that_cannot_be_fetched_is_named_and_the_others_come(bert: Path, tmp_path: Path) -> None:
    with serve(tmp_path / "index") as index:
        sha = index.add("tiny-bert", "tiny_bert-1.0-py3-none-any.whl", make_zip({f"bert/{file.name}": file.read_bytes() for file in bert.iterdir()}))
        nothing = "0" * 64
        address = {"PIP_INDEX_URL": index.url, "FULLRANK_CACHE": str(tmp_path / "cache")}
        experiment = written(tmp_path, f"pypi://tiny-bert==1.0/bert#sha256={sha}", f"pypi://nothing==1.0/rows.tsv#sha256={nothing}")
        answer = fullrank("fetch", experiment, cwd=tmp_path, **address)
        assert (answer.code, answer.out.split()[0]) == (2, "model")
        assert "data.source: the package index has no nothing==1.0" in answer.err
        assert "export" not in answer.out
        both = fullrank("fetch", experiment, f"model.source=pypi://no-bert==2.0/x#sha256={nothing}", cwd=tmp_path, **address)
        assert [line.split(": ")[1] for line in both.err.splitlines() if line.startswith("error")] == ["model.source", "data.source"]


def test_a_pipeline_s_stages_are_all_fetched_and_what_they_share_once(bert: Path, tmp_path: Path) -> None:
    rows = tiny_sentences(tmp_path / "rows.tsv", 40)
    written(tmp_path, str(bert), str(rows))
    (tmp_path / "two.yaml").write_text(
        "name: two\nstages:\n  first: {experiment: ./tiny.yaml}\n"
        "  second: {experiment: ./tiny.yaml, overrides: {model.source: stages.first, task.max_length: 8}}\n"
    )
    fetched = fullrank("fetch", "./two.yaml", "--json", cwd=tmp_path)
    assert fetched.code == 0, fetched.err
    assert [part["part"] for part in json.loads(fetched.out)["fetched"]] == ["model", "data", "data"]
    refused = fullrank("fetch", "./two.yaml", "second.data.source=./gone", cwd=tmp_path)
    assert (refused.code, "gone" in refused.err, "model" in refused.out) == (2, True, True)


def test_a_model_in_the_hub_s_cache_is_fetched_and_used_with_the_hub_switched_off(bert: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hf/hub/models--owner--bert"
    shutil.copytree(bert, repository / "snapshots/0123456789abcdef0123456789abcdef01234567")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("0123456789abcdef0123456789abcdef01234567")
    experiment = written(tmp_path, "owner/bert", str(tiny_sentences(tmp_path / "rows.tsv", 40)))
    offline = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "FULLRANK_CACHE": str(tmp_path / "cache")}
    answer = fullrank("fetch", experiment, cwd=tmp_path, **offline)
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[-1] == f"export FULLRANK_CACHE={tmp_path}/cache HF_HOME={tmp_path}/hf HF_HUB_OFFLINE=1"
    assert fullrank("check", experiment, cwd=tmp_path, **offline).code == 0
    absent = fullrank("fetch", experiment, "model.source=owner/other", cwd=tmp_path, **offline)
    assert absent.code == 2
    assert "the hub's cache does not have it" in absent.err


def test_a_cache_that_cannot_be_written_is_one_message(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    experiment = written(tmp_path, str(bert), str(tiny_sentences(tmp_path / "rows.tsv", 40)))
    answer = fullrank("fetch", experiment, cwd=tmp_path, FULLRANK_CACHE=str(tmp_path / "file/cache"))
    assert answer.code == 2
    assert "FULLRANK_CACHE=DIR with room and write permission" in answer.err
    assert "Traceback" not in answer.err
