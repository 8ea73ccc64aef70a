"""The files that fullrank renders for FSDP2 and ZeRO, under the stock `accelerate launch`: two real ranks, the same losses as without it?

    python benchmarks/stock_launch.py [--strategies fsdp2,zero1,zero2,zero3] [--forms run,command.sh,bare] [--steps 8] [--folder DIR]

run: `fullrank run --launcher accelerate`. command.sh: the script of its run directory, after it. bare: `accelerate launch --config_file
accelerate.yaml trainers/train.py`, where the ranks learn of the strategy from Accelerate's variables alone. A cell: the largest relative
difference of a loss or a gradient norm from ranks that were started by hand, and what rank 0 said it trains under. Exit code 1 if one is
above 1e-5 or failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import forked
from engines import CLOSE, largest_difference, train

from launch.config.run_dir import RunDir, read_json
from tests.engines import SGD, told, write_experiment, write_strategies

TIMEOUT_S = 240


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", default="fsdp2,zero1,zero2,zero3")
    parser.add_argument("--forms", default=",".join(FORMS))
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="keep the runs there")
    options = parser.parse_args()
    forms = options.forms.split(",")
    forked.load_engines()
    print("| | " + " | ".join(forms) + " |")
    print("|---|" + "---|" * len(forms), flush=True)
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        os.environ.setdefault("FULLRANK_CACHE", str(folder / "cache"))
        config = write_experiment(folder)
        write_strategies(folder)
        words = [*SGD, f"train.duration={options.steps} steps", f"evaluate.every={options.steps} steps", "train.micro_batch_size=4"]
        for strategy in options.strategies.split(","):
            direct = folder / f"{strategy}-direct"
            train(config, direct, [*told(folder, strategy), *words], 2)
            cells = [judge(FORMS[form], folder / f"{strategy}-{form}", direct, strategy, words) for form in forms]
            failed += sum(not is_close for _, is_close in cells)
            print(f"| {strategy} | " + " | ".join(text for text, _ in cells) + " |", flush=True)
    return int(failed > 0)


def judge(form: Callable[[Path, str, list[str]], list[str]], run: Path, direct: Path, strategy: str, words: list[str]) -> tuple[str, bool]:
    """Trains in one form; returns a cell, and whether it is as the direct training."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE_", "DS_"))}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(forked.ROOT)}
    ended = subprocess.run(form(run, strategy, words), env=environment, cwd=run.parent, capture_output=True, text=True, timeout=TIMEOUT_S)
    if ended.returncode:
        return f"ended with {ended.returncode}: {(ended.stderr.strip().splitlines() or ['nothing'])[-1][:100]}", False
    records, reference = forked.read_records(run), forked.read_records(direct)
    found = max(largest_difference(records, reference, name) for name in ("loss", "gradient_norm"))
    return f"{found:.0e}, {(read_json(RunDir(run).status) or {}).get('strategy')}", found <= CLOSE


def by_fullrank(run: Path, strategy: str, words: list[str]) -> list[str]:
    where = ["--strategy", f"{strategy}.yaml", "--processes-per-node", "2", "--launcher", "accelerate", "--run-dir", str(run)]
    return [sys.executable, "-m", "launch", "run", "./tiny.yaml", *where, *words]


def by_command_sh(run: Path, strategy: str, words: list[str]) -> list[str]:
    return ["bash", str(rendered(run, strategy) / "command.sh"), "--run-dir", str(run)]


def bare(run: Path, strategy: str, words: list[str]) -> list[str]:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(rendered(run, strategy) / "accelerate.yaml")]
    return [*launch, str(forked.ROOT / "trainers" / "train.py"), "--config", "tiny.yaml", "--run-dir", str(run), *words]


def rendered(run: Path, strategy: str) -> Path:
    """Returns the attempt's folder of the run that fullrank started."""
    return run.with_name(f"{strategy}-run") / "attempts" / "0001"


FORMS = {"run": by_fullrank, "command.sh": by_command_sh, "bare": bare}

if __name__ == "__main__":
    sys.exit(main())
