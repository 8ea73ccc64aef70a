"""Strategies, counts and files that cannot train as they say are refused by `fullrank plan` itself."""

from __future__ import annotations

import json

import pytest

FILES = {
    "two_blocks.yaml": "distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 2}\nfsdp_config: {fsdp_version: 2}\n",
    "unknown_key.json": json.dumps({"zero_optimization": {"stage": 2, "reduce_bucket_sise": 5}}),
    "another_batch.json": json.dumps({"zero_optimization": {"stage": 2}, "train_batch_size": 7}),
    "another_optimizer.json": json.dumps({"zero_optimization": {"stage": 2}, "optimizer": {"type": "Lion", "params": {}}}),
    "two_precisions.json": json.dumps({"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}, "fp16": {"enabled": True}}),
    "stage_0.json": json.dumps({"zero_optimization": {"stage": 0}}),
}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--strategy", "ddp", "--strategy", "zero2"], 2, "--strategy is given 2 times"),
        (["--strategy", "two_blocks.yaml"], 2, "two_blocks.yaml:3: fsdp_config: does not belong to distributed_type 'DEEPSPEED'"),
        (["--strategy", "unknown_key.json"], 2, "DeepSpeed has no such key; did you mean 'reduce_bucket_size'?"),
        (["--strategy", "another_batch.json"], 2, "another_batch.json: train_batch_size: 7, but train.global_batch_size is 32"),
        (["--strategy", "another_optimizer.json"], 2, "another_optimizer.json: optimizer.type: "),
        (["--strategy", "two_precisions.json"], 2, "two_precisions.json: bf16.enabled: fp16 and bf16 are both enabled"),
        (["--strategy", "stage_0.json"], 2, "stage_0.json: zero_optimization.stage: "),
        (["--strategy", "ddp", "--processes-per-node", "2"], 2, "the strategy ddp is for GPUs, and "),
        (
            ["--strategy", "zero2", "--processes-per-node", "3"],
            2,
            "32 samples do not split evenly over 3 processes\n    allowed: a multiple of 3, nearest 30 or 33",
        ),
        (["--strategy", "cpu", "train.micro_batch_size=5"], 2, "train.micro_batch_size=5: "),
        (["--strategy", "fsdp2", "train.precision=fp16"], 2, "train.precision=fp16: fp16 needs the loss scaling of a GPU"),
        (["--strategy", "cpu", "train.precision=fp8"], 2, "train.precision=fp8: fp8 is arithmetic of GPUs"),
        (["--strategy", "fsdp2_offload", "train.precision=fp32"], 2, "the strategy fsdp2_offload is for GPUs, and "),
        (["--strategy", "zero3", "train.precision=fp32", "train.ema_decay=0.9"], 2, "train.ema_decay"),
    ],
)
def test_it_is_refused_with_its_place_before_anything_starts(words, code, said, fullrank, experiment_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    words = [f"./{word}" if word in FILES else word for word in words]
    answer = fullrank("plan", str(experiment_file), *words)
    assert (answer.code, said in answer.err.replace(str(tmp_path) + "/", "")) == (code, True), answer.err
    assert not (tmp_path / "runs").exists()


def test_two_strategies_of_accelerates_variables_are_refused(monkeypatch):
    from launch.config.errors import ConfigError
    from launch.config.strategy import find_strategy

    with pytest.raises(ConfigError, match="ACCELERATE_USE_FSDP and ACCELERATE_USE_DEEPSPEED are both set: two strategies at once"):
        find_strategy({"ACCELERATE_USE_FSDP": "true", "ACCELERATE_USE_DEEPSPEED": "true"})
