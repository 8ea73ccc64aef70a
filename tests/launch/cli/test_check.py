from __future__ import annotations

import json

import pytest

HURTING = ("NCCL_", "OMP_", "PYTHONDONT", "SLURM_", "RANK", "WORLD_SIZE", "MASTER_", "LOCAL_")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(HURTING):
            monkeypatch.delenv(name)


def test_check_of_a_sound_experiment_lists_every_check_and_ends_with_0(fullrank, experiment_file, tmp_path):
    answer = fullrank("check", experiment_file)
    assert (answer.code, answer.err) == (0, "nothing wrong\n")
    lines = [line.split()[:2] for line in answer.out.splitlines()]
    assert {status for status, _ in lines} == {"ok"}
    assert [name for _, name in lines] == sorted({name for _, name in lines}, key=[name for _, name in lines].index)
    assert {"plan", "devices", "run_dir", "paths", "packages", "hub", "environment"} <= {name for _, name in lines}
    assert not (tmp_path / "runs").exists()


def test_check_names_every_problem_at_once_with_its_way_out(fullrank, experiment_file):
    answer = fullrank("check", experiment_file, "model.source=./no-model", "--strategy", "cpu", "--nodes", "2")
    assert answer.code == 2
    assert answer.err == "2 problems, 0 warnings\n"
    problems = [line for line in answer.out.splitlines() if line.startswith("problem")]
    assert ["2 nodes cannot be started from here" in problems[1], "there is no" in problems[0]] == [True, True]
    assert answer.out.count("         try: ") == 2


def test_check_of_what_the_machine_lacks_ends_with_3(fullrank, experiment_file):
    assert fullrank("check", experiment_file, "--strategy", "cpu", "--nodes", "2").code == 3


def test_check_tells_warnings_of_the_plan_and_of_the_environment(fullrank, experiment_file, monkeypatch):
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    answer = fullrank("check", experiment_file, "train.precision=bf16", "--strategy", "cpu")
    warnings = [line.split()[1] for line in answer.out.splitlines() if line.startswith("warning")]
    assert (answer.code, warnings) == (0, ["plan", "environment"])


def test_check_json_is_the_same_for_programs(fullrank, experiment_file):
    answer = fullrank("check", experiment_file, "model.source=./no-model", "--json")
    facts = json.loads(answer.out)
    assert (answer.code, facts["ok"]) == (2, False)
    (problem,) = [found for found in facts["checks"] if found["status"] == "problem"]
    assert (problem["check"], problem["fix"]) == ("paths", "check the path")


def test_check_alone_looks_at_the_machine_and_never_shows_a_key(fullrank, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789secret")
    answer = fullrank("check")
    names = {line.split()[1] for line in answer.out.splitlines() if not line.startswith(" ")}
    assert {"python", "machine", "extra", "gpus", "cache", "runs", "hub", "wandb", "slurm"} <= names
    assert "secret" not in answer.out + answer.err


def test_check_alone_of_a_cache_that_cannot_be_written_ends_with_3(fullrank, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "file" / "cache"))
    answer = fullrank("check")
    assert answer.code == 3
    assert f"{tmp_path}/file/cache cannot be written to" in answer.out


OWN = """\
name: own
model: {class: "my_models:Net", kwargs: {width: 8}}
task: {kind: image_classification}
data: {source: ., format: image_folder}
train: {duration: 1 epoch, global_batch_size: 4}
optimizer: {lr: 1e-3}
"""


@pytest.mark.integration
def test_a_class_of_one_s_own_is_imported_in_a_process_of_its_own(fullrank, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH")  # the stand-in for trainers
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text(OWN)
    (tmp_path / "my_models.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Linear):\n    def __init__(self, width):\n        super().__init__(width, 2)\n"
    )
    assert "own code     imported, and of the right kind" in fullrank("check", "./own.yaml").out
    misspelt = fullrank("check", "./own.yaml", "model.class=my_models:Nett")
    assert (misspelt.code, "my_models has no Nett; did you mean 'Net'?" in misspelt.out) == (2, True)
    (tmp_path / "my_models.py").write_text("import os\n\nos._exit(7)\n\n\nclass Net: ...\n")
    assert "importing it ended the process: exit code 7" in fullrank("check", "./own.yaml").out


def test_own_code_is_not_imported_where_the_training_side_is_not_installed(fullrank, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("launch.cli.check.missing_training_packages", lambda: ["torch"])
    (tmp_path / "own.yaml").write_text(OWN)
    assert "own code" not in fullrank("check", "./own.yaml").out


def test_files_are_looked_at_where_keys_do_not_fit_together(fullrank, experiment_file):
    answer = fullrank("check", experiment_file, "evaluate.metric=acuracy", "data.source=./away")
    assert answer.code == 2
    assert "'acuracy' is not a metric" in answer.err
    assert "data.source=./away: there is no " in answer.err


def test_slurms_commands_without_a_cluster_hide_no_other_check(fullrank, experiment_file, tmp_path, monkeypatch):
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, line in {"sbatch": "", "scontrol": "echo 'scontrol: fatal: Could not establish a configuration source' >&2; exit 1"}.items():
        (commands / name).write_text(f"#!/bin/bash\n{line}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(commands), prepend=":")
    told = "scontrol: fatal: Could not establish a configuration source: what the cluster has could not be asked"
    words = (experiment_file, "--strategy", "cpu", "--cluster", "example_cpu")
    checked = fullrank("check", *words, "model.source=./no-model")
    assert checked.code == 2
    assert checked.err == "1 problem, 1 warning\n"
    assert told in checked.out
    assert "         try: fullrank on the cluster's login node" in checked.out
    shown = fullrank("submit", *words, "--dry-run")
    assert (shown.code, shown.err) == (0, f"warning: {told}\n")
    assert shown.out.startswith("#!/bin/bash\n")
    assert fullrank("submit", *words).code == 1
