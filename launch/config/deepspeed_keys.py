"""The keys of a DeepSpeed configuration: which of them count here, and what each is when it says "auto" or nothing."""

from __future__ import annotations

from typing import Any

_OFFLOAD: dict[str, Any] = {"device": "none", "nvme_path": None, "buffer_count": 4, "pin_memory": True}

HONOURED: dict[str, Any] = {
    "train_batch_size": None,
    "train_micro_batch_size_per_gpu": None,
    "gradient_accumulation_steps": None,
    "gradient_clipping": None,
    "steps_per_print": 10**9,
    "wall_clock_breakdown": False,
    "memory_breakdown": False,
    "dump_state": False,
    "disable_allgather": False,
    "communication_data_type": None,
    "prescale_gradients": False,
    "gradient_predivide_factor": 1.0,
    "zero_allow_untested_optimizer": True,
    "zero_force_ds_cpu_optimizer": False,
    "fp16": {
        "enabled": False,
        "auto_cast": False,
        "loss_scale": 0.0,
        "initial_scale_power": 16,
        "loss_scale_window": 1000,
        "hysteresis": 2,
        "consecutive_hysteresis": False,
        "min_loss_scale": 1,
    },
    "bf16": {"enabled": False, "immediate_grad_update": False, "check_grad_overflow": True},
    "data_types": {"grad_accum_dtype": None},
    "aio": {
        "block_size": 1048576,
        "queue_depth": 8,
        "intra_op_parallelism": 1,
        "single_submit": False,
        "overlap_events": True,
        "use_gds": False,
    },
    "comms_logger": {"enabled": False, "verbose": False, "prof_all": True, "debug": False, "prof_ops": []},
    "zero_optimization": {
        "stage": 0,
        "contiguous_gradients": True,
        "reduce_scatter": True,
        "reduce_bucket_size": 500_000_000,
        "use_multi_rank_bucket_allreduce": True,
        "allgather_partitions": True,
        "allgather_bucket_size": 500_000_000,
        "overlap_comm": None,
        "round_robin_gradients": False,
        "ignore_unused_parameters": True,
        "sub_group_size": 1_000_000_000,
        "stage3_prefetch_bucket_size": 50_000_000,
        "stage3_param_persistence_threshold": 100_000,
        "stage3_model_persistence_threshold": None,
        "stage3_max_live_parameters": 1_000_000_000,
        "stage3_max_reuse_distance": 1_000_000_000,
        "stage3_gather_16bit_weights_on_model_save": False,
        "stage3_module_granularity_threshold": 0,
        "stage3_use_all_reduce_for_fetch_params": False,
        "zero_hpz_partition_size": 1,
        "zero_quantized_weights": False,
        "zero_quantized_nontrainable_weights": False,
        "zero_quantized_gradients": False,
        "memory_efficient_linear": True,
        "log_trace_cache_warnings": False,
        "enable_sanity_checks": False,
        "offload_optimizer": _OFFLOAD | {"pipeline_read": False, "pipeline_write": False, "fast_init": False, "ratio": 1.0},
        "offload_param": _OFFLOAD | {"buffer_count": 5, "buffer_size": 100_000_000, "max_in_cpu": 1_000_000_000},
    },
}
"""Key -> DeepSpeed's default, or ours; None: DeepSpeed's own, left out of what is written.

Source: DeepSpeed 0.19, deepspeed/runtime/{config,constants}.py, runtime/precision_config.py, runtime/zero/{config,offload_config}.py,
runtime/swap_tensor/constants.py, comm/config.py. Ours: no progress lines of DeepSpeed's own, and the experiment's optimizer instead of one of
DeepSpeed's (`zero_allow_untested_optimizer`, `zero_force_ds_cpu_optimizer`).
"""

REFUSED: dict[str, str] = {
    "scheduler": "the learning rate is the experiment's: delete it, and say schedule.name and schedule.warmup",
    "activation_checkpointing": "it acts on models written for DeepSpeed alone: delete it, and say model.gradient_checkpointing=true",
    "amp": "Apex's precision has no part here: delete it, and say train.precision=bf16",
    "bfloat16": "an old name: write bf16",
    "torch_autocast": "precision is the experiment's: delete it, and say train.precision",
    "checkpoint": "checkpoints are the experiment's: delete it",
    "compile": "delete it, and say model.compile=true",
    "compression_training": "it changes the model: delete it",
    "curriculum_learning": "it changes the order of the samples: delete it",
    "data_efficiency": "it changes the order of the samples: delete it",
    "progressive_layer_drop": "it changes the model: delete it",
    "dataloader_drop_last": "the last batch is the experiment's: delete it",
    "sparse_gradients": "no model here has sparse gradients: delete it",
    "autotuning": "the batch sizes are the experiment's: delete it, and say train.micro_batch_size=null",
    "elasticity": "the global batch stays constant by itself: delete it",
    "eigenvalue": "delete it",
    "quantize_training": "it changes the model: delete it",
    "weight_quantization": "it is for inference: delete it",
    "hybrid_engine": "it is for generation: delete it",
    "pipeline": "there is no pipeline parallelism here: delete it",
    "tensor_parallel": "there is no tensor parallelism here: delete it",
    "expert_parallel": "there is no expert parallelism here: delete it",
    "sequence_parallel_size": "there is no sequence parallelism here: delete it",
    "sparse_attention": "it changes the model: delete it",
    "flops_profiler": "delete it, and profile with --profile-steps",
    "tensorboard": "delete it, and say tracking.tensorboard=true",
    "wandb": "delete it, and say tracking.wandb.mode",
    "csv_monitor": "delete it: metrics.jsonl has every number",
    "comet": "delete it: metrics.jsonl has every number",
    "monitor_config": "delete it: metrics.jsonl has every number",
    "zero_optimization.cpu_offload": "an old name: write offload_optimizer: {device: cpu}",
    "zero_optimization.cpu_offload_param": "an old name: write offload_param: {device: cpu}",
    "zero_optimization.stage3_gather_fp16_weights_on_model_save": "an old name: write stage3_gather_16bit_weights_on_model_save",
    "zero_optimization.load_from_fp32_weights": "checkpoints always hold fp32 weights: delete it",
    "zero_optimization.elastic_checkpoint": "delete it: another world size goes through the universal checkpoint",
    "zero_optimization.legacy_stage1": "delete it",
    "zero_optimization.zenflow": "it delays updates, so that the training is another one: delete it",
    "zero_optimization.leaf_module": "delete it",
    "zero_optimization.offload_optimizer.super_offload": "it needs DeepSpeed's own optimizer: delete it",
    "fp16.fp16_master_weights_and_grads": "master weights are fp32: delete it",
    "bf16.bf16_master_weights_and_grads": "master weights are fp32: delete it",
    "bf16.bf16_optimizer_states": "optimizer state is fp32: delete it",
}
"""DeepSpeed's keys that would change the training, or say again what the experiment says, each with the way out."""

FOLLOW_HIDDEN_SIZE: dict[str, float] = {
    "zero_optimization.reduce_bucket_size": 1.0,
    "zero_optimization.stage3_prefetch_bucket_size": 0.9,
    "zero_optimization.stage3_param_persistence_threshold": 10.0,
}
"""What "auto" is for these: the factor times hidden_size^2 (the threshold: times hidden_size).

Source: transformers/integrations/deepspeed.py, HfTrainerDeepSpeedConfig.trainer_config_finalize; what people expect of "auto".
"""
