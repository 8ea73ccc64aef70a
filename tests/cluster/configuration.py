"""What the cluster is: its nodes, addresses and partitions, as the texts of Slurm's configuration files; pure."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

NUMBER = int(os.environ.get("FULLRANK_TEST_CLUSTER", "0"))
"""Which cluster of this machine: a second one, beside that of the tests, has another number (0 to 99)."""

BRIDGE = f"frbridge{NUMBER}"
SUBNET = f"10.78.{NUMBER}"
HEAD_ADDRESS = f"{SUBNET}.1"
GPUS_PER_NODE = 2
"""Counted, not real."""

MEMORY_PER_NODE_MIB = 6000
CONTROLLER_PORT, DATABASE_PORT, ACCOUNTING_PORT = (port + 20 * NUMBER for port in (16817, 16806, 16819))
"""Not Slurm's and MariaDB's own, which the machine may have in use."""

ACCOUNTS = ("research", "teaching")


@dataclass(frozen=True)
class Node:
    """One compute node: a network namespace and a UTS namespace of the same name."""

    name: str
    address: str


def make_nodes(count: int) -> tuple[Node, ...]:
    """Returns node1 (...11), node2, ..."""
    return tuple(Node(f"node{number}", f"{SUBNET}.{10 + number}") for number in range(1, count + 1))


def slurm_conf(folder: Path, head: str, nodes: tuple[Node, ...], cpus_per_node: int) -> str:
    """Returns slurm.conf.

    Partitions: `main` (jobs of `urgent` preempt and requeue them at once), `graced` (the same, 30 s after SIGTERM), `cancelling` (preemption
    cancels), `short` (one node, five minutes), `urgent`. A requeued job waits as long as a job credential lives: 5 s here instead of 120.
    """
    lines = [
        "ClusterName=fullrank",
        f"SlurmctldHost={head}({HEAD_ADDRESS})",
        f"SlurmctldPort={CONTROLLER_PORT}",
        "AuthType=auth/munge",
        f"AuthInfo=socket={folder}/munge.socket,cred_expire=5",
        "SlurmUser=root",
        "SlurmdUser=root",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool/%n",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"SlurmdPidFile={folder}/%n.pid",
        f"SlurmctldLogFile={folder}/log/slurmctld.log",
        f"SlurmdLogFile={folder}/log/%n.log",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/affinity",
        "SlurmdParameters=config_overrides",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU_Memory",
        "GresTypes=gpu",
        "DefMemPerCPU=1000",
        "MpiDefault=none",
        "ReturnToService=2",
        "SlurmdTimeout=20",
        "KillWait=30",
        "MaxArraySize=5001",
        "MaxJobCount=20000",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "JobRequeue=1",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2",
        "JobAcctGatherType=jobacct_gather/linux",
        "JobAcctGatherFrequency=task=5",
        "AccountingStorageType=accounting_storage/slurmdbd",
        f"AccountingStorageHost={HEAD_ADDRESS}",
        f"AccountingStoragePort={ACCOUNTING_PORT}",
        f"AccountingStoragePass={folder}/munge.socket",  # with munge: where its socket is
        "AccountingStorageEnforce=associations,limits,qos",
    ]
    for node in nodes:
        lines.append(
            f"NodeName={node.name} NodeAddr={node.address} NodeHostname={node.name} CPUs={cpus_per_node} "
            f"RealMemory={MEMORY_PER_NODE_MIB} Gres=gpu:{GPUS_PER_NODE} Feature=tiny State=UNKNOWN"
        )
    every = ",".join(node.name for node in nodes)
    lines += [
        f"PartitionName=main Nodes={every} Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=0 DefaultTime=10 MaxTime=60",
        f"PartitionName=graced Nodes={every} PriorityTier=1 PreemptMode=REQUEUE GraceTime=30 DefaultTime=10 MaxTime=60",
        f"PartitionName=cancelling Nodes={every} PriorityTier=1 PreemptMode=CANCEL GraceTime=30 DefaultTime=10 MaxTime=60",
        f"PartitionName=short Nodes={nodes[0].name} PriorityTier=1 PreemptMode=OFF DefaultTime=1 MaxTime=5 MaxNodes=1",
        f"PartitionName=urgent Nodes={every} PriorityTier=10 PreemptMode=OFF DefaultTime=5 MaxTime=60",
    ]
    return "\n".join(lines) + "\n"


def slurmdbd_conf(folder: Path) -> str:
    """Returns slurmdbd.conf; slurmdbd wants it readable by nobody else."""
    return f"""\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr={HEAD_ADDRESS}
DbdPort={ACCOUNTING_PORT}
SlurmUser=root
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={DATABASE_PORT}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
"""


def database_sql() -> str:
    """Returns what a new database server is told; it listens on loopback only."""
    return """\
CREATE DATABASE IF NOT EXISTS slurm_acct_db;
CREATE USER IF NOT EXISTS 'slurm'@'127.0.0.1' IDENTIFIED BY 'slurm';
GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1';
"""


def gres_conf(folder: Path) -> str:
    """Returns gres.conf: GPUs that are only counted. Slurm wants a file for each; empty ones will do where no cgroup guards devices."""
    return f"AutoDetect=off\nName=gpu File={folder}/gpu[0-{GPUS_PER_NODE - 1}]\n"


def cgroup_conf() -> str:
    """Returns cgroup.conf; the automatic choice fails where /sys/fs/cgroup holds controllers of version 1."""
    return "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n"


def hosts(head: str, nodes: tuple[Node, ...]) -> str:
    """Returns /etc/hosts as the nodes see it; torch's c10d looks its peers up by their IPv4-mapped addresses."""
    names = [(HEAD_ADDRESS, head), *((node.address, node.name) for node in nodes)]
    return "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n::ffff:{address} {name}\n" for address, name in names)
