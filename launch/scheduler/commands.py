"""Every question asked of Slurm and every order given to it, by its own commands."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from launch.config.errors import FullrankError, PreflightError, Problem
from launch.scheduler.printed import (
    SACCT,
    SINFO,
    SQUEUE,
    Accounted,
    Partition,
    Queued,
    parse_job_id,
    parse_records,
    parse_sacct,
    parse_settings,
    parse_sinfo,
    parse_squeue,
    parse_version,
)

_TIMEOUT_S = 20
_SUBMIT_TIMEOUT_S = 60
_TRIES = 3
_PATIENCE_S = 40
"""No new try after this long: a person waits for the answer."""

_NO_ANSWER = "no answer within"
_TRANSIENT = (
    "Unable to contact slurm controller",
    "Socket timed out",
    "Connection refused",
    "Connection timed out",
    "Zero Bytes were transmitted",
    "Resource temporarily unavailable",
    _NO_ANSWER,
)
"""Slurm's words, and ours, when its controller is busy or restarting: worth another try."""

_KEPT = frozenset(("SLURM_CONF", "SLURM_CLUSTERS", "SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_QOS"))
"""Variables that say where the cluster is and what a person's own defaults are (submitit#1814)."""

_DROPPED = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "SALLOC_", "PMI_", "PMIX_")
"""What an allocation around us has set: it would bind the new job to the old one's cores (goodfire-ai/spd#955)."""

_LEFT_OVER = frozenset(
    "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT CUDA_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES PYTHONHOME".split()
)
"""What another launcher or this machine's own GPUs have left in this shell: the nodes have places and GPUs of their own."""


class SlurmError(FullrankError):
    """A command of Slurm failed; holds its own words."""


@dataclass(frozen=True)
class Site:
    """What a cluster says of itself.

    Args:
        settings: `scontrol show config`.
        limits: partition -> `scontrol show partition`.
        accounts: accounts this person may use; None: accounting is off or does not tell.
        qos: qualities of service that go with each account.
    """

    version: tuple[int, int] | None
    partitions: tuple[Partition, ...]
    settings: dict[str, str]
    limits: dict[str, dict[str, str]] = field(default_factory=dict)
    accounts: dict[str, frozenset[str]] | None = None

    @property
    def default_partition(self) -> str | None:
        return next((partition.name for partition in self.partitions if partition.is_default), None)

    def partition(self, name: str | None) -> Partition | None:
        """Returns the partition called so, or the default one."""
        wanted = name or self.default_partition
        return next((partition for partition in self.partitions if partition.name == wanted), None)

    def preempt_mode(self, partition: str | None) -> str:
        """Returns what preemption does to a job there: OFF, REQUEUE, CANCEL, SUSPEND or GANG, from the partition or the whole cluster."""
        if "none" in self.settings.get("PreemptType", "preempt/none"):
            return "OFF"
        own = self.limits.get(partition or self.default_partition or "", {}).get("PreemptMode")
        return (own or self.settings.get("PreemptMode", "OFF")).split(",")[-1]

    def grace_s(self, partition: str | None) -> int:
        """Returns the seconds between SIGTERM and SIGKILL at a preemption: the partition's GraceTime and the cluster's KillWait."""
        own = self.limits.get(partition or self.default_partition or "", {}).get("GraceTime", "0")
        kill_wait = self.settings.get("KillWait", "30 sec").split()[0]
        return (int(own) if own.isdigit() else 0) + (int(kill_wait) if kill_wait.isdigit() else 30)


def has_slurm() -> bool:
    """Returns whether Slurm's commands are here."""
    return shutil.which("sbatch") is not None


def require_slurm() -> None:
    """Refuses a machine without Slurm.

    Raises:
        PreflightError: says where to type the command instead.
    """
    if not has_slurm():
        what = "sbatch is not on this machine"
        raise PreflightError(Problem(what, fix="log in to the cluster's login node first; or train here: fullrank run"))


