"""Real training processes that start in a blink: forked from this one, which has imported torch and the trainers once.

Each rank is a process of its own, in a session of its own, with its own signal handlers; it can be stopped, and killed, for real.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # else a forked rank waits for ever for its parent's compiling processes
import torch  # noqa: E402

from launch.ports import held_port  # noqa: E402
from trainers.tasks import TASKS  # noqa: E402
from trainers.train import main as train_main  # noqa: E402

OWN = (
    "assembly",
    "closing",
    "debugging",
    "reports.figures",
    "reports.report",
    "starting",
    *(module.removeprefix("trainers.") for module in TASKS.values()),
)
LATE = (
    "markdown_it",
    "pyarrow.ipc",
    "torch._dynamo",
    "torchmetrics.classification",
    "transformers.models.bert.modeling_bert",
    "transformers.optimization",
)
"""What a training imports only when it needs it, from DDP to the report: the forked ones have it already."""
for name in (*(f"trainers.{module}" for module in OWN), *LATE):
    importlib.import_module(name)  # so that all forked processes run the code that was here when this one started
torch.set_num_threads(1)  # a forked process has none of its parent's threads, and would wait for them

ENGINES = (
    "trainers.engines.fsdp2",
    "trainers.engines.zero",
    "deepspeed",
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "trainers.engines.zero_state",
)
"""What the engines that divide import, DeepSpeed with its Muon (whose import loads torch's compiler) being most of it."""

TIMEOUT_S = 900.0
_PORTS = itertools.cycle(range(20011 + os.getpid() % 9000, 31000))
_HELD: deque[ExitStack] = deque()
"""The ports of the last 64 trainings, so that no other process that forks ranks, or launches any, takes one of them."""


@dataclass
class Rank:
    """One forked rank. `code` is None while it runs; negative: the signal that ended it."""

    pid: int
    log: Path
    code: int | None = None

    def poll(self) -> int | None:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def load_engines() -> None:
    """Imports what FSDP2 and ZeRO need, for the ranks that will be forked."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    for name in ENGINES:
        importlib.import_module(name)


def start(arguments: Sequence[str], num_processes: int, logs: Path, prepare: Callable[[int], None] | None = None, **environment: str) -> list[Rank]:
    """Returns the running ranks of `trainers.train ARGUMENTS`; their output is appended to <logs>/rank_N.log.

    `prepare` runs in each rank, with its number, before anything else.
    """
    port = _hold_port()
    logs.mkdir(parents=True, exist_ok=True)
    ranks = []
    for rank in range(num_processes):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_processes, "LOCAL_WORLD_SIZE": num_processes}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        variables = {name: str(value) for name, value in place.items()} if num_processes > 1 else {}
        log = logs / f"rank_{rank}.log"
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _be_a_rank(arguments, variables | environment, log, lambda rank=rank: prepare(rank) if prepare else None)
        ranks.append(Rank(pid, log))
    return ranks


def wait(ranks: Sequence[Rank], timeout_s: float = TIMEOUT_S) -> list[int]:
    """Returns the exit codes of all ranks; kills what is left after the time-out, or once one was killed (its partners wait for it)."""
    deadline = time.monotonic() + timeout_s
    while None in (codes := [rank.poll() for rank in ranks]):
        if time.monotonic() > deadline or -signal.SIGKILL in codes:
            for rank in ranks:
                rank.send(signal.SIGKILL)
        time.sleep(0.005)
    return [rank.code if rank.code is not None else 1 for rank in ranks]


def wait_until(happened: Callable[[], bool], ranks: Sequence[Rank], timeout_s: float = TIMEOUT_S) -> bool:
    """Returns True when something has happened, False if the ranks ended before."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if happened():
            return True
        if all(rank.poll() is not None for rank in ranks):
            return happened()
        time.sleep(0.002)
    raise TimeoutError("it did not happen in time")


def read_records(run: Path) -> list[dict[str, Any]]:
    """Returns the whole records of a run's metrics.jsonl; a line that is being written is left out."""
    path = run / "metrics.jsonl"
    text = path.read_bytes() if path.is_file() else b""
    return [json.loads(line) for line in text.split(b"\n")[:-1]]


def last_step(run: Path) -> int:
    """Returns the last training step in metrics.jsonl; 0: none."""
    return max((record["step"] for record in read_records(run) if record["split"] == "train"), default=0)


def _be_a_rank(arguments: Sequence[str], environment: dict[str, str], log: Path, prepare: Callable[[], None]) -> None:
    code = 1
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        for name in [name for name in os.environ if name.startswith(("FULLRANK_", "ACCELERATE_", "WANDB_"))]:
            if name not in ("FULLRANK_CACHE", "FULLRANK_DATA"):
                del os.environ[name]
        os.environ.update({"OMP_NUM_THREADS": "1"} | environment)
        torch.set_num_threads(1)
        prepare()
        code = train_main(list(arguments))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _hold_port() -> int:
    if len(_HELD) == 64:
        _HELD.popleft().close()
    _HELD.append(ExitStack())
    port = _HELD[-1].enter_context(held_port(next(_PORTS), num_tries=1000))
    assert port is not None, "1000 ports are taken"
    return port
