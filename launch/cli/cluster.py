"""`fullrank cluster init|show`: writes a cluster file by asking the cluster; explains one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from launch.cli.options import Json
from launch.cli.tables import table
from launch.config.cluster import OWN_CLUSTERS, Cluster, cluster_names, load_cluster
from launch.config.errors import ConfigError, Problem
from launch.config.load import flatten
from launch.config.run_dir import write_atomic
from launch.scheduler.cluster_init import describe_site, draft_cluster
from launch.scheduler.commands import ask_site


def cluster(
    verb: Annotated[str, typer.Argument(metavar="init|show", help="init: write a cluster file by asking the cluster; show: explain one.")],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Name of the cluster file (init, show), or its path (show).")] = None,
    partition: Annotated[str | None, typer.Option("--partition", metavar="NAME", help="Partition (init). Default: the one with most GPUs.")] = None,
    as_json: Json = False,
) -> None:
    if verb == "init":
        _init(name or "mysite", partition)
    elif verb == "show":
        _show(name, as_json)
    else:
        raise ConfigError(Problem(f"{verb!r} is no verb of cluster", allowed="init, show", fix="fullrank cluster init mysite"))


def _init(name: str, partition: str | None) -> None:
    """Writes ~/.config/fullrank/clusters/NAME.yaml; one that is there stays."""
    path = Path(name).expanduser() if "/" in name or name.endswith(".yaml") else OWN_CLUSTERS.expanduser() / f"{name}.yaml"
    if path.exists():
        raise ConfigError(Problem("exists already", where=str(path), fix="another name, or delete it first"))
    site = ask_site()
    text, notes = draft_cluster(site, partition, path.stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text)
    for line in [*describe_site(site), *notes]:
        print(line, file=sys.stderr)
    print(path)


def _show(name: str | None, as_json: bool) -> None:
    """Prints every key with its value and meaning; without a name, the cluster files there are."""
    if name is None:
        print(json.dumps({"clusters": list(cluster_names())}, indent=2) if as_json else "\n".join(cluster_names()))
        return
    loaded = load_cluster(name)
    values = loaded.cluster.model_dump(mode="json")
    if as_json:
        print(json.dumps({"file": str(loaded.document.path)} | values, indent=2))
        return
    print(loaded.document.path)
    rows = []
    for key, field in Cluster.model_fields.items():
        value = values[key]
        shown = json.dumps(flatten(value) if isinstance(value, dict) else value, ensure_ascii=False)
        rows.append((key, shown, "" if (key,) in loaded.document.lines else "(default)", str(field.description)))
    print("\n".join(f"  {line}" for line in table(rows)))
