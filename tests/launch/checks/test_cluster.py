"""Misconfigurations, each caught before sbatch and with its way out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launch import preflight
from launch.checks.cluster import CHECKS, WHEN_FINE, cluster_preflight, cluster_warnings
from launch.checks.environment import HURTS
from launch.cli.planning import make_plan
from launch.config.cluster import LoadedCluster, cluster_names, load_cluster
from launch.config.errors import ConfigError, FullrankError
from launch.config.load import shipped_configs
from launch.scheduler.plan import JobOptions, SlurmJob, node_machine, plan_job, with_options
from launch.scheduler.render import render_sbatch
from launch.scheduler.restarts import Restart, choose_restart
from launch.sizes.model_size import ModelSize, UnknownSize
from launch.sizes.save_time import SaveTime, find_save_time
from tests.launch.scheduler.test_printed import recorded_site

NOTHING_SAID = JobOptions()
CLUSTER = {"cpus_per_node": "2", "time_limit": '"00:30:00"'}


@pytest.fixture
def write_cluster(tmp_path: Path) -> Callable[..., Path]:
    def write(**keys: str) -> Path:
        path = tmp_path / "site.yaml"
        path.write_text("".join(f"{key}: {value}\n" for key, value in (CLUSTER | keys).items() if value))
        return path

    return write


@pytest.fixture
def make_job(write_cluster, make_plan, make_probe, monkeypatch) -> Callable[..., tuple[SlurmJob, LoadedCluster, Any]]:
    """Returns a function that plans a job from keys of a cluster file and words of the command line."""
    monkeypatch.delenv("HF_HOME", raising=False)

    def make(keys: dict[str, str], options: JobOptions = NOTHING_SAID, overrides: tuple[str, ...] = (), **plan_options: Any):
        loaded = load_cluster(str(write_cluster(**keys)))
        loaded = LoadedCluster(with_options(loaded.cluster, options), loaded.document)
        probe = make_probe(machine=node_machine(loaded.cluster, "site", make_probe().machine))
        plan = make_plan(*overrides, probe=probe, **plan_options)
        restart = choose_restart(loaded.cluster, options.chain, recorded_site())
        return plan_job(plan, loaded.cluster, options, "/env/bin/python", restart), loaded, probe

    return make


def test_a_sound_job_passes(make_job):
    job, loaded, probe = make_job({"partition": "main", "account": "research", "qos": "normal", "constraint": "tiny"}, nodes=2)
    cluster_preflight(job, loaded, probe, recorded_site())


AGAINST_THE_SITE = {
    "a partition that is not there": ({"partition": "mian"}, {}, "did you mean 'main'"),
    "a time limit above the partition's": ({"time_limit": '"02:00:00"'}, {}, "longer than the partition main allows"),
    "a time limit that the warning fills": ({"time_limit": '"00:03:00"', "warning_s": "150"}, {}, "leaves no time to train"),
    "more nodes than there are": ({}, {"nodes": 4}, "4 nodes, and the partition main has 3"),
    "more nodes than one job gets": ({"partition": "short", "time_limit": '"00:05:00"'}, {"nodes": 2}, "has 1"),
    "an account that is not yours": ({"account": "reserch"}, {}, "did you mean 'research'"),
    "a qos that is not yours": ({"qos": "high"}, {}, "you have no qos 'high'"),
    "a feature that no node has": ({"constraint": "a100&tiny"}, {}, "has the feature 'a100'"),
    "more GPUs than a node has": ({"gpus_per_node": "4"}, {}, "4 GPUs a node, and nodes of main have 2"),
    "a type of GPU that is not there": ({"gpus_per_node": "1", "gpu_type": "h100"}, {}, "no GPUs of the type 'h100'"),
    "more processes than GPUs": ({"gpus_per_node": "1"}, {"processes_per_node": 2}, "2 processes a node for 1 GPUs"),
    "more processes than cores": ({}, {"processes_per_node": 4}, "4 processes a node would share 2 cores"),
    "more cores than a node has": ({"cpus_per_node": "64"}, {}, "64 cores a node, and nodes of main have 2"),
    "more memory than a node has": ({"memory_gib_per_node": "512"}, {}, "512 GiB a node"),
    "a relative python": ({"python": "python3"}, {}, "no absolute path"),
    "a python that is a folder": ({"python": "/usr/bin"}, {}, "no program"),
    "a python that is not there": ({"python": "/usr/bin/python9"}, {}, "there is no /usr/bin/python9"),
    "a container without a python": ({"container": "{kind: pyxis, image: a/b}"}, {}, "python inside it must be named"),
    "an image that is not there": ({"container": "{kind: apptainer, image: /no.sif}", "python": "/usr/bin/python3"}, {}, "there is no /no.sif"),
    "a mount that is not there": ({"container": "{kind: pyxis, image: a, mounts: ['/nowhere:/x']}", "python": "/p"}, {}, "no /nowhere to mount"),
    "a hub name on nodes without a network": ({"has_internet": "false"}, {}, "do not reach the internet"),
    "a chain of one": ({"when_stopped": "chain"}, {"options": JobOptions(chain=1)}, "to be a single one"),
    "a cache that is a file": ({"cache": "/etc/hostname"}, {}, "no folder that can be written"),
}


@pytest.mark.parametrize("name", AGAINST_THE_SITE)
def test_caught_before_sbatch(name, make_job):
    keys, options, message = AGAINST_THE_SITE[name]
    job, loaded, probe = make_job(keys, **options)
    with pytest.raises(FullrankError) as caught:
        cluster_preflight(job, loaded, probe, recorded_site())
    assert message in str(caught.value)
    assert all(problem.fix or problem.allowed for problem in caught.value.problems)


def test_wandb_online_without_a_network(make_job):
    job, loaded, probe = make_job({"has_internet": "false"}, overrides=("tracking.wandb.mode=online",))
    with pytest.raises(FullrankError, match="W&B is to be online, and compute nodes do not reach the internet"):
        cluster_preflight(job, loaded, probe, recorded_site())


def test_a_partition_that_is_down(make_job):
    site = recorded_site()
    down = replace(site, partitions=tuple(replace(one, is_up=False) for one in site.partitions))
    with pytest.raises(FullrankError, match="the partition main is down"):
        cluster_preflight(*make_job({}), down)


def test_a_partition_closed_to_the_account(make_job):
    site = recorded_site()
    closed = replace(site, limits=site.limits | {"main": site.limits["main"] | {"AllowAccounts": "teaching"}})
    with pytest.raises(FullrankError, match="does not take jobs of 'research'"):
        cluster_preflight(*make_job({"account": "research"}), closed)


def test_a_run_root_with_a_line_end(make_job):
    job, loaded, probe = make_job({})
    odd = replace(job, home=Path("/runs/a\nrm -rf b"), runs=(Path("/runs/a\nrm -rf b"),))
    with pytest.raises(FullrankError, match="holds a line end"):
        cluster_preflight(odd, loaded, probe, recorded_site())


IN_THE_FILE = {
    "an unknown key": ({"gpus_per_nod": "2"}, "did you mean 'gpus_per_node'"),
    "a missing key": ({"cpus_per_node": ""}, "the key is missing"),
    "a time limit that is none": ({"time_limit": "tomorrow"}, "not a time limit"),
    "a line end in a value": ({"partition": '"gpu\\n#SBATCH --wrap=evil"'}, "line end"),
    "a line end in a variable": ({"environment": '{A: "x\\nrm -rf y"}'}, "line end"),
    "a variable that is no name": ({"environment": '{"A=$(x)": b}'}, "environment"),
    "an option that has a key": ({"sbatch": "{partition: x}"}, "has a key of its own"),
    "an option that is no name": ({"sbatch": '{"x y": z}'}, "sbatch"),
    "gpus per task": ({"gpu_option": "gpus-per-task"}, "'gpus-per-task' is not possible"),
    "a number that is none": ({"gpus_per_node": "many"}, "gpus_per_node"),
}


@pytest.mark.parametrize("name", IN_THE_FILE)
def test_a_cluster_file_is_refused(name, write_cluster):
    keys, message = IN_THE_FILE[name]
    with pytest.raises(ConfigError) as caught:
        load_cluster(str(write_cluster(**keys)))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (JobOptions(time_limit="$(touch evil)"), "--time: '$(touch evil)' is not a time limit: write it as Slurm does"),
        (JobOptions(time_limit="1:00\n#SBATCH --wrap=evil"), "--time: '1:00\\n#SBATCH --wrap=evil' is not a time limit"),
        (JobOptions(time_limit="0"), "--time: '0' is no time"),
        (JobOptions(partition="main\nevil"), "--partition: 'main\\nevil' holds a line end"),
    ],
    ids=["no time", "a line end", "nothing", "partition"],
)
def test_an_option_that_no_cluster_file_could_have_is_refused(options, words, write_cluster):
    with pytest.raises(ConfigError, match=re.escape(words)):
        with_options(load_cluster(str(write_cluster())).cluster, options)


def test_an_unknown_cluster_names_the_way_to_one():
    with pytest.raises(ConfigError, match="fullrank cluster init nowhere"):
        load_cluster("nowhere")


@pytest.mark.parametrize("name", ["example_cpu", "example_gpu"])
def test_shipped_clusters_render(name, make_plan, make_probe):
    assert name in cluster_names()
    loaded = load_cluster(name)
    probe = make_probe(machine=node_machine(loaded.cluster, name, make_probe().machine))
    job = plan_job(make_plan(probe=probe, nodes=2), loaded.cluster, JobOptions(), "/env/bin/python", Restart(True))
    assert "#SBATCH --nodes=2\n" in render_sbatch(job)


def test_variables_that_hurt_are_named(make_job, monkeypatch):
    monkeypatch.setenv("NCCL_P2P_DISABLE", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # does not go into the job
    job, _, _ = make_job({})
    told = [warning.partition(" ")[0] for warning in cluster_warnings(job, recorded_site()) if "goes from this shell into the job" in warning]
    assert "NCCL_P2P_DISABLE=1" in told
    assert "CUDA_VISIBLE_DEVICES=0" not in told


def test_no_room_for_the_checkpoints_to_come(make_job):
    job, loaded, probe = make_job({})
    size = ModelSize(2**28, 2**28, 0, 0, None, "a test")
    job = replace(job, plan=replace(job.plan, memory=replace(job.plan.memory, size=size)))
    cluster_preflight(job, loaded, probe, recorded_site())
    full = replace(probe, place=replace(probe.place, free_bytes=10 * 2**30))
    with pytest.raises(FullrankError, match=r"10.0 GiB free, and the checkpoints take 12.0 \(4 of 3.0\)"):
        cluster_preflight(job, loaded, full, recorded_site())


SHIPPED = sorted(path.stem for path in (shipped_configs() / "experiments").glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("gpus", [0, 2])
def test_no_false_alarm_on_the_shipped_experiments(name, gpus, write_cluster, make_probe, monkeypatch):
    """On a cluster that has everything, with the model and the data where the experiment says."""
    for variable in HURTS:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("launch.sizes.model_files.count_with_torch", lambda *_: UnknownSize("not counted here"))
    loaded = load_cluster(str(write_cluster(partition="main", account="research", gpus_per_node=str(gpus), memory_gib_per_node="5")))
    plan, probe = make_plan(name, nodes=2, machine=node_machine(loaded.cluster, "site", make_probe().machine), run_root=Path("/runs"))
    probe = replace(probe, missing_paths={}, unfit_sources=(), place=make_probe().place, versions=make_probe().versions)
    job = plan_job(plan, loaded.cluster, NOTHING_SAID, "/env/bin/python", Restart(True), find_save_time(plan))
    cluster_preflight(job, loaded, probe, recorded_site())
    assert cluster_warnings(job, recorded_site()) == []


def test_a_save_longer_than_the_grace_time_is_told(make_job):
    job, _, _ = make_job({})
    job = replace(job, save=SaveTime(40.0, True, "a save took 40.0 s in an-earlier-run"))
    told = "a save took 40.0 s in an-earlier-run, and a preempted job is killed after 30 s: a smaller checkpoint.every loses less"
    assert told in cluster_warnings(job, recorded_site())


def test_every_check_says_what_it_looked_at():
    assert CHECKS.keys() == WHEN_FINE.keys()
    assert not CHECKS.keys() & preflight.WHEN_FINE.keys()  # a row of its own beside those of the plan
