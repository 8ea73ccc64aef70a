"""Does the cluster give what a job asks for: partition, account, time, nodes, GPUs, cores, memory."""

from __future__ import annotations

from launch.config.cluster import parse_time_limit
from launch.config.errors import Problem, suggest
from launch.scheduler.submission import Submission


def check_partition(asked: Submission) -> list[Problem]:
    if asked.site is None:
        return []
    name, names = asked.job.cluster.partition, [one.name for one in asked.site.partitions]
    if asked.partition is None:
        near = suggest(name or "", names)
        what = f"there is no partition {name!r}" if name else "the cluster has no default partition"
        return [asked.problem("partition", what + (f"; did you mean {near!r}?" if near else ""), ", ".join(names), "--partition NAME")]
    if not asked.partition.is_up:
        return [asked.problem("partition", f"the partition {asked.partition.name} is down", ", ".join(names), "--partition NAME")]
    return []


def check_time(asked: Submission) -> list[Problem]:
    limit = asked.job.cluster.time_limit
    if limit is None:
        return []
    problems, minutes = [], parse_time_limit(limit)
    longest = asked.partition.time_limit if asked.partition else None
    if longest and asked.partition and minutes > parse_time_limit(longest):
        what = f"{limit} is longer than the partition {asked.partition.name} allows"
        fix = f"--time {longest}; a longer training goes on by itself after the limit (when_stopped: requeue), or with --chain N"
        problems.append(asked.problem("time_limit", what, f"at most {longest}", fix))
    if minutes * 60 < asked.job.warning_s + 60:
        what = f"{limit} leaves no time to train before the warning that comes {asked.job.warning_s} s before its end"
        problems.append(asked.problem("time_limit", what, fix="a longer --time, or a smaller warning_s"))
    return problems


def check_node_count(asked: Submission) -> list[Problem]:
    nodes = asked.job.plan.nodes
    if asked.partition is None:
        return []
    most, by = asked.partition.num_nodes, "has"
    if (told := asked.limits.get("MaxNodes", "")).isdigit() and int(told) < most:
        most, by = int(told), "gives one job"
    if nodes <= most:
        return []
    return [
        Problem(
            f"{nodes} nodes, and the partition {asked.partition.name} {by} {most}", key="--nodes", allowed=f"at most {most}", fix=f"--nodes {most}"
        )
    ]


def check_account(asked: Submission) -> list[Problem]:
    account = asked.job.cluster.account
    if asked.site is None or account is None:
        return []
    problems = []
    known = asked.site.accounts
    if known is not None and account not in known:
        near = suggest(account, known)
        what = f"you have no account {account!r}" + (f"; did you mean {near!r}?" if near else "")
        problems.append(asked.problem("account", what, ", ".join(sorted(known)), "sacctmgr show assoc user=$USER"))
    allowed = asked.limits.get("AllowAccounts", "ALL")
    if allowed != "ALL" and account not in allowed.split(","):
        problems.append(asked.problem("account", f"the partition does not take jobs of {account!r}", allowed))
    return problems


def check_qos(asked: Submission) -> list[Problem]:
    cluster, site = asked.job.cluster, asked.site
    if site is None or cluster.qos is None or site.accounts is None:
        return []
    known = site.accounts.get(cluster.account) if cluster.account else frozenset().union(*site.accounts.values())
    if known is None or cluster.qos in known:
        return []
    return [
        asked.problem(
            "qos", f"you have no qos {cluster.qos!r}", ", ".join(sorted(known)) or None, "sacctmgr show assoc user=$USER format=account,qos"
        )
    ]


def check_constraint(asked: Submission) -> list[Problem]:
    constraint = asked.job.cluster.constraint
    if asked.partition is None or constraint is None:
        return []
    words = "".join(character if character.isalnum() or character in "_-.:" else " " for character in constraint).split()
    unknown = [word for word in words if not word.isdigit() and word not in asked.partition.features]
    features = ", ".join(sorted(asked.partition.features)) or "none"
    return [
        asked.problem("constraint", f"no node of {asked.partition.name} has the feature {word!r}", features, "sinfo -o '%P %f'") for word in unknown
    ]


