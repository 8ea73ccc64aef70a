"""Where a pipeline that was started lies: its file and how it was started, beside the run directories of its stages."""

from __future__ import annotations

import re
from glob import escape
from pathlib import Path

from launch.config.run_dir import RunDir
from launch.config.yaml_files import load_yaml

_STAGE_DIR = re.compile(r"(?P<base>.+)\.\d+-[a-z][a-z0-9_]*")


def find_base(name: str, run_root: Path) -> Path | None:
    """Returns what the run directories of a pipeline's stages begin with: found by itself, or by its id under the run root."""
    path = Path(name).expanduser().absolute()
    if pipeline_file(path).is_file():
        return path
    found = sorted(run_root.absolute().glob("*/*.pipeline.yaml"))
    named = [file.with_name(file.name.removesuffix(".pipeline.yaml")) for file in found if file.name.startswith(name)]
    return named[0] if len(named) == 1 else None


def base_of_stage(run: RunDir) -> Path | None:
    """Returns what the run directories of the pipeline begin with that a run is a stage of; None if it is none."""
    match = _STAGE_DIR.fullmatch(run.path.name)
    base = run.path.with_name(match["base"]) if match else None
    return base if base is not None and pipeline_file(base).is_file() else None


def stage_runs(base: Path) -> list[RunDir]:
    """Returns the runs of the stages that have begun, in their order."""
    paths = base.parent.glob(f"{escape(base.name)}.[0-9]*-*")
    return [RunDir(path) for path in sorted(paths, key=lambda path: int(path.name[len(base.name) + 1 :].partition("-")[0])) if path.is_dir()]


def stage_names(base: Path) -> list[str]:
    """Returns the stages of a pipeline that was started, in their order."""
    return list(load_yaml(pipeline_file(base)).values["stages"])


def was_submitted(base: Path) -> bool:
    """Returns whether a pipeline's stages are jobs of a cluster."""
    return any(run.cluster.is_file() for run in stage_runs(base))


def pipeline_file(base: Path) -> Path:
    """The pipeline file as it was when the first stage started."""
    return base.with_name(f"{base.name}.pipeline.yaml")


def pipeline_record(base: Path) -> Path:
    """What was typed beside it."""
    return base.with_name(f"{base.name}.pipeline.json")
