"""Frozen means cached: losses with and without cached features, on one rank and two, under every engine.

python benchmarks/frozen.py [--folder DIR]

A ResNet-8 of which all but the last layer is frozen, 24 pictures of 3 classes, 9 steps of 8 and 3 evaluations, SGD, fp32. Prints for each
layout the largest relative difference of any loss from the same training without the cache on one rank, and what it said of the features.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from forked import load_engines, read_records, start, wait

from tests.engines import told, write_strategies
from tests.integration.test_feature_cache import write_experiment

LAYOUTS: dict[str, tuple[int, str | None, list[str]]] = {
    "1 process, not cached": (1, None, ["model.cache_features=never"]),
    "DDP x2": (2, None, []),
    "1 process": (1, None, []),
    "FSDP2 x2": (2, "fsdp2", []),
    "ZeRO-2 x2": (2, "zero2", []),
    "ZeRO-3 x2": (2, "zero3", []),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    folder = parser.parse_args().folder or Path(tempfile.mkdtemp(prefix="frozen"))
    folder.mkdir(parents=True, exist_ok=True)
    load_engines()
    experiment = write_experiment(folder)
    write_strategies(folder)
    reference: list[float] = []
    for number, (name, (num_processes, strategy, overrides)) in enumerate(LAYOUTS.items()):
        run, logs = folder / str(number), folder / "logs" / str(number)
        words = ["--config", str(experiment), "--run-dir", str(run), *overrides, *told(folder, strategy)]
        codes = wait(start(words, num_processes, logs, FULLRANK_CACHE=str(folder / "cache")))
        assert not any(codes), (logs / "rank_0.log").read_text()
        losses = [record["loss"] for record in read_records(run)]
        reference = reference or losses
        said = next((line.partition(" features ")[2].partition(",")[0] for line in _lines(logs) if "frozen body" in line), "")
        print(f"{name:22} {max(abs(a / b - 1) for a, b in zip(losses, reference, strict=True)):.1e}  {said}", flush=True)


def _lines(logs: Path) -> list[str]:
    return (logs / "rank_0.log").read_text().splitlines()


if __name__ == "__main__":
    main()
