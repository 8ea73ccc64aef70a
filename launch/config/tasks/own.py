"""Options of a task that a person brings."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from launch.config.tasks.base import TaskSection


class OwnTask(TaskSection):
    """A task of your own: a Python file beside the experiment."""

    READS = "own"
    USAGE = (
        "from safetensors.torch import load_file",
        'weights = load_file("{model}/model.safetensors")',
        "print(*weights)",
    )

    kind: Literal["own"] = Field(description="Which task this is; chooses the other keys.")
    file: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*\.py$",
        description="Python file in the experiment's folder with `Options` (a pydantic model) and `build_task(experiment)`.",
    )
    options: dict[str, Any] = Field({}, description="What the file's Options are made of; build_task finds them as experiment.task.")

    def metrics(self) -> None:
        return None
