"""A task of one's own: whatever build_task of the experiment's file gives, after its options have been checked."""

from __future__ import annotations

from launch.config.experiment import Experiment
from trainers.own_code import build_own_task
from trainers.tasks import Task


def build_task(experiment: Experiment) -> Task:
    """Returns the task of the file that task.file names; it keeps to the protocol of trainers.tasks.Task."""
    task: Task = build_own_task(experiment)
    return task
