"""What a cluster says of itself -> the first draft of its cluster file; pure."""

from __future__ import annotations

from launch.config.errors import ConfigError, Problem, suggest
from launch.scheduler.commands import Site
from launch.scheduler.printed import Partition

_OLDEST, _NEWEST = (20, 0), (25, 99)


def draft_cluster(site: Site, partition: str | None, name: str) -> tuple[str, list[str]]:
    """Returns the text of a cluster file, and what was guessed.

    Raises:
        ConfigError: there is no such partition, or none at all.
    """
    chosen = _choose(site, partition)
    kind = max(chosen.gpus, key=lambda one: chosen.gpus[one], default="")
    gpus = chosen.gpus.get(kind, 0)
    accounts = sorted(site.accounts or ())
    notes = [f"found: the partition {chosen.name}: {chosen.num_nodes} nodes, {chosen.cpus} cores, {gpus} GPUs {kind}".rstrip()]
    lines = [
        f"# The cluster {site.settings.get('ClusterName', name)}, as it described itself.     fullrank submit EXPERIMENT --cluster {name} --nodes 2",
        f"# What each key means: fullrank cluster show {name}",
        f"partition: {chosen.name}",
    ]
    if len(accounts) == 1:
        lines.append(f"account: {accounts[0]}")
    elif accounts:
        lines.append(f"# account: {accounts[0]}  # yours: {', '.join(accounts)}; without this key Slurm takes your default")
        notes.append(f"guessed: your default account ({len(accounts)} to choose from: {', '.join(accounts)})")
    else:
        notes.append("not found: accounts (accounting is off, or does not tell); set account if sbatch asks for one")
    if gpus:
        lines.append(f"gpus_per_node: {gpus}")
        lines += [f"gpu_type: {kind}"] if kind else []
    lines.append(f"cpus_per_node: {chosen.cpus}")
    lines.append(f"memory_gib_per_node: {max(1, chosen.memory_mib * 9 // 10 // 1024)}  # nine tenths of {chosen.memory_mib} MiB")
    if chosen.time_limit:
        lines.append(f'time_limit: "{chosen.time_limit}"  # the partition\'s longest; a shorter one starts sooner')
    else:
        lines.append("time_limit: 1-00:00:00")
        notes.append("guessed: a time limit of a day (the partition has none)")
    mode = site.preempt_mode(chosen.name)
    lines.append(f"when_stopped: auto  # PreemptMode here: {mode}")
    if mode == "CANCEL":
        notes.append("preemption cancels jobs here: a training is submitted as a chain of jobs (--chain N)")
    lines += [
        "# run_root: /shared/runs  # a folder that every node sees",
        "# cache: /shared/cache",
        "# has_internet: false  # if compute nodes do not reach the hub",
        "# modules: []",
    ]
    notes.append("guessed: that compute nodes see this folder and reach the internet; mend run_root, cache and has_internet if not")
    return "\n".join(lines) + "\n", notes


def describe_site(site: Site) -> list[str]:
    """Returns what was asked and what this version of Slurm does not tell."""
    version = ".".join(map(str, site.version)) if site.version else "of an unknown version"
    lines = [f"found: Slurm {version}, cluster {site.settings.get('ClusterName', '?')}, {len(site.partitions)} partitions"]
    if site.version and not _OLDEST <= site.version <= _NEWEST:
        lines.append(f"warning: fullrank knows Slurm 20 to 25; what {version} prints may be read wrongly")
    missing = [key for key in ("PreemptMode", "KillWait", "JobRequeue") if key not in site.settings]
    if missing:
        lines.append(f"not found: {', '.join(missing)} in scontrol show config")
    return lines


def _choose(site: Site, name: str | None) -> Partition:
    """The partition that was named, or the one with most GPUs; the default one among equals."""
    if name is not None:
        found = site.partition(name)
        if found is None:
            names = [one.name for one in site.partitions]
            near = suggest(name, names)
            what = f"there is no partition {name!r}" + (f"; did you mean {near!r}?" if near else "")
            raise ConfigError(Problem(what, key="--partition", allowed=", ".join(names)))
        return found
    if not site.partitions:
        raise ConfigError(Problem("sinfo shows no partition", fix="ask the cluster's administrators which one you may use"))
    return max(site.partitions, key=lambda one: (one.is_up, sum(one.gpus.values()), one.is_default))
