from __future__ import annotations

from pathlib import Path

import pytest

from launch.config.errors import ConfigError
from launch.config.load import Origin
from launch.config.resolve import BatchArithmetic
from launch.config.sources import LocalPath
from launch.config.strategy import Strategy, load_strategy
from launch.plan import Value


def test_auto_on_a_cpu_is_one_process_with_all_cores(make_plan):
    plan = make_plan()
    assert (plan.device, plan.engine, plan.world_size, plan.num_threads, plan.precision) == ("cpu", "single", 1, 8, "fp32")
    assert plan.batches == BatchArithmetic(32, 32, 1, 1)


def test_auto_with_two_processes_on_a_cpu_is_ddp_and_shares_the_cores(make_plan):
    plan = make_plan(processes_per_node=2)
    assert (plan.device, plan.engine, plan.world_size, plan.num_threads) == ("cpu", "ddp", 2, 4)
    assert plan.batches == BatchArithmetic(32, 16, 1, 2)


@pytest.mark.parametrize(("num_gpus", "engine"), [(1, "single"), (8, "ddp")])
def test_auto_takes_every_gpu(make_plan, make_probe, num_gpus, engine):
    plan = make_plan(probe=make_probe(num_gpus=num_gpus))
    assert (plan.device, plan.engine, plan.processes_per_node) == ("cuda", engine, num_gpus)


def test_strategy_counts_are_defaults_for_the_command_line(make_plan, make_probe):
    strategy, probe = load_strategy("ddp"), make_probe(num_gpus=8)
    assert make_plan(strategy=strategy, probe=probe).processes_per_node == 2
    plan = make_plan(strategy=strategy, probe=probe, processes_per_node=8)
    assert plan.processes_per_node == 8
    assert plan.values["processes_per_node"] == Value(8, Origin("override", "--processes-per-node"))
    assert plan.precision == "bf16"
    assert plan.values["train.precision"].origin == Origin("strategy", strategy.where)


def test_steps_are_counted_over_the_duration(make_plan):
    assert make_plan().optimizer_steps == 8  # 2 epochs of ceil(100 / 32)
    assert make_plan("train.duration=17 steps").optimizer_steps == 17


def test_unknown_number_of_samples_leaves_steps_open_with_the_reason(make_plan, make_probe):
    plan = make_plan(probe=make_probe(num_samples=None))
    assert (plan.optimizer_steps, plan.optimizer_steps_reason) == (None, "the data has not been fetched yet")


def test_empty_train_split_is_refused(make_plan, make_probe):
    with pytest.raises(ConfigError, match="the train split is empty"):
        make_plan(probe=make_probe(num_samples=0))
    with pytest.raises(ConfigError, match=r"data\.train_fraction: 0\.001 of the rows leave none to train on"):
        make_plan("data.train_fraction=0.001", probe=make_probe(num_samples=0))


def test_one_process_strategy_refuses_several(make_plan):
    single = Strategy("single", engine="single", use_cpu=True, where="/s.yaml")
    with pytest.raises(ConfigError, match=r"/s\.yaml: 2 processes under the strategy single"):
        make_plan(strategy=single, processes_per_node=2)


def test_fp16_on_a_cpu_is_refused_where_it_was_set(make_plan):
    with pytest.raises(ConfigError, match=r"^train\.precision=fp16: fp16 needs the loss scaling of a GPU"):
        make_plan("train.precision=fp16")


def test_uneven_global_batch_names_its_line_and_the_nearest_values(make_plan):
    with pytest.raises(ConfigError) as caught:
        make_plan(processes_per_node=3)
    assert str(caught.value).splitlines()[0] == "/experiments/tiny.yaml:11: train.global_batch_size: 32 samples do not split evenly over 3 processes"
    assert "nearest 30 or 33" in str(caught.value)


def test_threads_set_by_the_person_are_kept(make_plan, make_probe):
    plan = make_plan(probe=make_probe(num_threads=3), processes_per_node=2)
    assert plan.num_threads == 3
    assert plan.values["threads_per_rank"].origin == Origin("environment", "OMP_NUM_THREADS")


def test_local_sources_become_absolute_and_keep_their_origin(make_plan, make_probe):
    plan = make_plan("model.source=./m", probe=make_probe(model=LocalPath(Path("/here/m"))))
    assert plan.experiment.model.source == "/here/m"
    assert plan.values["model.source"] == Value("/here/m", Origin("override", "model.source=./m"))


def test_every_value_has_an_origin(make_plan):
    values = make_plan("optimizer.lr=3e-5").values
    assert values["optimizer.lr"] == Value(3e-5, Origin("override", "optimizer.lr=3e-5"))
    assert values["train.global_batch_size"] == Value(32, Origin("experiment", "/experiments/tiny.yaml:11"))
    assert values["seed"] == Value(0, Origin("default"))
    assert values["train.micro_batch_size"] == Value(32, Origin("derived", "32 samples / 1 process"))
    assert values["world_size"].value == 1


def test_port_is_the_same_for_a_run_id_and_below_the_ephemeral_range(make_plan):
    assert make_plan().port == make_plan().port
    assert 20000 <= make_plan().port < 32768


def test_warnings_name_idle_gpus_and_a_cpu_chosen_beside_gpus(make_plan, make_probe):
    assert make_plan(probe=make_probe(num_gpus=4), processes_per_node=2).warnings == ("2 of 4 GPUs stay idle: --processes-per-node 4 uses all",)
    cpu = make_plan(strategy=load_strategy("cpu"), probe=make_probe(num_gpus=4))
    assert cpu.warnings == ("training on the CPU although this machine has 4 GPUs",)


def test_global_batch_larger_than_the_train_split_is_warned_of(make_plan, make_probe):
    assert make_plan(probe=make_probe(num_samples=32)).warnings == ()
    (warning,) = make_plan(probe=make_probe(num_samples=31)).warnings
    assert warning == "a global batch of 32, but 31 samples to train on: each epoch is one step of 31"
