"""SlurmJob -> the sbatch script, by a Jinja2 template over readable bash; pure but for reading the template."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta

from launch.config.cluster import Container
from launch.config.errors import ConfigError, Problem, suggest
from launch.config.load import shipped_configs
from launch.plan_script import ScriptPlan
from launch.render import launch_environment, program
from launch.scheduler.plan import WAIT_S, SlurmJob, directives


class Code(str):
    """Text that stands in a script as it is. Every other value is quoted, whatever it holds."""

    __slots__ = ()


def render_sbatch(job: SlurmJob) -> str:
    """Returns the text of a job's script.

    Raises:
        ConfigError: a template of a person's own is not there, is no Jinja2, or uses a variable that there is not.
    """
    own = Path(job.cluster.template).expanduser() if job.cluster.template else None
    folder = own.parent if own else shipped_templates()
    name = own.name if own else "stock.sbatch.j2" if job.plan.launcher == "accelerate" else "agent.sbatch.j2"
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.FileSystemLoader(folder), jinja2.FileSystemLoader(shipped_templates())]),
        undefined=jinja2.StrictUndefined,
        finalize=_quoted,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # finalize quotes for the shell
    )
    environment.filters |= {"comment": comment}
    values = template_values(job)
    try:
        source = (folder / name).read_text(encoding="utf-8")
        _refuse_unsafe(environment, source, values, folder / name)
        text = environment.from_string(source).render(values)
    except jinja2.TemplateNotFound as error:
        raise ConfigError(Problem(f"includes {error.name}, which there is not", str(folder / name), "template")) from error
    except OSError as error:
        raise ConfigError(Problem(f"cannot be read: {error.strerror}", str(folder / name), "template")) from error
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(Problem(f"not a Jinja2 template: {error.message}", f"{folder / name}:{error.lineno}", "template")) from error
    except jinja2.TemplateError as error:
        raise ConfigError(Problem(str(error), str(folder / name), "template", allowed=", ".join(sorted(values)))) from error
    return re.sub(r"\n{3,}", "\n\n", text)


def shipped_templates() -> Path:
    """Returns the folder of fullrank's own templates: beside the package in a checkout, inside it in a wheel."""
    return shipped_configs().parent / "slurm"


def template_values(job: SlurmJob) -> dict[str, Any]:
    """Returns every variable that a template may use; each is a quoted word where it stands, but for `directives` and `setup`: lines."""
    plan, cluster = job.plan, job.cluster
    return {
        "name": plan.name,
        "directives": [Code(f"#SBATCH --{name}" if value is None else f"#SBATCH --{name}={directive(value)}") for name, value in directives(job)],
        "run_dir": str(plan.run.path),
        "runs_file": str(job.home / "runs.txt") if job.is_array else None,
        "code_dir": str(job.home / "code" / "fullrank"),
        "script_file": str(job.script),
        "host_python": job.host_python,
        "python": plan.python,
        "modules": cluster.modules,
        "setup": [Code(line) for line in cluster.setup],
        "environment": job_environment(job),
        "nodes": plan.nodes,
        "processes_per_node": plan.processes_per_node,
        "world_size": plan.world_size,
        "cpus_per_node": cluster.cpus_per_node,
        "gpus_per_node": cluster.gpus_per_node,
        "srun_options": _srun_options(cluster.container),
        "in_container": _in_container(cluster.container, cluster.gpus_per_node > 0),
        "threads_per_rank": plan.num_threads,
        "launch_environment": launch_environment(plan),
        "wait_s": WAIT_S,
        "port": plan.port,
        "requeues": job.restart.requeues,
        "links": job.restart.links,
        "stock_arguments": _stock_arguments(job),
        "is_script": isinstance(plan, ScriptPlan),
        "folder": str(plan.folder) if isinstance(plan, ScriptPlan) else None,
    }


def job_environment(job: SlurmJob) -> dict[str, str]:
    """Returns the variables that the script exports."""
    cluster = job.cluster
    variables: dict[str, str] = {}
    if cluster.cache:
        variables |= {"FULLRANK_CACHE": f"{cluster.cache}/fullrank", "HF_HOME": f"{cluster.cache}/huggingface"}
    if not cluster.has_internet:
        variables |= {"HF_HUB_OFFLINE": "1"}
    if cluster.wandb_mode:
        variables |= {"WANDB_MODE": cluster.wandb_mode}
    return variables | cluster.environment


def directive(value: str) -> Code:
    """Returns a value for an #SBATCH line, which sbatch splits as a shell would, without expanding anything."""
    if any(not character.isprintable() for character in value):
        raise ConfigError(Problem(f"{value!r} cannot stand in an #SBATCH line: it holds a line end or a control character"))
    return Code(value if re.fullmatch(r"[\w@%+=:,./\[\]&|*!()-]+", value, re.ASCII) else '"' + re.sub(r'(["\\])', r"\\\1", value) + '"')


def comment(value: object) -> Code:
    """Returns a value for a comment: one line, whatever it holds."""
    return Code("".join(character if character.isprintable() else "?" for character in str(value)))


def _quoted(value: Any) -> Any:
    """What an expression in a template becomes: a word of the shell, unless it is code."""
    if isinstance(value, (Code, jinja2.Undefined)):
        return value
    if isinstance(value, (list, tuple)):
        return " ".join(shlex.quote(str(one)) for one in value)
    return shlex.quote(str(value))


def _refuse_unsafe(environment: jinja2.Environment, source: str, values: dict[str, Any], path: Path) -> None:
    """Refuses unknown variables, and values inside double quotes, where their own quotes would not protect them."""
    unknown = sorted(jinja2.meta.find_undeclared_variables(environment.parse(source)) - set(values))
    problems = []
    for name in unknown:
        near = suggest(name, values)
        number = next((index for index, line in enumerate(source.splitlines(), 1) if name in line), 1)
        what = f"the template uses {name!r}, which there is not" + (f"; did you mean {near!r}?" if near else "")
        problems.append(Problem(what, f"{path}:{number}", "template", allowed=", ".join(sorted(values))))
    for number, line in enumerate(source.splitlines(), 1):
        if any(line[: match.start()].count('"') % 2 for match in re.finditer(r"\{\{(?!.*\|\s*comment\s*\}\})", line)):
            what = "a value stands inside double quotes, where it could become code; values are quoted by themselves"
            problems.append(Problem(what, f"{path}:{number}", "template", fix="leave the quotes out, or name=VALUE on a line of its own"))
    if problems:
        raise ConfigError(*problems)


def _stock_arguments(job: SlurmJob) -> list[str]:
    """Returns what `accelerate launch` is told, but for what only a node knows."""
    plan = job.plan
    counts = ["--num_machines", str(plan.nodes), "--num_processes", str(plan.world_size)]
    return ["--config_file", str(plan.attempt.accelerate), *counts, *program(plan)]


def _srun_options(container: Container | None) -> list[str]:
    if container is None or container.kind != "pyxis":
        return []
    return [f"--container-image={container.image}", *([f"--container-mounts={','.join(container.mounts)}"] if container.mounts else [])]


def _in_container(container: Container | None, has_gpus: bool) -> list[str]:
    if container is None or container.kind != "apptainer":
        return []
    return [
        "apptainer",
        "exec",
        *(["--nv"] if has_gpus else []),
        *(word for mount in container.mounts for word in ("--bind", mount)),
        container.image,
    ]
