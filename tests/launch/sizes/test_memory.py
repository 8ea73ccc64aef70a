from __future__ import annotations

from dataclasses import replace

import pytest

from launch.config.errors import ConfigError, PreflightError
from launch.config.experiment import Optimizer
from launch.config.sharding import DeepSpeed, Fsdp
from launch.config.strategy import load_strategy
from launch.gpus import Gpu
from launch.plan import Value
from launch.preflight import preflight
from launch.sizes.memory import GIB, Layout, activation_bytes, estimate
from launch.sizes.memory_plan import describe_memory, memory_rows
from launch.sizes.model_size import ModelSize, Transformer, UnknownSize

BERT_BASE = Transformer(12, 768, 12, 3072)
SIZE = ModelSize(110_000_000, 100_000_000, 7_000_000, 26_000_000, BERT_BASE, "a test")
ADAMW, SGD = Optimizer(name="adamw", lr=1e-4), Optimizer(name="sgd", lr=1e-4)
H100 = Gpu("H100", (9, 0), 80 * GIB)


def zero(stage, **blocks):
    return DeepSpeed({"zero_optimization": {"stage": stage} | {name: {"device": device} for name, device in blocks.items()}}, "ds.json", {})


def held(layout, optimizer=ADAMW):
    memory = estimate(SIZE, layout, optimizer, 0)
    return (memory.parameters, memory.gradients, memory.optimizer, memory.on_host)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (Layout("ddp", "fp32", 4), (440_000_000, 400_000_000, 800_000_000, 0)),
        (Layout("ddp", "bf16", 4), (440_000_000, 400_000_000, 800_000_000, 0)),
        (Layout("fsdp2", "bf16", 4, Fsdp()), (110_000_000, 100_000_000, 200_000_000, 0)),
        (Layout("fsdp2", "bf16", 4, Fsdp(offload=True)), (0, 0, 0, 410_000_000)),
        (Layout("deepspeed", "bf16", 4, deepspeed=zero(1)), (220_000_000, 200_000_000, 300_000_000, 0)),
        (Layout("deepspeed", "bf16", 4, deepspeed=zero(2)), (220_000_000, 50_000_000, 300_000_000, 0)),
        (Layout("deepspeed", "bf16", 4, deepspeed=zero(3)), (55_000_000, 50_000_000, 300_000_000, 0)),
        (Layout("deepspeed", "fp32", 4, deepspeed=zero(3)), (110_000_000, 100_000_000, 300_000_000, 0)),
        (Layout("deepspeed", "bf16", 4, deepspeed=zero(3, offload_optimizer="cpu")), (55_000_000, 50_000_000, 0, 350_000_000)),
        (Layout("deepspeed", "fp32", 4, deepspeed=zero(0)), (440_000_000, 400_000_000, 800_000_000, 0)),
    ],
)
def test_each_strategy_shards_what_it_says(layout, expected):
    assert held(layout) == expected


def test_sgd_keeps_a_number_a_parameter_with_momentum_and_none_without():
    assert held(Layout("single", "fp32", 1), SGD)[2] == 0
    assert held(Layout("single", "fp32", 1), Optimizer(name="sgd", lr=1e-4, momentum=0.9))[2] == 400_000_000


def test_activations_in_16_bits_are_the_papers_formula_but_for_fp32_norms():
    s, b, h, a, layers = 512, 4, 768, 12, 12
    ours = activation_bytes(BERT_BASE, s, b, "bf16", checkpointing=False, keeps_scores=True)
    paper = layers * s * b * h * (34 + 5 * a * s / h)
    norms_in_fp32, embeddings = layers * s * b * h * 4, s * b * h * 5
    assert ours == paper + norms_in_fp32 + embeddings


def test_fused_attention_keeps_no_scores_and_checkpointing_one_layer():
    long = {"tokens": 512, "micro_batch_size": 1, "precision": "bf16"}
    eager = activation_bytes(BERT_BASE, **long, checkpointing=False, keeps_scores=True)
    fused = activation_bytes(BERT_BASE, **long, checkpointing=False, keeps_scores=False)
    checkpointed = activation_bytes(BERT_BASE, **long, checkpointing=True, keeps_scores=False)
    assert eager - fused == 12 * (12 * 512 * 512 * 5 - 4 * 12 * 512)
    assert checkpointed < fused / 5


def on_gpus(make_probe, num_gpus, gpu, size=SIZE):
    probe = make_probe(num_gpus=num_gpus, size=size)
    return replace(probe, machine=replace(probe.machine, gpus=(gpu,) * num_gpus))


def test_the_micro_batch_is_the_largest_divisor_that_fits(make_plan, make_probe):
    plan = make_plan("train.global_batch_size=96", probe=on_gpus(make_probe, 1, H100))
    assert (plan.batches.micro_batch_size, str(plan.values["train.micro_batch_size"].origin)) == (
        96,
        "derived: the largest that fits, by the memory estimate",
    )
    small = make_plan("train.global_batch_size=96", probe=on_gpus(make_probe, 1, Gpu("small", (9, 0), 6 * GIB)))
    assert small.batches.micro_batch_size == 32
    assert small.memory.memory.total <= small.memory.budget.bytes


def test_an_earlier_attempts_micro_batch_stays(make_plan, make_probe):
    plan = make_plan("train.global_batch_size=96", probe=on_gpus(make_probe, 1, H100), micro_batch_size=8)
    assert plan.values["train.micro_batch_size"] == Value(8, plan.values["train.micro_batch_size"].origin)
    assert str(plan.values["train.micro_batch_size"].origin) == "derived: an earlier attempt"


