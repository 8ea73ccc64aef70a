from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from launch.config.errors import ConfigError, PreflightError, Problem
from launch.config.strategy import AUTO, load_strategy
from launch.plan import Options
from launch.plan_script import plan_script
from launch.preflight import preflight
from launch.probe import Place
from launch.script_file import read_script

RUN = Path("/runs/tiny/20260101-000000-abcdef")
GOOD = Place(RUN, exists=False, is_empty=True, is_writable=True, free_bytes=100 * 2**30)
ALL = {"torch": "2.15.0", "transformers": "5.23.0", "accelerate": "1.15.0", "datasets": "5.0.0", "wandb": "0.31.0"}


def problems(make_plan, make_probe, *overrides, strategy="auto", processes_per_node=None, launcher="direct", nodes=None, attempt=1, **answers):
    probe = make_probe(**answers)
    plan = make_plan(
        *overrides,
        strategy=load_strategy(strategy),
        probe=probe,
        processes_per_node=processes_per_node,
        launcher=launcher,
        nodes=nodes,
        attempt=attempt,
    )
    with pytest.raises((ConfigError, PreflightError)) as caught:
        preflight(plan, probe)
    return type(caught.value), [problem.what for problem in caught.value.problems]


def test_a_sound_plan_has_no_problem(make_plan, make_probe):
    preflight(make_plan(), make_probe())


def test_gpu_strategy_without_gpus(make_plan, make_probe):
    assert problems(make_plan, make_probe, strategy="ddp") == (ConfigError, ["the strategy ddp is for GPUs, and node1 has none"])


def test_more_processes_than_gpus(make_plan, make_probe):
    assert problems(make_plan, make_probe, num_gpus=2, processes_per_node=4) == (ConfigError, ["4 processes for 2 GPUs"])


def test_missing_training_packages_name_the_extra(make_plan, make_probe):
    probe = make_probe(versions={"accelerate": "1"})
    with pytest.raises(PreflightError) as caught:
        preflight(make_plan(probe=probe), probe)
    assert (
        str(caught.value)
        == "torch, transformers, datasets not installed in /env/bin/python\n    try: pip install '.[train]' in the folder of fullrank's sources"
    )


def test_deepspeed_launcher_needs_deepspeed(make_plan, make_probe):
    assert problems(make_plan, make_probe, launcher="deepspeed") == (PreflightError, ["deepspeed is not installed in /env/bin/python"])


def test_missing_local_path_names_where_it_was_set(make_plan, make_probe):
    probe = make_probe(missing_paths={"model.source": Path("/no/model")})
    with pytest.raises(ConfigError, match=r"^/experiments/tiny.yaml:2: model.source: there is no /no/model"):
        preflight(make_plan(probe=probe), probe)


def test_nearest_name_stands_beside_what_is_missing(make_plan, make_probe):
    probe = make_probe(missing_paths={"model.source": Path("/no/model")}, near_paths={"model.source": "/no/models"})
    with pytest.raises(ConfigError, match=r"model.source: there is no /no/model \(did you mean /no/models\?\)"):
        preflight(make_plan(probe=probe), probe)


def test_hub_name_that_is_not_cached_while_the_hub_is_off(make_plan, make_probe):
    found = problems(make_plan, make_probe, is_offline=True, hub_cached=frozenset({"data.source"}))
    assert found == (ConfigError, ["owner/model is no folder here and not in the hub cache, and the hub is switched off (HF_HUB_OFFLINE)"])


def test_hub_name_that_is_not_cached_while_the_hub_does_not_answer(make_plan, make_probe):
    found = problems(make_plan, make_probe, unreachable_hub="https://hub.example", hub_cached=frozenset({"model.source"}))
    assert found == (PreflightError, ["owner/data is no folder here and not in the hub cache, and https://hub.example does not answer"])


@pytest.mark.parametrize(
    ("place", "what"),
    [
        (Place(RUN, exists=True, is_empty=False, is_writable=True, free_bytes=2**40), "the run directory exists and is not empty"),
        (Place(RUN, exists=False, is_empty=True, is_writable=False, free_bytes=2**40), "cannot be written to"),
    ],
)
def test_run_directory_that_cannot_be_used(make_plan, make_probe, place, what):
    assert problems(make_plan, make_probe, place=place) == (ConfigError, [what])


def test_full_disk_is_what_the_machine_lacks(make_plan, make_probe):
    place = Place(RUN, exists=False, is_empty=True, is_writable=True, free_bytes=2**28)
    assert problems(make_plan, make_probe, place=place) == (PreflightError, ["only 256 MiB free for logs, checkpoints and the model"])
    unknown = replace(place, free_bytes=None)
    preflight(make_plan(probe=make_probe(place=unknown)), make_probe(place=unknown))


def test_script_needs_room_for_its_logs_alone(make_probe, tmp_path):
    (tmp_path / "mine.py").touch()
    place = Place(RUN, exists=False, is_empty=True, is_writable=True, free_bytes=2**24)
    probe = make_probe(place=place)
    plan = plan_script(read_script(tmp_path / "mine.py"), (), tmp_path, AUTO, probe, Options(RUN))
    preflight(plan, probe)
    short = make_probe(place=replace(place, free_bytes=2**20))
    with pytest.raises(PreflightError, match="only 1 MiB free"):
        preflight(plan, short)


def test_run_directory_of_a_later_attempt_may_exist(make_plan, make_probe):
    probe = make_probe(place=Place(RUN, exists=True, is_empty=False, is_writable=True, free_bytes=2**40))
    preflight(make_plan(probe=probe, attempt=2), probe)


def test_wandb_online_without_a_login(make_plan, make_probe):
    found = problems(make_plan, make_probe, "tracking.wandb.mode=online")
    assert found == (PreflightError, ["online, but W&B has no login here"])


def test_several_nodes_are_not_started_from_here(make_plan, make_probe):
    assert problems(make_plan, make_probe, nodes=2) == (PreflightError, ["2 nodes cannot be started from here"])


def test_all_problems_come_at_once_and_what_was_asked_decides_the_kind(make_plan, make_probe):
    found = problems(make_plan, make_probe, strategy="single_gpu", versions={}, missing_paths={"data.source": Path("/d")})
    assert found == (
        ConfigError,
        [
            "the strategy single_gpu is for GPUs, and node1 has none",
            "there is no /d",
            "torch, transformers, accelerate, datasets not installed in /env/bin/python",
        ],
    )


def test_unfit_source_is_refused_as_input(make_plan, make_probe):
    probe = make_probe(unfit_sources=(Problem("there is no column 'nope'", "/data/train.csv", "task.text"),))
    with pytest.raises(ConfigError, match=r"task\.text: there is no column 'nope'"):
        preflight(make_plan(), probe)


def test_weights_that_cannot_be_had_are_named(make_plan, make_probe):
    found = problems(make_plan, make_probe, unreachable_weights="https://weights.example")
    assert found == (PreflightError, ["its weights are not in torch's cache, and https://weights.example does not answer"])
