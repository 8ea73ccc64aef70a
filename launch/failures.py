"""What kind of failure it was, what to do about it, and how a person is told."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from launch.config.errors import EXIT_CONFIG, EXIT_INTERRUPTED, EXIT_STOPPED, install_words
from launch.config.run_dir import Attempt, read_json


@dataclass(frozen=True)
class Kind:
    """A kind of failure.

    Args:
        pattern: what exception, message or last lines say then (a regular expression, case ignored).
        advice: what to do about it.
        is_retryable: whether the same start may succeed later, with nothing changed.
    """

    pattern: str
    advice: str
    is_retryable: bool = False


KINDS: dict[str, Kind] = {
    "out_of_memory": Kind(
        r"OutOfMemoryError|CUDA out of memory|DefaultCPUAllocator: can't allocate|\bMemoryError\b",
        "halve train.micro_batch_size (the global batch stays), or set model.gradient_checkpointing=true",
    ),
    "disk_full": Kind(r"No space left on device|ENOSPC|Disk quota exceeded", "make room, or another --run-root; then: fullrank resume RUN"),
    "shared_memory": Kind(
        r"Bus error|unable to open shared memory|DataLoader worker .* is killed by signal: Bus", "data.num_workers=0, or more room in /dev/shm"
    ),
    "data_worker": Kind(r"DataLoader worker .* (exited unexpectedly|is killed)", "data.num_workers=0 shows the error itself in the rank's log"),
    "missing_package": Kind(r"ModuleNotFoundError|ImportError", f"{install_words('train')}, with the python of this run (environment.json names it)"),
    "hub": Kind(
        r"LocalEntryNotFoundError|OfflineModeIsEnabled|RepositoryNotFoundError|GatedRepoError|couldn't connect to .*huggingface|Can't load .* for '",
        "check the name and the network, or name a local folder: model.source=./folder",
        is_retryable=True,
    ),
    "port_taken": Kind(r"EADDRINUSE|Address already in use", "start again: another port is tried", is_retryable=True),
    "driver": Kind(
        r"NVIDIA driver .* too old|CUDA driver version is insufficient|no CUDA-capable device",
        "install a torch build that fits the driver (nvidia-smi shows it)",
    ),
    "device_assert": Kind(r"device-side assert", "usually a label out of range; CUDA_LAUNCH_BLOCKING=1 shows the line"),
    "nccl": Kind(
        r"NCCL (error|WARN)|ncclSystemError|ncclInternalError|ncclRemoteError", "NCCL_DEBUG=INFO shows the interface it uses", is_retryable=True
    ),
    "lost_contact": Kind(
        r"Connection (closed by peer|reset by peer|refused)|Broken pipe|Timed out waiting|DistNetworkError|DistStoreError|heartbeat|recvValue failed",
        "another rank or the network went away first: look at the other ranks' logs",
        is_retryable=True,
    ),
    "group_left_open": Kind(
        r"terminate called without an active exception",
        "torch.distributed.destroy_process_group() as the script's last line (Accelerate: accelerator.end_training()); its work may well be whole",
    ),
    "not_finite": Kind(r"(loss|gradient).{0,40}\b(nan|inf|not finite)", "a smaller optimizer.lr, a longer schedule.warmup, or train.precision=fp32"),
}
"""Kinds in the order in which they are tried. `configuration` and `killed` are told by the exit code, `exception` is the rest."""

_SIGNALS = {
    "SIGKILL": "usually the kernel's out-of-memory killer (dmesg tells): fewer data.num_workers, or a smaller train.micro_batch_size",
    "SIGSEGV": "a crash in a compiled library; the rank's log shows where in Python it was",
    "SIGBUS": "usually a full /dev/shm: data.num_workers=0",
    "SIGABRT": "a compiled library gave up; its last lines say why",
    "SIGILL": "a library built for another processor",
    "SIGTERM": "somebody or the scheduler stopped this process alone",
    "SIGHUP": "the terminal was closed: start it under tmux, or with nohup",
}


_SCRIPT_ADVICE = {
    "out_of_memory": "a smaller batch in the script (with accumulation for the same total), or gradient checkpointing",
    "disk_full": "make room, or another --run-root; then: fullrank resume RUN",
    "shared_memory": "num_workers=0 in the script's DataLoader, or more room in /dev/shm",
    "data_worker": "num_workers=0 in the script's DataLoader shows the error itself in the rank's log",
    "missing_package": "install it into the python of this run (environment.json names it)",
    "hub": "check the name and the network, or give the script a local folder",
    "not_finite": "a smaller learning rate, or fp32; fullrank run --debug stops where you set a breakpoint()",
    "SIGKILL": "usually the kernel's out-of-memory killer (dmesg tells): fewer data workers, or a smaller batch in the script",
    "SIGBUS": "usually a full /dev/shm: num_workers=0 in the script's DataLoader",
    "SIGABRT": (
        "a compiled library gave up; its last lines say why. If the work was done: gloo's threads outlived the script, "
        "and torch.distributed.destroy_process_group() as its last line ends them"
    ),
}
"""Kind or signal -> what helps where there is no experiment whose keys could be set."""

_STOPPED = (EXIT_STOPPED, EXIT_INTERRUPTED)
_RANK_PREFIX = re.compile(r"^\[rank\d+\]:\s?")
"""What torch puts before the lines of a traceback once the ranks have met."""

_EXCEPTION = re.compile(r"(?P<name>[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Warning|Iteration))(?:: (?P<message>.*))?$")
"""The last line of a traceback."""


@dataclass(frozen=True)
class Failure:
    """The failure of one rank.

    Args:
        rank: None for a stock launcher that does not say which rank it was.
        time: unix seconds at which it happened.
        step: optimizer steps done by then, where known.
        kind: a key of KINDS, or configuration, killed, exit, exception.
        exception: type name; None where the process ended without one.
        last_lines: the end of its log.
    """

    rank: int | None
    host: str
    pid: int | None
    time: float
    kind: str
    message: str
    step: int | None = None
    phase: str | None = None
    exception: str | None = None
    traceback: str | None = None
    exit_code: int | None = None
    advice: str | None = None
    last_lines: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"last_lines": list(self.last_lines)}


def read_failures(attempt: Attempt, last_lines: Mapping[int, Iterable[str]]) -> list[Failure]:
    """Returns the failures that ranks reported themselves, the earliest first."""
    reports = [report for path in sorted(attempt.failures.glob("rank_*.json")) if (report := read_json(path))]
    failures = [parse_failure(report, tuple(last_lines.get(report.get("rank", -1), ()))) for report in reports]
    return sorted(failures, key=lambda failure: failure.time)


def parse_failure(report: Mapping[str, Any], last_lines: tuple[str, ...] = ()) -> Failure:
    """Returns a report as a Failure, with its kind made as exact as its words allow."""
    names = ("rank", "host", "pid", "time", "step", "phase", "exception", "message", "traceback", "exit_code", "advice")
    known = {name: report[name] for name in names if name in report}
    kind = str(report.get("kind") or "exception")
    failure = Failure(
        **({"rank": None, "host": "", "pid": None, "time": 0.0, "message": ""} | known),
        kind=kind,
        last_lines=last_lines or tuple(report.get("last_lines", ())),
    )
    if kind == "exception":
        kind = classify(f"{failure.exception}: {failure.message}") or kind
    advice = failure.advice or (KINDS[kind].advice if kind in KINDS else None)
    return replace(failure, kind=kind, advice=advice)


def failure_of_exit(
    rank: int | None, host: str, pid: int, time: float, code: int, last_lines: Iterable[str], is_script: bool = False, was_shown: bool = False
) -> Failure:
    """Returns the failure of a process that ended without a report: by a signal (negative code), os._exit, or before our code ran.

    Args:
        is_script: somebody's own program, whose exit codes mean what its author meant by them.
        was_shown: what it said went to a terminal, and nothing of it was kept.
    """
    lines = tuple(last_lines)
    if code == EXIT_CONFIG and not is_script:
        return Failure(rank, host, pid, time, "configuration", "\n".join(_error_lines(lines)), exit_code=code, last_lines=lines)
    exception, message = _raised(lines)
    known = classify(f"{exception}: {message}" if exception else "\n".join(lines))
    name = signal_name(-code) if code < 0 else ""
    advice = KINDS[known].advice if known else _SIGNALS.get(name)
    if is_script:
        advice = _SCRIPT_ADVICE.get(known or name, advice)
    who = "the launcher" if rank is None else f"rank {rank}"
    if code < 0:
        return Failure(rank, host, pid, time, known or "killed", f"{who} was killed by {name}", exit_code=code, advice=advice, last_lines=lines)
    if exception:
        return Failure(rank, host, pid, time, known or "exception", message, exception=exception, exit_code=code, advice=advice, last_lines=lines)
    why = "and no report" if not is_script else "by itself: no stop was asked for" if code in _STOPPED else "and no traceback"
    what = f"{who} ended with exit code {code}{'; what it said is above' if was_shown and code not in _STOPPED else f' {why}'}"
    return Failure(rank, host, pid, time, known or "exit", what, exit_code=code, advice=advice, last_lines=lines)


def _raised(lines: tuple[str, ...]) -> tuple[str | None, str]:
    """Returns type and message of the last exception that Python printed; None: there is none."""
    lines = tuple(_RANK_PREFIX.sub("", line) for line in lines)
    for index, line in reversed(list(enumerate(lines))):
        match = _EXCEPTION.match(line)
        if match and index and lines[index - 1].startswith(" "):
            return match["name"].rpartition(".")[2], match["message"] or ""
    return None, ""


def _error_lines(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the lines from the first `error:` on, without that word; all lines if there is none."""
    start = next((index for index, line in enumerate(lines) if line.startswith("error: ")), None)
    return lines if start is None else (lines[start].removeprefix("error: "), *lines[start + 1 :])


