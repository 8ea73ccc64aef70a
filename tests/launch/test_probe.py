from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from launch.config.load import load_experiment
from launch.probe import count_gpus, free_port, probe_code, probe_experiment, probe_place, read_diff, read_untracked
from launch.processes import process_start


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "a.py").write_text("one\n")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-q", "-m", "a")
    return tmp_path


def test_code_is_commit_changes_and_untracked_files(repository):
    assert not probe_code(repository).is_dirty
    (repository / "a.py").write_text("two\n")
    (repository / "b.py").write_text("new\n")
    code = probe_code(repository / "")
    assert (len(code.commit), code.root, code.is_dirty) == (40, repository, True)
    assert read_diff(code).endswith("-one\n+two")
    assert read_untracked(code) == ["b.py"]


def test_folder_without_git_has_no_code(tmp_path):
    code = probe_code(tmp_path)
    assert (code.commit, code.root, read_diff(code), read_untracked(code)) == (None, None, "", [])


@pytest.mark.parametrize(("visible", "count"), [(None, 2), ("0,1", 2), ("1", 1), ("", 0), ("-1", 0), ("0,-1,1", 1), ("0,1,2,3", 2)])
def test_gpus_are_counted_as_cuda_would_see_them(tmp_path, monkeypatch, visible, count):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: H100 (UUID: GPU-1)'\necho 'GPU 1: H100 (UUID: GPU-2)'\n")
    smi.chmod(smi.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("launch.probe.DRIVER_GPUS", tmp_path / "none")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_gpus() == count


def test_no_driver_is_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr("launch.probe.DRIVER_GPUS", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert count_gpus() == 0


def test_place_is_judged_by_the_nearest_folder_that_exists(tmp_path):
    place = probe_place(tmp_path / "runs" / "x" / "1")
    assert (place.exists, place.is_empty, place.is_writable) == (False, True, True)
    (tmp_path / "file").write_text("")
    assert not probe_place(tmp_path / "file" / "x").is_writable
    assert not probe_place(tmp_path).is_empty


def test_taken_port_falls_back_to_the_next():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < free_port(port) < port + 20
        assert free_port(port, num_tries=1) is None


def test_process_start_tells_a_process_from_no_process():
    assert process_start(os.getpid()) == process_start(os.getpid()) is not None
    assert process_start(2**22 + 1) is None


def test_offline_and_hub_cache_are_read_from_the_environment(experiment_file, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    snapshot = tmp_path / "hf/hub/models--owner--model/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").write_text("")
    answers = probe_experiment(load_experiment(str(experiment_file)).experiment, tmp_path / "run", experiment_file)
    assert answers.is_offline
    assert answers.hub_cached == {"model.source"}


def test_the_hub_is_asked_only_for_what_is_not_here(experiment_file, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("launch.probe.is_reachable", asked.append)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example/")
    experiment = load_experiment(str(experiment_file)).experiment
    assert probe_experiment(experiment, tmp_path / "run", experiment_file).unreachable_hub == "https://hub.example"
    local = load_experiment(str(experiment_file), [f"data.source={tmp_path}", f"model.source={tmp_path}"]).experiment
    assert probe_experiment(local, tmp_path / "run", experiment_file).unreachable_hub is None
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert probe_experiment(experiment, tmp_path / "run", experiment_file).unreachable_hub is None
    assert asked == ["https://hub.example"]


def test_weights_of_torchvision_are_in_its_cache_or_their_server_answers(experiment_file, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("launch.probe.is_reachable", asked.append)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(source):
        experiment = load_experiment(str(experiment_file), [f"model.source={source}", "data.source=./x"]).experiment
        return probe_experiment(experiment, tmp_path / "run", experiment_file).unreachable_weights

    assert unreachable("torchvision://resnet50?weights=null") is None
    assert not asked
    assert unreachable("torchvision://resnet50?weights=DEFAULT") == "https://download.pytorch.org"
    assert asked == ["https://download.pytorch.org"]
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    (tmp_path / "hub/checkpoints/resnet50-11ad3fa6.pth").touch()
    assert unreachable("torchvision://resnet50?weights=DEFAULT") is None


def test_prepared_data_of_the_hub_needs_no_hub(experiment_file, tmp_path, monkeypatch):
    monkeypatch.setattr("launch.probe.read_prepared", lambda experiment: {"train": 7})
    answers = probe_experiment(load_experiment(str(experiment_file)).experiment, tmp_path / "run", experiment_file)
    assert answers.hub_cached == {"data.source"}


def test_missing_local_files_are_named_by_key(experiment_file, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.tsv").write_text("")
    overrides = [f"data.source={tmp_path}/data", "data.splits.train=train.tsv", "data.splits.validation=dev.tsv", f"model.source={tmp_path}/model"]
    answers = probe_experiment(load_experiment(str(experiment_file), overrides).experiment, tmp_path / "run", experiment_file)
    assert answers.missing_paths == {"model.source": tmp_path / "model", "data.splits.validation": tmp_path / "data" / "dev.tsv"}


def test_where_one_split_is_a_file_all_are(experiment_file, tmp_path):
    (tmp_path / "data").mkdir()
    overrides = [f"data.source={tmp_path}/data", "data.splits.train=train.tsv", "data.splits.test=test", f"model.source={tmp_path}"]
    experiment = load_experiment(str(experiment_file), overrides).experiment
    assert "data.splits.test" not in probe_experiment(experiment, tmp_path / "run", experiment_file).missing_paths
    (tmp_path / "data" / "train.tsv").write_text("")
    missing = probe_experiment(experiment, tmp_path / "run", experiment_file).missing_paths
    assert missing["data.splits.test"] == tmp_path / "data" / "test"


def test_a_mistyped_folder_is_told_of_the_one_that_is_there(experiment_file, tmp_path, monkeypatch):
    (tmp_path / "reviews").mkdir()
    monkeypatch.chdir(tmp_path)
    overrides = ["data.source=review", f"model.source={tmp_path}/revews"]
    answers = probe_experiment(load_experiment(str(experiment_file), overrides).experiment, tmp_path / "run", experiment_file)
    assert answers.near_paths == {"data.source": "./reviews", "model.source": f"{tmp_path}/reviews"}


def test_wandb_login_is_a_key_in_the_environment_or_in_netrc(experiment_file, tmp_path, monkeypatch):
    experiment = load_experiment(str(experiment_file)).experiment
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not probe_experiment(experiment, tmp_path, experiment_file).is_wandb_logged_in
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password x\n")
    assert probe_experiment(experiment, tmp_path, experiment_file).is_wandb_logged_in


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"kind": "distill", "text": "text", "label": "label", "teacher": "{folder}/nowhere"}, "task.teacher"),
        (
            {
                "kind": "multitask",
                "tasks": {
                    "mood": {"task": {"kind": "text_classification", "text": "text", "label": "label"}},
                    "names": {"task": {"kind": "ner"}, "data": {"source": "{folder}/nowhere"}},
                },
            },
            "task.tasks.names.data.source",
        ),
    ],
)
def test_what_a_task_reads_beside_is_looked_for_and_known_by_its_absolute_path(options, key, experiment_file, tmp_path):
    text = json.dumps(options).replace("{folder}", str(tmp_path))
    experiment = load_experiment(str(experiment_file), [f"task={text}", f"model.source={tmp_path}"]).experiment
    assert probe_experiment(experiment, tmp_path / "run", experiment_file).missing_paths == {key: tmp_path / "nowhere"}
    assert experiment.task.sources() == {key: f"{tmp_path}/nowhere"}
    assert experiment.task.with_sources({key: "/elsewhere"}).sources() == {key: "/elsewhere"}
