"""What one device will hold: weights, gradients, optimizer state, activations, under every strategy and precision; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from launch.config.experiment import Optimizer, Precision
from launch.config.sharding import DeepSpeed, Fsdp
from launch.config.strategy import Engine
from launch.sizes.model_size import ModelSize, Transformer

GIB = 2**30
_HALF: tuple[Precision, ...] = ("bf16", "fp16", "fp8")
_STATE_WORDS = {"adamw": 2, "adam": 2}
"""fp32 numbers a trained parameter: the two moments of Adam (Kingma and Ba 2015); SGD has one with momentum, else none."""


@dataclass(frozen=True)
class Layout:
    """What decides what a rank holds, besides the model."""

    engine: Engine
    precision: Precision
    world_size: int
    fsdp: Fsdp | None = None
    deepspeed: DeepSpeed | None = None
    has_average: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes one rank holds on its device, at the peak of a step.

    Args:
        optimizer: the optimizer's state, and DeepSpeed's fp32 copy of the weights.
        gathered: whole weights of the layers at work, where weights are sharded; the half-precision copies of autocast; DeepSpeed's bucket.
        activations: of one micro-batch; None: unknown for this kind of model.
        average: the moving average of the trained weights, in fp32.
        on_host: bytes that offloading keeps in host memory instead.
    """

    parameters: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int | None
    on_host: int = 0
    average: int = 0

    @property
    def total(self) -> int:
        """All of it; without the activations where they are unknown."""
        return self.parameters + self.gradients + self.optimizer + self.average + self.gathered + (self.activations or 0)


def estimate(size: ModelSize, layout: Layout, optimizer: Optimizer, activations: int | None) -> Memory:
    """Returns what one rank holds.

    Every engine but DeepSpeed keeps fp32 weights, gradients and state, and computes in half precision through autocast or FSDP2's
    MixedPrecisionPolicy. DeepSpeed in half precision keeps 16-bit weights and gradients and an fp32 copy of the weights beside the moments
    (Rajbhandari et al. 2020, ZeRO: 2 + 2 + K bytes a parameter, K = 12 with Adam); in fp32 it keeps that copy too (runtime/zero/stage3.py,
    stage_1_and_2.py: fp32 partitions are clones).
    """
    state = state_bytes(optimizer)
    if layout.engine == "deepspeed" and layout.deepspeed is not None:
        return _under_deepspeed(size, layout, layout.deepspeed, state, activations)
    shards = layout.world_size if layout.engine == "fsdp2" else 1
    parameters, gradients, moments = _share(4 * size.parameters, shards), _share(4 * size.trained, shards), _share(state * size.trained, shards)
    half, average = layout.precision in _HALF, _share(4 * size.trained, shards) if layout.has_average else 0
    if layout.engine != "fsdp2":
        return Memory(parameters, gradients, moments, 2 * size.parameters if half else 0, activations, average=average)
    fsdp = layout.fsdp or Fsdp()
    working = size.outside_layers + 2 * size.largest_layer if fsdp.reshard_after_forward else size.parameters
    gathered = min(working, size.parameters) * (2 if half else 4)
    if fsdp.offload:
        return Memory(0, 0, 0, gathered, activations, on_host=parameters + gradients + moments + average)
    return Memory(parameters, gradients, moments, gathered, activations, average=average)


def _under_deepspeed(size: ModelSize, layout: Layout, deepspeed: DeepSpeed, state: int, activations: int | None) -> Memory:
    world, stage = layout.world_size, deepspeed.stage
    word = 2 if layout.precision in _HALF else 4
    parameters = _share(word * size.parameters, world if stage == 3 else 1)
    gradients = _share(word * size.trained, world if stage >= 2 else 1)
    moments = _share((state + 4) * size.trained, world if stage >= 1 else 1) if stage or word == 2 else state * size.trained
    gathered = min(size.outside_layers + 2 * size.largest_layer, size.parameters) * word if stage == 3 else 0
    bucket = deepspeed.zero.get("reduce_bucket_size")
    gathered += word * min(bucket if isinstance(bucket, int) else size.parameters, size.parameters)
    host, average = 0, _share(4 * size.trained, world) if layout.has_average else 0
    if deepspeed.offload_optimizer:
        host, moments, average = host + moments + gradients + average, 0, 0
    if deepspeed.offload_param:
        host, parameters = host + parameters, 0
    return Memory(parameters, gradients, moments, gathered, activations, host, average)