def classify(text: str) -> str | None:
    """Returns the first kind whose pattern is in the text."""
    return next((name for name, kind in KINDS.items() if re.search(kind.pattern, text, re.IGNORECASE)), None)


def signal_name(number: int) -> str:
    """Returns e.g. SIGKILL."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def render_failure(failure: Failure, log: Path | None, others: int = 0, was_shown: bool = False) -> str:
    """Returns the failure for a person: who, where, what, the traceback or the last lines, and what to do.

    Args:
        others: failures that followed it.
        was_shown: its output went to the terminal, so the traceback is there already.
    """
    if failure.kind == "configuration":
        return f"error: {failure.message}"
    who = "the launcher" if failure.rank is None else f"rank {failure.rank}"
    where = f" on {failure.host}" if failure.host else ""
    when = f", after step {failure.step}" if failure.step is not None else (f", during {failure.phase}" if failure.phase else "")
    said = f"{failure.exception}: {failure.message}" if failure.exception else failure.message
    parts = [f"failed: {who}{where}{when}: {said.splitlines()[0] if said else failure.kind}"]
    if failure.traceback and not was_shown:
        parts.append(_indented(failure.traceback.rstrip().splitlines()))
    elif failure.last_lines and not was_shown:
        parts += ["  its last lines:", _indented(failure.last_lines)]
    if failure.advice:
        parts.append(f"  try: {failure.advice}")
    if others:
        parts.append(f"  {others} other rank{'s' if others > 1 else ''} failed after it; their reports are in failures/")
    if log is not None:
        parts.append(f"  log: {log}")
    return "\n".join(parts)


def _indented(lines: Iterable[str]) -> str:
    return "\n".join(f"  | {line}" for line in lines)
