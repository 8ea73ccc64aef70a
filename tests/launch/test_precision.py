from __future__ import annotations

from dataclasses import replace

import pytest

from launch.config.errors import ConfigError, PreflightError
from launch.config.strategy import load_strategy
from launch.gpus import Gpu, parse_gpus, visible
from launch.precision import imitated_on_gpus, missing_on_gpus
from launch.preflight import preflight

V100, A100, H100 = Gpu("V100", (7, 0), 2**34), Gpu("A100", (8, 0), 2**36), Gpu("H100", (9, 0), 2**36)


def with_gpu(make_probe, gpu, **changes):
    probe = make_probe(num_gpus=1, **changes)
    return replace(probe, machine=replace(probe.machine, gpus=(gpu,)))


def test_what_nvidia_smi_prints_is_read():
    text = "NVIDIA H100 80GB HBM3, 9.0, 81559\nTesla K80, [N/A], 11441\nGPU, with a comma, 7.5, 15360\n"
    assert parse_gpus(text) == (Gpu("NVIDIA H100 80GB HBM3", (9, 0), 81559 * 2**20), Gpu("GPU, with a comma", (7, 5), 15360 * 2**20))


@pytest.mark.parametrize(("devices", "seen"), [(None, (V100, A100)), ("1", (A100,)), ("1,0", (A100, V100)), ("GPU-abc", (V100, A100))])
def test_visible_devices_choose_and_order_the_gpus(devices, seen):
    assert visible((V100, A100), devices) == seen


@pytest.mark.parametrize(
    ("precision", "gpu", "is_missing", "is_imitated"),
    [
        ("fp32", V100, False, False),
        ("fp16", V100, False, False),
        ("bf16", V100, False, True),
        ("tf32", V100, True, False),
        ("tf32", A100, False, False),
        ("fp8", A100, True, False),
        ("fp8", H100, False, False),
        ("fp16", Gpu("P100", (6, 0), 1), False, True),
    ],
)
def test_each_precision_has_its_first_gpu(precision, gpu, is_missing, is_imitated):
    assert (missing_on_gpus(precision, [gpu]) is not None, imitated_on_gpus(precision, [gpu]) is not None) == (is_missing, is_imitated)


def test_the_weakest_gpu_decides():
    assert missing_on_gpus("tf32", [H100, V100]) == "V100 (compute capability 7.0) has no tf32; the A100 (8.0) was the first"


def test_nothing_is_refused_of_gpus_that_nobody_knows():
    assert missing_on_gpus("fp8", []) is None


def test_precision_the_hardware_lacks_is_refused_where_it_was_set(make_plan, make_probe):
    with pytest.raises(ConfigError) as caught:
        make_plan("train.precision=fp8", probe=with_gpu(make_probe, A100))
    assert str(caught.value).splitlines() == [
        "train.precision=fp8: A100 (compute capability 8.0) has no fp8; the L4 or H100 (8.9) was the first",
        "    allowed: fp32, tf32, bf16, fp16",
        "    try: train.precision=bf16",
    ]


@pytest.mark.parametrize("precision", ["fp16", "tf32", "fp8"])
def test_gpu_arithmetic_is_refused_on_a_cpu(make_plan, precision):
    with pytest.raises(ConfigError, match="this training is on the CPU"):
        make_plan(f"train.precision={precision}")


def test_bf16_is_warned_of_where_it_is_imitated(make_plan, make_probe):
    (warning,) = make_plan("train.precision=bf16", probe=with_gpu(make_probe, V100)).warnings
    assert warning.startswith("V100 (compute capability 7.0) imitates bf16: it is computed in fp32 and rounded")


def test_fp8_is_marked_unproved_and_needs_a_library(make_plan, make_probe):
    probe = with_gpu(make_probe, H100)
    plan = make_plan("train.precision=fp8", probe=probe)
    assert plan.warnings == ("fp8 has not been proved here on a GPU that has it: compare the first losses with bf16's",)
    with pytest.raises(PreflightError, match="fp8 needs transformer-engine or torchao"):
        preflight(plan, probe)


def test_fp8_is_not_for_deepspeed(make_plan, make_probe):
    with pytest.raises(ConfigError, match="fp8 goes through Accelerate, which DeepSpeed does not"):
        make_plan("train.precision=fp8", strategy=load_strategy("zero2"), probe=with_gpu(make_probe, H100))


def test_a_sharding_strategy_needs_what_it_imports(make_plan, make_probe):
    plan = make_plan("train.precision=fp32", strategy=load_strategy("zero2"))
    with pytest.raises(PreflightError, match="the strategy zero2 needs DeepSpeed, which is not installed"):
        preflight(plan, make_probe())


def test_offload_of_a_cpu_to_itself_is_refused(make_plan, make_probe):
    strategy = replace(load_strategy("fsdp2_offload"), use_cpu=None)
    plan = make_plan("train.precision=fp32", strategy=strategy)
    with pytest.raises(ConfigError, match="fsdp_offload_params has no effect on a CPU"):
        preflight(plan, make_probe())


@pytest.mark.parametrize(("strategy", "precision"), [("fsdp2", "fp16"), ("fsdp2", "fp8"), ("zero2", "fp8")])
def test_what_an_engine_lacks_is_refused_where_the_gpu_has_it(make_plan, make_probe, strategy, precision):
    words = {"strategy": load_strategy(strategy), "probe": with_gpu(make_probe, H100), "processes_per_node": 1}
    assert make_plan("train.precision=bf16", **words).precision == "bf16"
    with pytest.raises(ConfigError, match=rf"^train\.precision={precision}: fp") as caught:
        make_plan(f"train.precision={precision}", **words)
    assert precision not in str(caught.value.problems[0].allowed).split(", ")
