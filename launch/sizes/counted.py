"""The size of a model that no formula is known for: counted by torch, once, in a process of its own."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from launch.config.experiment import Lora
from launch.config.sources import cache_root
from launch.sizes.lora_size import with_adapters
from launch.sizes.model_size import ModelSize, UnknownSize, size_of

TIMEOUT_S = 180


def count_with_torch(library: str, model: str, num_labels: int | None, frozen: Sequence[str], lora: Lora | None = None) -> ModelSize | UnknownSize:
    """Returns the size of a Transformers or torchvision classifier; what torch says is kept in the cache, by the model's own description.

    Args:
        library: `transformers` (then `model` is a folder with a config.json) or `torchvision` (a name).
    """
    description = Path(model, "config.json").read_bytes() if library == "transformers" else model.encode()
    key = hashlib.sha256(b"\0".join([b"shapes", library.encode(), description, str(num_labels).encode()])).hexdigest()
    kept = cache_root() / "sizes" / f"{key[:20]}.json"
    shapes = _read(kept)
    if shapes is None:
        print(f"counting the parameters of {model} with torch, once", file=sys.stderr)
        options = ["--num-labels", str(num_labels)] if num_labels else []
        argv = [sys.executable, "-P", "-m", "trainers.models.parameter_counts", library, model, *options]
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
        try:
            answer = subprocess.run(argv, capture_output=True, check=True, timeout=TIMEOUT_S, text=True, env=environment).stdout
            shapes = {name: tuple(shape) for name, shape in json.loads(answer.splitlines()[-1]).items()}
        except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
            return UnknownSize(f"torch could not build {model} to count its parameters ({type(error).__name__})")
        _keep(kept, answer.splitlines()[-1])
    counts = {name: math.prod(shape) for name, shape in shapes.items()}
    size = size_of(counts, frozen, "torch, which counted them once in a process of its own")
    if lora is None:
        return size
    body = find_body(counts)
    head = sum(count for name, count in counts.items() if name not in body)
    return with_adapters(size, {name: shapes[name] for name in body}, head, lora, str(json.loads(description).get("model_type")))


def find_body(counts: Mapping[str, int]) -> list[str]:
    """Returns the names of the parameters in the body of a model of transformers: the part that has most numbers."""
    parts: dict[str, int] = {}
    for name, count in counts.items():
        part = name.partition(".")[0]
        parts[part] = parts.get(part, 0) + count
    body = max(parts, key=lambda part: parts[part])
    return [name for name in counts if name.partition(".")[0] == body]


def _read(path: Path) -> dict[str, tuple[int, ...]] | None:
    try:
        shapes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {name: tuple(shape) for name, shape in shapes.items()} if isinstance(shapes, dict) and shapes else None


def _keep(path: Path, text: str) -> None:
    """Writes the counts; a cache that cannot be written to is no reason to fail."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        print(f"the counts are not kept: {error}", file=sys.stderr)
