"""The first draft of a cluster file, from what the test cluster said of itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from launch.config.cluster import load_cluster
from launch.config.errors import ConfigError
from launch.scheduler.cluster_init import describe_site, draft_cluster
from launch.scheduler.printed import Partition
from tests.launch.scheduler.test_printed import recorded_site

GPU = Partition("gpu", False, True, None, 6, 64, 512000, {"h100": 8}, frozenset())


def test_draft_loads_and_says_what_was_guessed(tmp_path):
    text, notes = draft_cluster(recorded_site(), None, "mysite")
    path = tmp_path / "mysite.yaml"
    path.write_text(text)
    cluster = load_cluster(str(path)).cluster
    assert (cluster.partition, cluster.gpus_per_node, cluster.cpus_per_node, cluster.memory_gib_per_node) == ("main", 2, 2, 5)
    assert cluster.time_limit == "1:00:00"
    assert any("guessed: your default account (2 to choose from: research, teaching)" in note for note in notes)


def test_the_partition_with_most_gpus_is_chosen(tmp_path):
    site = recorded_site()
    text, notes = draft_cluster(replace(site, partitions=(*site.partitions, GPU)), None, "mysite")
    assert "partition: gpu\n" in text
    assert "gpu_type: h100\n" in text
    assert "guessed: a time limit of a day (the partition has none)" in notes


def test_a_partition_that_cancels_is_told():
    _, notes = draft_cluster(recorded_site(), "cancelling", "mysite")
    assert "preemption cancels jobs here: a training is submitted as a chain of jobs (--chain N)" in notes


def test_an_unknown_partition_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'urgent'"):
        draft_cluster(recorded_site(), "urgend", "mysite")


def test_versions_and_missing_answers_are_told():
    site = replace(recorded_site(), version=(19, 5), settings={})
    lines = describe_site(site)
    assert "warning: fullrank knows Slurm 20 to 25; what 19.5 prints may be read wrongly" in lines
    assert "not found: PreemptMode, KillWait, JobRequeue in scontrol show config" in lines