def check_gpus(asked: Submission) -> list[Problem]:
    cluster, plan, problems = asked.job.cluster, asked.job.plan, []
    if plan.device == "cuda" and plan.processes_per_node > cluster.gpus_per_node:
        what = f"{plan.processes_per_node} processes a node for {cluster.gpus_per_node} GPUs"
        fix = (
            f"--gpus-per-node {plan.processes_per_node}, or --processes-per-node {cluster.gpus_per_node}"
            if cluster.gpus_per_node
            else "--strategy cpu"
        )
        problems.append(asked.problem("gpus_per_node", what, fix=fix))
    if plan.device == "cpu" and cluster.gpus_per_node and plan.strategy.use_cpu:
        what = f"{cluster.gpus_per_node} GPUs a node are asked for, and the strategy {plan.strategy.name} trains on the CPU"
        problems.append(asked.problem("gpus_per_node", what, fix="--gpus-per-node 0, or another --strategy"))
    if asked.partition is None or not cluster.gpus_per_node:
        return problems
    have = asked.partition.gpus
    if not have:
        problems.append(
            asked.problem("gpus_per_node", f"the partition {asked.partition.name} has no GPUs", "0", "--gpus-per-node 0, or another --partition")
        )
    elif cluster.gpu_type and cluster.gpu_type not in have:
        types = ", ".join(kind for kind in have if kind) or "null: the site names no types"
        problems.append(asked.problem("gpu_type", f"{asked.partition.name} has no GPUs of the type {cluster.gpu_type!r}", types))
    elif cluster.gpus_per_node > (most := have[cluster.gpu_type] if cluster.gpu_type else sum(have.values())):
        what = f"{cluster.gpus_per_node} GPUs a node, and nodes of {asked.partition.name} have {most}"
        problems.append(asked.problem("gpus_per_node", what, f"at most {most}", f"--gpus-per-node {most}"))
    return problems


def check_cpus(asked: Submission) -> list[Problem]:
    cluster, plan, problems = asked.job.cluster, asked.job.plan, []
    if plan.processes_per_node > cluster.cpus_per_node:
        what = f"{plan.processes_per_node} processes a node would share {cluster.cpus_per_node} core{'s' if cluster.cpus_per_node > 1 else ''}"
        problems.append(asked.problem("cpus_per_node", what, fix="a larger cpus_per_node, or a smaller --processes-per-node"))
    if asked.partition and cluster.cpus_per_node > asked.partition.cpus:
        what = f"{cluster.cpus_per_node} cores a node, and nodes of {asked.partition.name} have {asked.partition.cpus}"
        problems.append(asked.problem("cpus_per_node", what, f"at most {asked.partition.cpus}"))
    return problems


def check_memory(asked: Submission) -> list[Problem]:
    memory = asked.job.cluster.memory_gib_per_node
    if asked.partition is None or not memory or memory * 1024 <= asked.partition.memory_mib:
        return []
    most = asked.partition.memory_mib // 1024
    what = f"{memory} GiB a node, and nodes of {asked.partition.name} have {most}"
    return [asked.problem("memory_gib_per_node", what, f"at most {most}, or 0 for all of it")]


def check_array(asked: Submission) -> list[Problem]:
    tasks = len(asked.job.runs)
    told = asked.site.settings.get("MaxArraySize", "") if asked.site else ""
    if not told.isdigit() or tasks < int(told):  # the largest index is one less
        return []
    return [Problem(f"an array of {tasks} tasks, and this cluster takes {int(told) - 1}", key="--grid", fix="fewer values, or several submits")]


def check_stopping(asked: Submission) -> list[Problem]:
    if asked.job.cluster.when_stopped != "chain" or asked.job.restart.links > 1 or asked.job.is_array:
        return []
    return [asked.problem("when_stopped", "chain, but the job is to be a single one", fix="--chain N, for N jobs one after another")]
