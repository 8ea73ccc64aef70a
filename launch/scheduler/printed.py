"""What Slurm's commands print, read into values; pure. Text of versions 20 to 25, which have no --json in common."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Ended = Literal["completed", "failed", "cancelled", "time_limit", "node_failed", "out_of_memory", "preempted"]

SINFO = ("sinfo", "-h", "-o", "%P|%a|%l|%D|%c|%m|%G|%f")
SQUEUE = ("squeue", "-h", "-r", "-t", "all", "-o", "%i|%T|%r|%S|%N")
SACCT = ("sacct", "-n", "-P", "-X", "-o", "JobID,State,ExitCode,End,NodeList,Reason")
JOB_STATES: dict[str, Ended] = {
    "COMPLETED": "completed",
    "FAILED": "failed",
    "BOOT_FAIL": "node_failed",
    "NODE_FAIL": "node_failed",
    "CANCELLED": "cancelled",
    "REVOKED": "cancelled",
    "DEADLINE": "time_limit",
    "TIMEOUT": "time_limit",
    "OUT_OF_MEMORY": "out_of_memory",
    "PREEMPTED": "preempted",
}
"""Job states (squeue(1), JOB STATE CODES) in which a job has ended, and what that means."""

REASONS: dict[str, str] = {
    "None": "Slurm has not looked at it yet",
    "Priority": "jobs of higher priority come first",
    "Resources": "waits for nodes to become free",
    "BeginTime": "waits for its start time (a requeued job does so for about two minutes)",
    "Dependency": "waits for the job before it in its chain",
    "DependencyNeverSatisfied": "the job it waits for failed: it will never start; fullrank cancel it",
    "JobArrayTaskLimit": "as many tasks of the array run as --at-most allows",
    "AssocGrpGRES": "your account's GPUs are all in use",
    "AssocGrpCpuLimit": "your account's cores are all in use",
    "QOSMaxJobsPerUserLimit": "you have as many jobs running as the qos allows",
    "QOSMaxGRESPerUser": "you have as many GPUs as the qos allows",
    "QOSMaxCpuPerUserLimit": "you have as many cores as the qos allows",
    "PartitionTimeLimit": "its time limit is above the partition's: it will never start",
    "PartitionNodeLimit": "it asks for more nodes than the partition gives one job: it will never start",
    "PartitionDown": "the partition is down",
    "ReqNodeNotAvail": "nodes it needs are down, drained or reserved (often maintenance)",
    "Reservation": "waits for its reservation to begin",
    "JobHeldUser": "it is held: scontrol release JOB",
    "JobHeldAdmin": "an administrator holds it",
    "launch failed requeued held": "it could not be started on a node and is held: scontrol release JOB tries again",
    "Licenses": "waits for a licence",
    "BadConstraints": "no node can ever satisfy what it asks for",
}
"""Why a pending job waits (squeue(1), JOB REASON CODES), in a person's words."""


@dataclass(frozen=True)
class Partition:
    """One partition, as sinfo summarises it.

    Args:
        time_limit: as Slurm writes it; None: without end.
        num_nodes: of all its kinds of nodes.
        cpus, memory_mib: of its smallest node.
        gpus: GPUs a node, by type ("" where the site names none); of the node that has the most.
    """

    name: str
    is_default: bool
    is_up: bool
    time_limit: str | None
    num_nodes: int
    cpus: int
    memory_mib: int
    gpus: dict[str, int]
    features: frozenset[str]


@dataclass(frozen=True)
class Queued:
    """A job that squeue knows, also one that has ended in the last minutes; node_list and start are empty where it cannot tell."""

    job_id: str
    state: str
    reason: str
    start: str
    node_list: str


@dataclass(frozen=True)
class Accounted:
    """A job that sacct knows."""

    job_id: str
    state: str
    exit_code: str
    end: str
    node_list: str

    @property
    def ended(self) -> Ended | None:
        """Returns how it ended; None: it has not."""
        return JOB_STATES.get(self.state.split()[0]) if self.state else None


