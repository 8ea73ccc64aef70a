from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from launch.config.deepspeed import DeepSpeedFacts, read_deepspeed, resolve_deepspeed
from launch.config.errors import ConfigError
from launch.config.load import shipped_configs
from launch.config.resolve import BatchArithmetic
from launch.config.strategy import load_strategy

HUGGING_FACE = {
    "fp16": {"enabled": "auto", "loss_scale": 0, "loss_scale_window": 1000, "initial_scale_power": 16, "hysteresis": 2, "min_loss_scale": 1},
    "bf16": {"enabled": "auto"},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}},
    "zero_optimization": {
        "stage": 3,
        "offload_optimizer": {"device": "cpu", "pin_memory": True},
        "overlap_comm": True,
        "contiguous_gradients": True,
        "sub_group_size": 1e9,
        "reduce_bucket_size": "auto",
        "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
        "stage3_max_live_parameters": 1e9,
        "stage3_max_reuse_distance": 1e9,
        "stage3_gather_16bit_weights_on_model_save": True,
    },
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "steps_per_print": 2000,
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "wall_clock_breakdown": False,
}
"""The keys that Transformers' DeepSpeed tutorial begins with."""


def written(tmp_path: Path, config: dict) -> Path:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(config))
    return path


def problems(tmp_path: Path, config: dict, facts: DeepSpeedFacts | None = None) -> list[str]:
    path = written(tmp_path, config)
    with pytest.raises(ConfigError) as caught:
        resolve_deepspeed(read_deepspeed(path), facts) if facts else read_deepspeed(path)
    return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]


@pytest.fixture
def facts(load) -> DeepSpeedFacts:
    return DeepSpeedFacts(load().experiment, BatchArithmetic(32, 4, 2, 4), "bf16", hidden_size=768)


def test_every_auto_of_the_tutorials_file_becomes_a_number(tmp_path, facts):
    assert resolve_deepspeed(read_deepspeed(written(tmp_path, HUGGING_FACE)), facts) == {
        "train_batch_size": 32,
        "train_micro_batch_size_per_gpu": 4,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": 1.0,
        "steps_per_print": 2000,
        "wall_clock_breakdown": False,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "fp16": {
            "enabled": False,
            "loss_scale": 0,
            "loss_scale_window": 1000,
            "initial_scale_power": 16,
            "hysteresis": 2,
            "min_loss_scale": 1,
        },
        "bf16": {"enabled": True},
        "zero_optimization": {
            "stage": 3,
            "offload_optimizer": {"device": "cpu", "pin_memory": True},
            "overlap_comm": True,
            "contiguous_gradients": True,
            "sub_group_size": 1_000_000_000,
            "reduce_bucket_size": 768 * 768,
            "stage3_prefetch_bucket_size": int(0.9 * 768 * 768),
            "stage3_param_persistence_threshold": 7680,
            "stage3_max_live_parameters": 1_000_000_000,
            "stage3_max_reuse_distance": 1_000_000_000,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
    }


@pytest.mark.parametrize("name", [path.stem for path in sorted((shipped_configs() / "deepspeed").glob("*.json"))])
def test_no_auto_is_left_of_a_shipped_file(name, facts):
    for hidden_size in (768, None):
        config = resolve_deepspeed(
            load_strategy(str(shipped_configs() / "deepspeed" / f"{name}.json")).deepspeed,
            DeepSpeedFacts(facts.experiment, facts.batches, "fp32", hidden_size),
        )
        assert "auto" not in json.dumps(config)


def test_the_widths_that_nobody_knows_are_deepspeeds_defaults(tmp_path, facts):
    deepspeed = read_deepspeed(written(tmp_path, HUGGING_FACE))
    zero = resolve_deepspeed(deepspeed, DeepSpeedFacts(facts.experiment, facts.batches, "bf16"))["zero_optimization"]
    assert (zero["reduce_bucket_size"], zero["stage3_prefetch_bucket_size"], zero["stage3_param_persistence_threshold"]) == (5e8, 5e7, 1e5)


def test_buckets_that_nobody_set_are_no_larger_than_the_model(facts):
    zero = resolve_deepspeed(load_strategy("zero2").deepspeed, DeepSpeedFacts(facts.experiment, facts.batches, "bf16", num_parameters=22_000_000))
    assert (zero["zero_optimization"]["reduce_bucket_size"], zero["zero_optimization"]["allgather_bucket_size"]) == (22_000_000, 22_000_000)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"train_batch_size": 64}, "ds.json: train_batch_size: 64, but train.global_batch_size is 32"),
        ({"train_micro_batch_size_per_gpu": 8}, "ds.json: train_micro_batch_size_per_gpu: 8, but the micro-batch is 4 (32 = 4 x 4 x 2)"),
        ({"gradient_accumulation_steps": 1}, "ds.json: gradient_accumulation_steps: 1, but 2 micro-batches are accumulated (32 = 4 x 4 x 2)"),
        ({"gradient_clipping": 0.5}, "ds.json: gradient_clipping: 0.5, but train.gradient_clip_norm is 1.0"),
        ({"bf16": {"enabled": False}}, "ds.json: bf16.enabled: False, but the precision is bf16"),
        ({"optimizer": {"type": "OneBitAdam"}}, "ds.json: optimizer.type: 'OneBitAdam' (DeepSpeed's own), but optimizer.name is adamw"),
        ({"optimizer": {"type": "Adam", "params": {"adam_w_mode": False}}}, "'Adam' (DeepSpeed's adam), but optimizer.name is adamw"),
        ({"optimizer": {"type": "AdamW", "params": {"lr": 0.1}}}, "ds.json: optimizer.params.lr: 0.1, but optimizer.lr is 0.0001"),
        ({"optimizer": {"type": "AdamW", "params": {"beta": 1}}}, "optimizer.params.beta: is not an option of the experiment's optimizer; did you"),
    ],
)
def test_what_the_experiment_says_otherwise_names_both_places(tmp_path, facts, config, problem):
    (found,) = problems(tmp_path, config | {"zero_optimization": {"stage": 2}}, facts)
    assert problem in found


