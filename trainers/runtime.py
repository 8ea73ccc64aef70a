"""What a person's own script may import, under fullrank or not: stop when asked, publish checkpoints, find the newest.

    from trainers.runtime import latest_checkpoint, publish_checkpoint, should_stop

Importing it makes SIGTERM, SIGUSR2 and Ctrl-C requests that should_stop() tells of, instead of the end of the process (a
second Ctrl-C is one again). Under `fullrank run --script` checkpoints lie in the run directory, and `fullrank resume` goes
on from the newest; without fullrank they lie in ./checkpoints, and starting the script again goes on from there.
examples/resumable.py is a whole script that uses all three.
"""

from __future__ import annotations

import atexit
import operator
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from launch.config.run_dir import Cause, RunDir, write_atomic
from trainers.checkpoints.manifest import find_damage, find_newest, prune, publish, sorted_checkpoints, step_of
from trainers.stopping import StopRequests, agreed_cause

_Told = TypeVar("_Told")

__all__ = ["latest_checkpoint", "publish_checkpoint", "should_stop"]


def should_stop() -> bool:
    """Returns whether the training was asked to stop: the same answer on every rank, so that all leave at the same step.

    Every rank must call this, once a step, say: it is one small all-reduce over the host once torch.distributed is
    initialised, and no more than a look at a variable before or without it. Save, then leave with an exit code other than 0
    (75 is the usual one), unless everything is done.
    """
    cause = agreed_cause(_sum_over_ranks(_STOPS.flags()))
    if cause and _rank() == 0:
        _tell_launcher(cause)
    return cause is not None


def latest_checkpoint() -> Path | None:
    """Returns the newest checkpoint that is whole, None if there is none; it is called checkpoint-<step>.

    Every rank must call this, best after torch.distributed is initialised: then all get rank 0's answer. Sizes and hashes
    are compared with the manifest; what does not fit is passed over with a warning, and renamed to damaged-<name>.
    """
    run = _run()
    if _joined() is None and _rank() > 0:  # nobody to ask, and only one process may rename
        found = next((path for path in sorted_checkpoints(run)[::-1] if find_damage(path) is None), None)
    else:
        found = _from_main(find_newest(run) if _rank() == 0 else None)
    if found and _rank() == 0:
        print(f"going on from {found}", file=sys.stderr, flush=True)
    return found


@contextmanager
def publish_checkpoint(step: int, keep: int = 2) -> Iterator[Path]:
    """Gives a new folder to write into, and publishes it as checkpoint-<step> afterwards: whole or not at all.

    Every rank must enter it; which rank writes what is the script's affair. Files are flushed and listed with their sizes
    and hashes before the folder gets its name; then the older checkpoints but `keep` go. If the body raises, nothing is
    published and nothing goes.

        with publish_checkpoint(step) as folder:
            accelerator.save_state(folder)

    Raises:
        RuntimeError: there are several processes, and torch.distributed is not initialised.
        TypeError, ValueError: the step is no whole number from 0 on, or lower than that of a checkpoint that is there; or nothing was written.
    """
    if (step := operator.index(step)) < 0:
        raise ValueError(f"the step of a checkpoint is {step}, not a number from 0 on")
    if _joined() is None and _world_size() > 1:
        raise RuntimeError(f"{_world_size()} processes, and torch.distributed is not initialised: they cannot write one checkpoint together")
    run = _run()
    path = run.checkpoints / f"checkpoint-{step}"
    temporary = path.with_name(f".{path.name}.tmp")
    _raise_everywhere(_newer_than(run, step) if _rank() == 0 else None)
    if _rank() == 0:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    _barrier()
    yield temporary
    _barrier()
    is_empty = _rank() == 0 and not any(file.is_file() for file in temporary.rglob("*"))
    _raise_everywhere(f"nothing was written into the checkpoint of step {step}" if is_empty else None)
    if _rank() == 0:
        publish(temporary, path, {"step": step, "world_size": _world_size()})
        prune(run, keep)
    _barrier()


def _newer_than(run: RunDir, step: int) -> str | None:
    """Says which checkpoint is newer than a step about to be published, which nobody would ever go on from."""
    published = sorted_checkpoints(run)
    if not published or step_of(published[-1]) <= step:
        return None
    newest = find_newest(run)  # a damaged one is no hindrance
    if newest is None or step_of(newest) <= step:
        return None
    return f"step {step} is before {newest}: go on from it (latest_checkpoint()), or move it away to train those steps again"


def _run() -> RunDir:
    return RunDir(Path(os.environ.get("FULLRANK_RUN_DIR") or ".").absolute())


def _tell_launcher(cause: Cause) -> None:
    number = os.environ.get("FULLRANK_ATTEMPT")
    if number and os.environ.get("FULLRANK_RUN_DIR"):
        agreed = _run().attempt(int(number)).agreed_stop
        if not agreed.exists():
            write_atomic(agreed, f"{cause}\n")


def _listen() -> StopRequests:
    stops = StopRequests()
    if threading.current_thread() is threading.main_thread():  # Python sets handlers in no other; the stop file still counts
        stops.listen()
    if stop_file := os.environ.get("FULLRANK_STOP_FILE"):
        stops.watch(Path(stop_file))
    return stops


def _leave() -> None:
    """Ends gloo's threads, if the script has not: one that frees a collective's tensors while Python goes away aborts the process (SIGABRT).

    To free them it needs Python's lock, which nobody gets any more. The threads of our own group end with it; those of a group that
    DistributedDataParallel has held stay whatever is destroyed, and are given the time to free what the script's last collective left.
    """
    global _control_group
    distributed, group, _control_group = _joined(), _control_group, None  # where the script has left, letting go of our group ends it
    if distributed is None:
        return
    if group is not None:
        distributed.destroy_process_group(group)
    if distributed.get_backend() == "gloo":  # NCCL's may wait for a rank that is gone
        time.sleep(_LAST_FREED_S)
        distributed.destroy_process_group()


_STOPS = _listen()
_LAST_FREED_S = 0.05
_control_group: Any = None
atexit.register(_leave)


def _joined() -> Any:
    """Returns torch.distributed if the script has initialised it; never imports torch."""
    distributed = sys.modules.get("torch.distributed")
    return distributed if distributed and distributed.is_available() and distributed.is_initialized() else None


def _rank() -> int:
    distributed = _joined()
    return int(distributed.get_rank() if distributed else os.environ.get("RANK") or 0)


def _world_size() -> int:
    distributed = _joined()
    return int(distributed.get_world_size() if distributed else os.environ.get("WORLD_SIZE") or 1)


def _group() -> Any:
    """Returns a group of our own, over host memory whatever the script's is."""
    global _control_group
    if _control_group is None:
        _control_group = _joined().new_group(backend="gloo")
    return _control_group


def _sum_over_ranks(values: Sequence[float]) -> list[float]:
    distributed = _joined()
    if distributed is None:
        return list(values)
    import torch

    tensor = torch.tensor(list(values), dtype=torch.float64)
    distributed.all_reduce(tensor, group=_group())
    return [float(value) for value in tensor]


def _from_main(value: _Told) -> _Told:
    """Returns rank 0's value on every rank; the process's own where none are joined."""
    distributed = _joined()
    if distributed is None:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0, group=_group())
    return box[0]


def _raise_everywhere(problem: str | None) -> None:
    """Raises rank 0's problem on every rank, so that none waits for one that has left."""
    if told := _from_main(problem):
        raise ValueError(told)


def _barrier() -> None:
    _sum_over_ranks([0.0])
