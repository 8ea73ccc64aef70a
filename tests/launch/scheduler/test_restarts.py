"""How a training goes on after a stop: what a person says wins, and a partition that cancels at preemption gets a chain."""

from __future__ import annotations

import pytest

from launch.config.cluster import Cluster
from launch.scheduler.restarts import LINKS, choose_restart
from tests.launch.scheduler.test_printed import recorded_site


@pytest.mark.parametrize(
    ("keys", "chain", "requeues", "links"),
    [
        ({}, None, True, 1),
        ({"partition": "graced"}, None, True, 1),
        ({"partition": "cancelling"}, None, False, LINKS),
        ({"partition": "cancelling"}, 1, True, 1),
        ({"partition": "cancelling", "when_stopped": "requeue"}, None, True, 1),
        ({"partition": "cancelling", "when_stopped": "nothing"}, None, False, 1),
        ({}, 3, False, 3),
        ({"when_stopped": "nothing"}, 3, False, 3),
        ({"when_stopped": "chain"}, None, False, LINKS),
        ({"when_stopped": "chain"}, 2, False, 2),
    ],
)
def test_what_follows_a_stop(keys, chain, requeues, links):
    found = choose_restart(Cluster(cpus_per_node=1, **keys), chain, recorded_site())
    assert (found.requeues, found.links) == (requeues, links)


def test_the_cluster_s_choice_is_told():
    found = choose_restart(Cluster(cpus_per_node=1, partition="cancelling"), None, recorded_site())
    assert found.reason == "preemption cancels jobs in cancelling: 4 jobs, each going on where the one before stopped (--chain N)"


def test_an_array_requeues_task_by_task():
    assert choose_restart(Cluster(cpus_per_node=1, partition="cancelling"), None, recorded_site(), is_array=True).requeues


def test_without_a_cluster_to_ask_a_job_requeues():
    assert choose_restart(Cluster(cpus_per_node=1, partition="cancelling"), None, None).requeues
