"""Which layers LoRA adapts where nobody names them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

USUAL_TARGETS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), ("query", "value")),
    "distilbert": ("q_lin", "v_lin"),
    "deberta-v2": ("query_proj", "value_proj"),
    "gpt2": ("c_attn",),
    **dict.fromkeys(("bart", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "smollm3"), ("q_proj", "v_proj")),
    **dict.fromkeys(("vit", "deit", "dinov2", "beit"), ("q_proj", "v_proj")),
    **dict.fromkeys(("t5", "mt5"), ("q", "v")),
}
"""config.json's model_type -> the layers of the attention's query and value, which gain most for their size (Hu et al. 2021, section 7.1).
For the types that peft has usual targets for, the same (peft/utils/constants.py)."""


def is_target(name: str, targets: Collection[str]) -> bool:
    """Returns whether a layer of this name is one of the targets, which name a layer or the end of its path, as in peft."""
    return any(name == target or name.endswith(f".{target}") for target in targets)


def rank_above(rank: int, matrices: Mapping[str, tuple[int, ...]]) -> tuple[str, int] | None:
    """Returns why a rank is too large, and the largest there can be; None: it is not.

    Above the smaller side of a matrix nothing is gained: every change of the matrix has at most that rank.
    """
    if not matrices:
        return None
    name, shape = min(matrices.items(), key=lambda matrix: min(matrix[1]))
    if rank <= min(shape):
        return None
    return f"{rank} is above the smaller side of {name}, {' x '.join(map(str, shape))}: no change of it has a higher rank", min(shape)


def layer_kinds(names: Collection[str]) -> list[str]:
    """Returns what targets can be called: the last parts of these layers' names, once each."""
    return list(dict.fromkeys(name.rpartition(".")[2] for name in names))
