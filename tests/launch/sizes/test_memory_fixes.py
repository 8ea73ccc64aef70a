from __future__ import annotations

from dataclasses import replace

import pytest

from launch.config.errors import PreflightError
from launch.config.strategy import load_strategy
from launch.gpus import Gpu
from launch.preflight import preflight
from launch.sizes.memory import GIB
from launch.sizes.memory_fixes import find_memory_fixes
from launch.sizes.model_size import ModelSize, Transformer

BERT_BASE = ModelSize(110_000_000, 110_000_000, 7_000_000, 26_000_000, Transformer(12, 768, 12, 3072), "a test")


def host(make_probe, memory_gib, size=BERT_BASE):
    probe = make_probe(size=size)
    return replace(probe, machine=replace(probe.machine, memory_bytes=int(memory_gib * GIB)))


def gpu(make_probe, memory_gib, size=BERT_BASE):
    probe = make_probe(num_gpus=1, size=size)
    return replace(probe, machine=replace(probe.machine, gpus=(Gpu("small", (9, 0), int(memory_gib * GIB)),)))


def fixes(plan, probe):
    return find_memory_fixes(plan, probe.machine)


def test_processes_that_share_too_little_memory_are_told_how_many_fit_and_nothing_that_would_not_help(make_plan, make_probe):
    probe = host(make_probe, 16)
    plan = make_plan("train.global_batch_size=32", "task.max_length=16", strategy=load_strategy("cpu"), probe=probe, processes_per_node=16)
    assert plan.memory.budget.bytes < 0
    with pytest.raises(PreflightError) as caught:
        preflight(plan, probe)
    assert str(caught.value).splitlines()[-1] == "    try: --processes-per-node 4; or train.memory_check=warn, to try it all the same"
    fits = make_plan("train.global_batch_size=32", "task.max_length=16", strategy=load_strategy("cpu"), probe=probe, processes_per_node=4)
    assert not fits.memory.is_too_large


def test_on_a_cpu_no_strategy_of_gpus_is_named(make_plan, make_probe):
    probe = host(make_probe, 5)
    plan = make_plan("train.global_batch_size=32", "task.max_length=16", strategy=load_strategy("cpu"), probe=probe, processes_per_node=2)
    assert fixes(plan, probe) == ["--strategy fsdp2", "--processes-per-node 1"]


def test_checkpointing_is_named_where_it_makes_the_batch_fit(make_plan, make_probe):
    probe = gpu(make_probe, 12)
    words = ("train.global_batch_size=64", "train.micro_batch_size=64", "task.max_length=512")
    plan = make_plan(*words, probe=probe)
    assert "model.gradient_checkpointing=true" in fixes(plan, probe)
    assert not make_plan(*words, "model.gradient_checkpointing=true", probe=probe).memory.is_too_large


def test_checkpointing_that_needs_a_smaller_batch_says_so(make_plan, make_probe):
    probe = gpu(make_probe, 4.2)
    plan = make_plan("train.global_batch_size=64", "train.micro_batch_size=64", "task.max_length=512", probe=probe)
    assert "model.gradient_checkpointing=true train.micro_batch_size=1" in fixes(plan, probe)


def test_a_micro_batch_of_1_that_does_not_fit_either_is_not_named(make_plan, make_probe):
    probe = gpu(make_probe, 2.5)
    plan = make_plan("train.global_batch_size=64", "train.micro_batch_size=64", "task.max_length=512", probe=probe)
    assert not any("micro_batch_size" in fix for fix in fixes(plan, probe))