def test_stage_3_has_no_average_of_weights(tmp_path, facts):
    averaging = replace(facts, experiment=facts.experiment.model_copy(update={"train": facts.experiment.train.model_copy(update={"ema_decay": 0.9})}))
    assert resolve_deepspeed(read_deepspeed(written(tmp_path, {"zero_optimization": {"stage": 2}})), averaging)
    (found,) = problems(tmp_path, {"zero_optimization": {"stage": 3}}, averaging)
    assert found.startswith("ds.json: train.ema_decay: DeepSpeed's stage 3 has no way")


def test_stage_0_divides_nothing_and_is_refused(tmp_path, facts):
    (found,) = problems(tmp_path, {"zero_optimization": {"stage": 0}}, facts)
    assert found.startswith("ds.json: zero_optimization.stage: stage 0 divides nothing")


def test_equal_numbers_are_no_contradiction(tmp_path, facts):
    adam = {"type": "Adam", "params": {"lr": 1e-4, "betas": [0.9, 0.999], "weight_decay": "auto"}}
    config = {"train_batch_size": 32, "gradient_clipping": 1, "bf16": {"enabled": True}, "optimizer": adam, "zero_optimization": {"stage": 2}}
    assert "optimizer" not in resolve_deepspeed(read_deepspeed(written(tmp_path, config)), facts)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"zero_optimisation": {}}, "ds.json: zero_optimisation: DeepSpeed has no such key; did you mean 'zero_optimization'?"),
        ({"zero_optimization": {"stag": 2}}, "ds.json: zero_optimization.stag: DeepSpeed has no such key; did you mean 'stage'?"),
        ({"zero_optimization": {"overlap_com": True}}, "did you mean 'overlap_comm'?"),
        ({"zero_optimization": 2}, "ds.json: zero_optimization: 2 stands where a block of keys is expected"),
        ({"zero_optimization": {"contiguous_gradients": 1}}, "ds.json: zero_optimization.contiguous_gradients: 1 is not possible"),
        ({"zero_optimization": {"reduce_bucket_size": "big"}}, "zero_optimization.reduce_bucket_size: 'big' is not possible"),
        ({"zero_optimization": {"stage": "auto"}}, "ds.json: zero_optimization.stage: 'auto' is not a stage of ZeRO"),
        ({"zero_optimization": {"stage": 1, "offload_param": {"device": "cpu"}}}, "'cpu' has no effect at stage 1"),
        ({"fp16": {"enabled": True}, "bf16": {"enabled": True}}, "ds.json: bf16.enabled: fp16 and bf16 are both enabled"),
        ({"scheduler": {"type": "WarmupLR"}}, "ds.json: scheduler: cannot be honoured"),
        ({"zero_optimization": {"cpu_offload": True}}, "try: an old name: write offload_optimizer: {device: cpu}"),
    ],
)
def test_keys_that_cannot_take_effect_are_refused(tmp_path, config, problem):
    found = problems(tmp_path, config)
    assert any(problem in text for text in found), found


def test_broken_json_names_its_line(tmp_path):
    (tmp_path / "ds.json").write_text('{"zero_optimization": {\n"stage": 2,\n}}')
    with pytest.raises(ConfigError, match=r"ds\.json:[23]: not valid JSON"):
        read_deepspeed(tmp_path / "ds.json")


def test_a_key_that_stands_twice_is_refused(tmp_path):
    (tmp_path / "ds.json").write_text('{"steps_per_print": 1, "steps_per_print": 2}')
    with pytest.raises(ConfigError, match=r"ds\.json: steps_per_print: the key stands twice"):
        read_deepspeed(tmp_path / "ds.json")