def parse_sinfo(text: str) -> list[Partition]:
    """Returns the partitions in SINFO's answer; one that has several kinds of nodes stands on several lines."""
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) != 8:
            continue
        name, available, limit, nodes, cpus, memory, gres, features = fields
        one = Partition(
            name=name.rstrip("*"),
            is_default=name.endswith("*"),
            is_up=available == "up",
            time_limit=None if limit == "infinite" else limit,
            num_nodes=_number(nodes),
            cpus=_number(cpus),
            memory_mib=_number(memory),
            gpus=parse_gpus(gres),
            features=frozenset(features.split(",")) - {"(null)", ""},
        )
        before = found.get(one.name)
        found[one.name] = one if before is None else _joined(before, one)
    return list(found.values())


def _joined(one: Partition, other: Partition) -> Partition:
    return Partition(
        name=one.name,
        is_default=one.is_default,
        is_up=one.is_up,
        time_limit=one.time_limit,
        num_nodes=one.num_nodes + other.num_nodes,
        cpus=min(one.cpus, other.cpus),
        memory_mib=min(one.memory_mib, other.memory_mib),
        gpus={kind: max(one.gpus.get(kind, 0), other.gpus.get(kind, 0)) for kind in one.gpus | other.gpus},
        features=one.features | other.features,
    )


def parse_gpus(gres: str) -> dict[str, int]:
    """Returns {type: count} of a node's GRES, e.g. `gpu:h100:8(S:0-1),nvme:1` -> {"h100": 8}; the type is "" where there is none."""
    gpus: dict[str, int] = {}
    for part in re.sub(r"\([^)]*\)", "", gres).split(","):
        words = part.split(":")
        if words[0] == "gpu":
            kind, count = (words[1], words[2]) if len(words) > 2 else ("", words[1]) if len(words) == 2 and words[1].isdigit() else (words[-1], "1")
            gpus[kind] = gpus.get(kind, 0) + _number(count)
    return gpus


def parse_squeue(text: str) -> dict[str, Queued]:
    """Returns {job id: job} of SQUEUE's answer; array tasks have an id each (12_3)."""
    rows = (line.split("|") for line in text.splitlines())
    return {
        row[0]: Queued(row[0], row[1], row[2].strip("()"), "" if row[3] in ("N/A", "Unknown") else row[3], row[4]) for row in rows if len(row) == 5
    }


def parse_sacct(text: str) -> dict[str, Accounted]:
    """Returns {job id: job} of SACCT's answer; of a requeued job the newest line counts."""
    rows = (line.split("|") for line in text.splitlines())
    return {row[0]: Accounted(row[0], row[1], row[2], row[3], row[4]) for row in rows if len(row) >= 5}


def parse_settings(text: str) -> dict[str, str]:
    """Returns what `scontrol show config` says: `Name = value` lines."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("Configuration data"))
    return {name.strip(): value.strip() for name, value in pairs}


def parse_records(text: str) -> list[dict[str, str]]:
    """Returns what `scontrol show ... -o` says: one record a line, of `Name=value` words."""
    return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in text.splitlines() if "=" in line]


def parse_job_id(text: str) -> str | None:
    """Returns the job id in the answer of `sbatch --parsable` (`123` or `123;cluster`, after warnings) or of plain sbatch; None: none."""
    for line in reversed(text.splitlines()):
        match = re.fullmatch(r"(?:Submitted batch job )?(\d+)(?:;\S+|\s+on cluster \S+)?", line.strip())
        if match:
            return match[1]
    return None


def parse_version(text: str) -> tuple[int, int] | None:
    """Returns (22, 5) for `slurm-wlm 22.05.8` or `slurm 22.05.8`; None: it is no version."""
    match = re.search(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def expand_hosts(node_list: str) -> list[str]:
    """Returns the nodes of `node[01-04,7],other` in Slurm's order, which is that of a job's node numbers."""
    hosts = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", node_list):
        names = [""]
        for text, ranges in re.findall(r"([^\[\]]+)|\[([^\]]*)\]", part):
            names = [name + piece for name in names for piece in ([text] if text else _numbers(ranges))]
        hosts += names
    return hosts


def _numbers(ranges: str) -> list[str]:
    """Returns `01-03,7` as 01, 02, 03, 7."""
    bounds = [one.partition("-")[::2] for one in ranges.split(",")]
    return [f"{number:0{len(first)}d}" for first, last in bounds for number in range(int(first), int(last or first) + 1)]


def _number(text: str) -> int:
    """Returns the number at the start: sinfo appends + where nodes differ, and K where there are thousands."""
    match = re.match(r"(\d+)(K?)", text)
    return int(match[1]) * (1000 if match[2] else 1) if match else 0
