from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from launch.config.accelerate_blocks import DEEPSPEED_KEYS, DEEPSPEED_OTHERS, FSDP_DEFAULTS, FSDP_INERT
from launch.config.load import load_experiment, shipped_configs
from launch.config.strategy import load_strategy
from launch.config.yaml_files import load_yaml
from launch.schema import DIALECT, SCHEMAS

KINDS = {"experiments": "experiment", "pipelines": "pipeline", "accelerate": "strategy", "clusters": "cluster"}
SHIPPED = [(path, KINDS[path.parent.name]) for path in sorted(shipped_configs().glob("*/*.yaml"))]
QUICKSTART = load_yaml(shipped_configs() / "experiments/quickstart.yaml").values


def errors(kind: str, values: dict[str, Any]) -> list[str]:
    validator = jsonschema.Draft202012Validator(SCHEMAS[kind]())
    return sorted(f"{error.json_path}: {error.message}" for error in validator.iter_errors(values))


def changed(key: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(QUICKSTART)
    *parents, last = key.split(".")
    parent = values
    for part in parents:
        parent = parent[part]
    parent[last] = value
    return values


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_schema_is_one(kind):
    schema = SCHEMAS[kind]()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert (schema["$schema"], schema["additionalProperties"]) == (DIALECT, False)


@pytest.mark.parametrize(("path", "kind"), SHIPPED, ids=[path.stem for path, _ in SHIPPED])
def test_a_shipped_file_is_valid_and_names_its_schema_for_the_editor(path: Path, kind: str):
    assert errors(kind, load_yaml(path).values) == []
    relative = next(line for line in path.read_text(encoding="utf-8").splitlines() if "yaml-language-server" in line).rpartition("$schema=")[2]
    assert (path.parent / relative).resolve() == shipped_configs().resolve() / f"schema/{kind}.json"
    assert json.loads((path.parent / relative).read_text(encoding="utf-8"))["title"] == SCHEMAS[kind]()["title"]


@pytest.mark.parametrize("experiment", sorted(path.stem for path in (shipped_configs() / "experiments").glob("*.yaml")))
def test_every_value_that_a_run_resolves_is_valid_too(experiment):
    from launch.config.experiment import dump_experiment

    assert errors("experiment", dump_experiment(load_experiment(experiment).experiment)) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer.learning_rate", 1e-3),
        ("optimizer.lr", 0),
        ("train.duration", "3"),
        ("train.duration", "30 minutes"),
        ("train.duration", "10 %"),
        ("task.kind", "text_clasification"),
        ("task.txt", "sentence"),
        ("data.format", "excel"),
        ("data.validation_fraction", 1),
        ("seed", "0"),
        ("name", "a/b"),
    ],
)
def test_what_the_loader_refuses_the_schema_refuses(key, value):
    assert errors("experiment", changed(key, value))


@pytest.mark.parametrize(
    ("key", "value"),
    [("schedule.warmup", "10 %"), ("train.duration", "2_000 steps"), ("train.duration", "1e3 steps"), ("checkpoint", {"every": None})],
)
def test_what_the_loader_takes_the_schema_takes(key, value):
    assert errors("experiment", changed(key, value)) == []


def test_a_duration_s_default_is_written_as_a_person_would():
    assert SCHEMAS["experiment"]()["$defs"]["Tracking"]["properties"]["log_every"]["default"] == "10 steps"


@pytest.mark.parametrize(
    "values",
    [{"distributed_type": "TPU"}, {"mixed_precison": "no"}, {"num_processes": 0}, {"mixed_precision": "bf8"}, {"tpu_use_sudo": True}],
)
def test_a_strategy_that_the_loader_refuses_the_schema_refuses(values, tmp_path):
    assert errors("strategy", values)
    from launch.config.errors import ConfigError

    (tmp_path / "s.yaml").write_text(json.dumps(values))
    with pytest.raises(ConfigError):
        load_strategy(str(tmp_path / "s.yaml"))


def test_what_shards_is_in_the_schema_key_by_key():
    blocks = SCHEMAS["strategy"]()["properties"]
    assert set(blocks["fsdp_config"]["properties"]) == {*FSDP_DEFAULTS, *FSDP_INERT}
    assert set(blocks["deepspeed_config"]["properties"]) == {*DEEPSPEED_KEYS, *DEEPSPEED_OTHERS}
    assert errors("strategy", {"distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 1}})


def test_files_in_gpu_ids_that_hide_every_gpu_are_valid():
    assert errors("strategy", {"gpu_ids": "-1,-1"}) == errors("strategy", {"gpu_ids": "all"}) == []
    assert errors("strategy", {"gpu_ids": "0,1"})