def state_bytes(optimizer: Optimizer) -> int:
    """Returns how much an optimizer keeps for each trained parameter, in fp32."""
    return 4 * _STATE_WORDS.get(optimizer.name, 1 if optimizer.momentum else 0)


def activation_bytes(
    transformer: Transformer, tokens: int, micro_batch_size: int, precision: Precision, checkpointing: bool, keeps_scores: bool, dropout: bool = True
) -> int:
    """Returns what the forward pass of a post-norm encoder keeps for the backward pass.

    Korthikanti et al. 2022, Reducing Activation Recomputation in Large Transformer Models, section 4.1, eq. 1: s b h (34 + 5 a s / h) bytes a
    layer in 16 bits, with an MLP of 4h; taken apart here for another MLP width and word:
    attention keeps 5 words (its input, q, k, v, the input of the projection) and a mask of 1 byte; the MLP 1 + 2 f / h words and a mask;
    each LayerNorm 1 word, which autocast keeps in fp32. The scores (a s^2: softmax, its mask, its output) are not kept by
    scaled_dot_product_attention's fused kernels (Dao et al. 2022); those keep one fp32 number a row instead.
    With checkpointing a layer keeps its input alone, and one layer at a time is whole.

    Args:
        tokens: s, of a sample: the longest, so this is the most that a step can need.
        keeps_scores: attention without a fused kernel (eager, or on a CPU with dropout).
    """
    word = 2 if precision in _HALF else 4
    mask = 1 if dropout else 0
    positions = tokens * micro_batch_size
    hidden, wide, heads = transformer.hidden_size, transformer.intermediate_size, transformer.num_heads
    attention = positions * hidden * (5 * word + mask)
    attention += heads * tokens * positions * ((2 if dropout else 1) * word + mask) if keeps_scores else 4 * heads * positions
    mlp = positions * (hidden * (word + mask) + 2 * wide * word)
    norms = positions * hidden * 2 * 4
    layer, embeddings = attention + mlp + norms, positions * hidden * (4 + mask)
    if checkpointing:
        return embeddings + transformer.num_layers * positions * hidden * 4 + layer
    return embeddings + transformer.num_layers * layer


@dataclass(frozen=True)
class Budget:
    """What a rank may use.

    Args:
        bytes: what is there, less what is kept free.
        what: in words.
    """

    bytes: int
    what: str


def gpu_budget(memory_bytes: int, name: str) -> Budget:
    """Returns 90 % of a GPU, less 1 GiB for the CUDA context, the libraries' workspaces and NCCL."""
    return Budget(int(0.9 * memory_bytes) - GIB, f"{memory_bytes / GIB:.1f} GiB of {name}, less 10 % and 1 GiB")


def host_budget(memory_bytes: int, processes: int) -> Budget:
    """Returns a process's share of 80 % of the host's memory, less 1 GiB for python, torch and the data."""
    share = f" / {processes} processes" if processes > 1 else ""
    return Budget(int(0.8 * memory_bytes / processes) - GIB, f"{memory_bytes / GIB:.1f} GiB of memory{share}, less 20 % and 1 GiB")


def strategies_by_cost(size: ModelSize, layout: Layout, optimizer: Optimizer, activations: int | None) -> Iterator[tuple[str, Memory]]:
    """Yields the shipped strategies for these processes with what a rank would hold, the cheapest to train under first."""
    for name, engine, fsdp, zero in _LADDER:
        deepspeed = DeepSpeed({"zero_optimization": zero}, name, {}) if zero else None
        if layout.has_average and deepspeed is not None and deepspeed.stage == 3:
            continue  # resolve_deepspeed refuses it
        other = Layout(engine, layout.precision, layout.world_size, fsdp, deepspeed, layout.has_average)
        yield name, estimate(size, other, optimizer, activations)


_LADDER: tuple[tuple[str, Engine, Fsdp | None, dict[str, object] | None], ...] = (
    ("ddp", "ddp", None, None),
    ("zero1", "deepspeed", None, {"stage": 1}),
    ("zero2", "deepspeed", None, {"stage": 2}),
    ("fsdp2", "fsdp2", Fsdp(), None),
    ("fsdp2_offload", "fsdp2", Fsdp(offload=True), None),
    ("zero3_offload", "deepspeed", None, {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}),
)


def _share(whole: int, shards: int) -> int:
    return -(-whole // shards)