def ask_site() -> Site:
    """Returns what the cluster says of its partitions, limits and accounts.

    Raises:
        PreflightError: there is no Slurm here.
        SlurmError: it does not answer.
    """
    require_slurm()
    accounts: dict[str, frozenset[str]] | None = None
    settings = parse_settings(ask("scontrol", "show", "config"))
    if "none" not in settings.get("AccountingStorageType", "none"):
        try:
            rows = [
                line.split("|")
                for line in ask("sacctmgr", "-n", "-P", "show", "assoc", f"user={getpass.getuser()}", "format=account,qos").splitlines()
            ]
            accounts = {row[0]: frozenset(row[1].split(",")) for row in rows if len(row) == 2}
        except SlurmError:
            accounts = None
    return Site(
        version=parse_version(ask("sinfo", "--version")),
        partitions=tuple(parse_sinfo(ask(*SINFO))),
        settings=settings,
        limits={record["PartitionName"]: record for record in parse_records(ask("scontrol", "show", "partition", "-o")) if "PartitionName" in record},
        accounts=accounts,
    )


def try_site() -> tuple[Site | None, Problem | None]:
    """Returns what the cluster says of itself, or why it could not be asked: there is no Slurm here, or no cluster behind its commands."""
    if not has_slurm():
        return None, Problem("there is no Slurm here")
    try:
        return ask_site(), None
    except (SlurmError, PreflightError) as error:
        problem = error.problems[0]
        return None, replace(problem, what=problem.what.splitlines()[-1])


def ask_queue() -> dict[str, Queued]:
    """Returns all of this person's jobs in the queue, in one query."""
    return parse_squeue(ask(*SQUEUE, "-u", getpass.getuser()))


def ask_accounting(since: float) -> dict[str, Accounted] | None:
    """Returns all of this person's jobs since then (unix seconds), in one query; None: accounting is off, or does not answer."""
    start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since))
    try:
        return parse_sacct(ask(*SACCT, "-u", getpass.getuser(), "-S", start))
    except SlurmError:
        return None


def try_script(script: str, folder: Path, options: Sequence[str] = ()) -> str:
    """Returns when and where the cluster would start a script, in its own words; submits nothing.

    Raises:
        SlurmError: it would refuse, in its words.
    """
    return _run(["sbatch", "--test-only", *options], stdin=script, folder=folder).stderr.strip()


def submit_script(path: Path, folder: Path, options: Sequence[str] = ()) -> str:
    """Submits a script and returns its job id. Never tried twice: where the answer is lost, the queue tells whether the job is in it.

    Raises:
        SlurmError: it was refused.
    """
    before = _jobs_of_script(path) if options else frozenset()  # a later link of a chain has the script of those before it
    try:
        answer = _run(["sbatch", "--parsable", *options, str(path)], folder=folder, tries=1, timeout_s=_SUBMIT_TIMEOUT_S)
    except SlurmError as error:
        if not is_transient(error.problems[0].what) or not (found := _jobs_of_script(path) - before):
            raise
        return max(found, key=int)
    job_id = parse_job_id(answer.stdout)
    if job_id is None:
        raise SlurmError(
            Problem(f"sbatch did not say a job id: {answer.stdout.strip() or answer.stderr.strip()!r}", fix="squeue shows whether it is queued")
        )
    return job_id


def _jobs_of_script(path: Path) -> frozenset[str]:
    """Returns this person's jobs in the queue that were made of a script."""
    rows = (line.partition("|") for line in ask("squeue", "-h", "-u", getpass.getuser(), "-o", "%A|%o").splitlines())
    return frozenset(job_id for job_id, _, command in rows if command == str(path))


def cancel_job(job_id: str, waiting_only: bool = False) -> None:
    """Ends a job at once, or takes it from the queue; one that is gone already is fine."""
    _run(["scancel", *(["--state=PENDING"] if waiting_only else []), job_id])