def test_the_ranks_are_told_a_micro_batch_that_they_would_not_find(make_plan, make_probe):
    from launch.render import launch_argv

    probe = on_gpus(make_probe, 1, Gpu("small", (9, 0), 6 * GIB))
    assert launch_argv(make_plan("train.global_batch_size=96", probe=probe))[-1] == "train.micro_batch_size=32"
    assert not launch_argv(make_plan("train.global_batch_size=96", "train.micro_batch_size=32", probe=probe))[-1].startswith("train.")


def test_a_model_that_does_not_fit_is_refused_with_the_first_strategy_that_would(make_plan, make_probe):
    large = ModelSize(7 * 10**9, 7 * 10**9, 2 * 10**8, 2 * 10**8, None, "a test")
    probe = on_gpus(make_probe, 8, H100, large)
    plan = make_plan("train.precision=bf16", strategy=load_strategy("ddp"), probe=probe, processes_per_node=8)
    with pytest.raises(PreflightError) as caught:
        preflight(plan, probe)
    assert "a rank would hold 117.3 GiB, and has 71.0 (80.0 GiB of H100, less 10 % and 1 GiB)" in str(caught.value)
    assert "try: --strategy zero1" in str(caught.value)


def test_less_than_the_activations_may_err_by_is_a_warning(make_plan, make_probe):
    small = on_gpus(make_probe, 1, Gpu("small", (9, 0), 6 * GIB))
    plan = make_plan("train.global_batch_size=96", "train.micro_batch_size=32", probe=small)
    held, activations = plan.memory.memory.total, plan.memory.memory.activations
    for room, is_refused in ((held, False), (held - activations // 5, False), (held - activations // 3, True)):
        gpu = Gpu("other", (9, 0), int((room + GIB) / 0.9) + 1)
        other = make_plan("train.global_batch_size=96", "train.micro_batch_size=32", probe=on_gpus(make_probe, 1, gpu))
        assert other.memory.is_refused == is_refused
        assert any("may run out of memory" in warning for warning in other.warnings) == (room < held and not is_refused)


def test_a_person_who_knows_better_is_warned_and_not_refused(make_plan, make_probe):
    large = ModelSize(7 * 10**9, 7 * 10**9, 2 * 10**8, 2 * 10**8, None, "a test")
    probe = on_gpus(make_probe, 8, H100, large)
    words = {"strategy": load_strategy("ddp"), "probe": probe, "processes_per_node": 8}
    with pytest.raises(PreflightError, match=r"train\.memory_check=warn, to try it all the same"):
        preflight(make_plan("train.precision=bf16", **words), probe)
    plan = make_plan("train.precision=bf16", "train.memory_check=warn", **words)
    preflight(plan, probe)
    assert "a rank may run out of memory: 117.35 GiB by the estimate, 71.00 GiB of room; train.memory_check is warn" in plan.warnings


@pytest.mark.parametrize(
    ("layout", "bytes_held", "on_host"),
    [
        (Layout("ddp", "fp32", 4, has_average=True), 400_000_000, 0),
        (Layout("fsdp2", "bf16", 4, Fsdp(), has_average=True), 100_000_000, 0),
        (Layout("fsdp2", "bf16", 4, Fsdp(offload=True), has_average=True), 0, 100_000_000),
        (Layout("deepspeed", "bf16", 4, deepspeed=zero(2), has_average=True), 100_000_000, 0),
        (Layout("deepspeed", "bf16", 4, deepspeed=zero(2, offload_optimizer="cpu"), has_average=True), 0, 100_000_000),
    ],
)
def test_a_moving_average_is_divided_as_the_optimizers_state_is(layout, bytes_held, on_host):
    memory, without = estimate(SIZE, layout, ADAMW, 0), estimate(SIZE, replace(layout, has_average=False), ADAMW, 0)
    assert (memory.average, memory.on_host - without.on_host) == (bytes_held, on_host)
    assert memory.total - without.total == bytes_held


def test_a_micro_batch_that_does_not_fit_names_the_one_that_does(make_plan, make_probe):
    probe = on_gpus(make_probe, 1, Gpu("small", (9, 0), 6 * GIB))
    plan = make_plan("train.global_batch_size=96", "train.micro_batch_size=96", probe=probe)
    with pytest.raises(PreflightError, match=r"try: train\.micro_batch_size=32"):
        preflight(plan, probe)


def test_an_unknown_size_is_said_and_refuses_nothing(make_plan, make_probe):
    plan = make_plan()
    assert plan.memory.notes == ("unknown: the model has not been fetched yet",)
    preflight(plan, make_probe())


def test_a_plan_shows_what_a_rank_holds(make_plan, make_probe):
    plan = make_plan("train.micro_batch_size=32", probe=on_gpus(make_probe, 1, H100))
    rows = dict(memory_rows(plan.memory))
    assert (rows["weights"], rows["gradients"], rows["optimizer state"]) == ("0.41 GiB", "0.37 GiB", "0.75 GiB")
    assert rows["room"] == "71.00 GiB (80.0 GiB of H100, less 10 % and 1 GiB)"
    described = describe_memory(plan.memory)
    assert (described["parameters"], described["gradients"], described["optimizer"], described["fits"]) == (
        440_000_000,
        400_000_000,
        800_000_000,
        True,
    )


def test_layers_that_no_model_of_these_files_has_are_refused_with_those_it_has(make_plan, make_probe):
    probe = make_probe(size=UnknownSize("the layers that LoRA adapts are not among query, key", key="model.lora.targets"))
    with pytest.raises(ConfigError, match=r"model\.lora\.targets: the layers that LoRA adapts are not among query, key"):
        preflight(make_plan("model.lora={targets: [q_proj]}", probe=probe), probe)
