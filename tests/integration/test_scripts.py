"""Scripts that know nothing of fullrank, and one with the ten lines, started by `fullrank run --script` as a person would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from launch.processes import descendants
from tests.ranks import ROOT, TIMEOUT_S, clean_environment
from tests.tiny import tiny_bert, tiny_sentences

pytestmark = pytest.mark.integration
SCRIPTS = ROOT / "tests" / "scripts"


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Returns the arguments that give a script a tiny model and tiny files."""
    folder = tmp_path_factory.mktemp("material")
    tiny_bert(folder / "bert")
    tiny_sentences(folder / "train.tsv", 64)
    tiny_sentences(folder / "dev.tsv", 24, seed=1)
    return ["--model", str(folder / "bert"), "--train", str(folder / "train.tsv"), "--validation", str(folder / "dev.tsv"), "--batch-size", "4"]


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Returns the running `fullrank WORDS`."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "launch", *words],
        cwd=folder,
        env=clean_environment() | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def launch(folder: Path, *words: str) -> tuple[int, str]:
    """Returns the exit code and the stderr of `fullrank WORDS`."""
    running = start(folder, *words)
    _, err = running.communicate(timeout=TIMEOUT_S)
    return running.returncode, err


def wait_for(path: Path, running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not path.exists():
        assert running.poll() is None, running.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_example_stopped_by_a_signal_and_resumed_ends_with_the_same_weights(tmp_path, material):
    run = ["run", "--script", str(ROOT / "examples" / "resumable.py"), "--processes-per-node", "2"]
    arguments = ["--", *material, "--lr", "1e-3", "--save-every", "5"]
    assert launch(tmp_path, *run, "--run-dir", "whole", *arguments, "--output", "whole/model")[0] == 0

    stopped = start(tmp_path, *run, "--run-dir", "cut", *arguments, "--output", "cut/model")
    wait_for(tmp_path / "cut" / "checkpoints" / "checkpoint-5", stopped)
    stopped.send_signal(signal.SIGTERM)
    _, err = stopped.communicate(timeout=TIMEOUT_S)
    status = json.loads((tmp_path / "cut" / "status.json").read_text())
    assert (stopped.returncode, status["state"], status["cause"]) == (75, "stopped", "preempted"), err
    assert "stopped; go on with: fullrank resume cut" in err
    assert not (tmp_path / "cut" / "model").exists()

    code, err = launch(tmp_path, "resume", "cut")
    assert code == 0, err
    assert f"going on from {tmp_path}/cut/checkpoints/checkpoint-" in err
    whole, resumed = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut"))
    assert all(whole[name].equal(resumed[name]) for name in whole)


@pytest.mark.parametrize("processes", [1, 2])
def test_script_of_accelerates_shape_is_in_step_on_any_number_of_processes(tmp_path, material, processes):
    script = str(SCRIPTS / "nlp_style.py")
    code, err = launch(tmp_path, "run", "--run-dir", "r", "--script", script, "--processes-per-node", str(processes), "--", *material)
    assert code == 0, err
    assert f"rank 0 of {processes}, DistributedType.{'MULTI_CPU' if processes > 1 else 'NO'}, cpu" in err
    assert f"ranks agree: True over {processes}" in err
    assert "of 24" in err
    assert json.loads((tmp_path / "r" / "status.json").read_text())["state"] == "completed"


@pytest.mark.parametrize(("script", "processes"), [("nlp_style.py", 1), ("glue_style.py", 2)])
def test_exception_of_a_rank_is_the_report_and_leaves_nothing_behind(tmp_path, material, script, processes):
    bad = tmp_path / "train.tsv"
    bad.write_text(Path(material[3]).read_text() + "".join(f"good film\t{label}\n" for label in [0, 1] * 7 + [0, 9]))
    before = descendants(os.getpid())
    words = ["run", "--run-dir", "r", "--script", str(SCRIPTS / script), "--processes-per-node", str(processes), "--"]
    code, err = launch(tmp_path, *words, *material, "--train", str(bad))
    assert code == 1
    assert "IndexError: Target 9 is out of bounds." in err
    failure = json.loads((tmp_path / "r" / "attempts" / "0001" / "failure.json").read_text())
    assert (failure["exception"], failure["message"]) == ("IndexError", "Target 9 is out of bounds.")
    assert descendants(os.getpid()) <= before
    assert json.loads((tmp_path / "r" / "status.json").read_text())["state"] == "failed"


def test_script_of_transformers_shape_runs_unmodified_on_two_processes(tmp_path, material):
    words = ["run", "--run-dir", "r", "--script", str(SCRIPTS / "glue_style.py"), "--processes-per-node", "2", "--"]
    code, err = launch(tmp_path, *words, *material, "--output_dir", "r/out", "--checkpointing_steps", "4")
    assert code == 0, err
    results = json.loads((tmp_path / "r" / "out" / "all_results.json").read_text())
    assert (results["num_processes"], results["count"]) == (2, 24)
    assert (tmp_path / "r" / "out" / "step_4").is_dir()