def warn_job(job_id: str, number: signal.Signals) -> None:
    """Sends a signal to a job's batch shell alone, as Slurm does before the time limit (sbatch --signal=B:)."""
    _run(["scancel", f"--signal={number.name.removeprefix('SIG')}", "--batch", job_id])


def forbid_requeue(job_id: str) -> None:
    """Tells Slurm not to start the job again by itself; a job that is gone already is fine."""
    try:
        _run(["scontrol", "update", f"JobId={job_id}", "Requeue=0"])
    except SlurmError:
        return


def ask(*argv: str) -> str:
    """Returns the output of one of Slurm's commands.

    Raises:
        SlurmError: it failed, also after some tries where its controller did not answer.
    """
    return _run(argv).stdout


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns what a job may inherit: nothing of an allocation around us, nor of this machine; a person's own defaults stay."""
    return {name: value for name, value in environment.items() if name in _KEPT or not (name.startswith(_DROPPED) or name in _LEFT_OVER)}


def own_defaults(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the person's own SBATCH_ variables that will have a say."""
    return {name: value for name, value in environment.items() if name in _KEPT and name.startswith("SBATCH_")}


def _run(
    argv: Sequence[str], stdin: str | None = None, folder: Path | None = None, tries: int = _TRIES, timeout_s: float | None = None
) -> subprocess.CompletedProcess[str]:
    said, started = "", time.monotonic()
    for attempt in range(tries):
        if attempt:
            if time.monotonic() > started + _PATIENCE_S:
                break
            time.sleep(2**attempt)
        try:
            ended = subprocess.run(
                list(argv),
                input=stdin or "",
                cwd=folder,
                env=clean_environment(os.environ),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s or _TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            said = f"{_NO_ANSWER} {timeout_s or _TIMEOUT_S} s"
            continue
        except FileNotFoundError as error:
            raise PreflightError(Problem(f"{argv[0]} is not on this machine", fix="log in to the cluster's login node first")) from error
        if ended.returncode == 0:
            return ended
        said = ended.stderr.strip() or ended.stdout.strip() or f"exit code {ended.returncode}"
        if not is_transient(said):
            break
    raise SlurmError(Problem(f"{argv[0]}: {said.removeprefix(f'{argv[0]}: ')}", fix=advice(said)))


def is_transient(said: str) -> bool:
    """Returns whether Slurm's controller was only busy or away when it said so."""
    return any(words in said for words in _TRANSIENT)


_ADVICE = {
    "partition": "name one that exists: sinfo; set partition in the cluster file, or --partition",
    "account": "sacctmgr show assoc user=$USER shows yours; set account in the cluster file",
    "qos": "sacctmgr show assoc user=$USER format=account,qos shows yours; set qos in the cluster file",
    "feature": "sinfo -o '%f' shows the features there are; set constraint in the cluster file",
    "time limit": "a shorter --time; sinfo shows the partition's limit",
    "node configuration": "fewer gpus_per_node, cpus_per_node or memory_gib_per_node in the cluster file, or fewer --nodes (see sinfo -Nel)",
    "node count": "fewer --nodes",
    "reservation": "scontrol show reservation shows those you may use",
    "dependency": "the job to wait for is gone",
    "contact slurm controller": "try again in a minute; scontrol ping shows whether it is up",
    "no answer": "try again in a minute; scontrol ping shows whether it is up",
    "timed out": "try again in a minute; scontrol ping shows whether it is up",
    "connection refused": "try again in a minute; scontrol ping shows whether it is up",
    "configuration source": "fullrank on the cluster's login node: Slurm's commands are on this machine, and no cluster answers them",
    "gres": "sinfo -o '%P %G' shows the GPUs there are; set gpus_per_node and gpu_type in the cluster file",
}
"""Words in Slurm's refusals -> what to change."""


def advice(said: str) -> str | None:
    """Returns what to change after Slurm has refused in these words."""
    return next((text for words, text in _ADVICE.items() if words in said.lower()), None)
