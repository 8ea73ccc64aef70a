"""fullrank on a real Slurm of three nodes: submitted, trained, preempted, cancelled, failed, and told as it was."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import cluster as clusters
from tests.cluster.cluster import Cluster
from tests.cluster.packages import why_not
from tests.ranks import ROOT, clean_environment, read_records, train
from tests.tiny import tiny_bert, tiny_sentences

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

ALIVE = ("pending", "running", "stopping", "requeued")
STEPS = 400
LONG = (f"train.duration={STEPS} steps", "checkpoint.every=40 steps", "evaluate.every=null")
"""Long enough to be stopped in the middle: about ten seconds on a quiet machine."""

PREEMPTIONS = int(os.environ.get("FULLRANK_TEST_PREEMPTIONS", "1"))
PATIENCE_S = 400


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The cluster that is up (make cluster), or a new one."""
    reason = why_not()
    if reason:
        pytest.skip(f"no Slurm here: {reason}")
    found = clusters.running()
    if found:
        yield found
        return
    yield clusters.boot()
    clusters.take_down()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, its data, the experiment and a cluster file; every node sees it."""
    folder = tmp_path_factory.mktemp("slurm")
    tiny_bert(folder / "bert")
    tiny_sentences(folder / "train.tsv", 96)
    tiny_sentences(folder / "valid.tsv", 24, seed=1)
    (folder / "tiny.yaml").write_text(
        f"""\
name: tiny
seed: 1
model: {{source: {folder}/bert}}
task: {{kind: text_classification, text: text, label: label, max_length: 16}}
data: {{source: {folder}, format: tsv, splits: {{train: train.tsv, validation: valid.tsv}}, num_workers: 0}}
train: {{duration: 12 steps, global_batch_size: 12, precision: fp32}}
model_dropout: null
optimizer: {{lr: 1.0e-3}}
tracking: {{log_every: 1 step, wandb: {{mode: disabled}}}}
""".replace("model_dropout: null\n", "").replace("/bert}", "/bert, dropout: 0.0}")
    )
    (folder / "site.yaml").write_text(
        f"partition: main\ncpus_per_node: 2\ntime_limit: '00:10:00'\nrun_root: {folder}/runs\nenvironment: {{OMP_NUM_THREADS: '1'}}\n"
    )
    return folder


@pytest.fixture
def fullrank(cluster: Cluster, shared: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Returns a function that types `fullrank WORDS` on the login node."""
    environment = (
        clean_environment() | cluster.environment | {"PYTHONPATH": str(ROOT), "FULLRANK_RUN_ROOT": str(shared / "runs"), "HF_HUB_OFFLINE": "1"}
    )

    def call(*words: str, code: int | None = 0, timeout_s: float = 120, **variables: str) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "launch", *words], cwd=shared, env=environment | variables, capture_output=True, text=True, timeout=timeout_s
        )
        assert code in (None, ended.returncode), ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr
        return ended

    return call


@pytest.fixture
def submit(cluster: Cluster, fullrank, shared: Path) -> Iterator[Callable[..., Path]]:
    """Returns a function that submits the tiny experiment and returns its run directory."""

    def send(*words: str) -> Path:
        answer = fullrank("submit", "./tiny.yaml", "--cluster", "./site.yaml", "--json", *words)
        return Path(json.loads(answer.stdout)["run"])

    yield send
    cluster.command("scancel", "--user", "root")  # what a failed test has left


@pytest.fixture
def until(fullrank) -> Callable[..., dict[str, Any]]:
    """Returns a function that waits until a run is in one of some states, by `fullrank status`."""

    def wait(run: Path, *states: str, step: int = 0) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            state = json.loads((run / "status.json").read_text())["state"]
            if (state in states and last_step(run) >= step) or state not in ALIVE:
                status: dict[str, Any] = json.loads(fullrank("status", str(run), "--json").stdout)
                if status["state"] in states:
                    return status
                assert status["state"] in ALIVE, f"{status}\n{logs_of(run)}"
            time.sleep(0.2)
        raise AssertionError(f"not {states} within {PATIENCE_S} s\n{logs_of(run)}")

    return wait


def logs_of(run: Path) -> str:
    """Returns every log of a run, for a failing test."""
    paths = [*run.glob("jobs/*"), *run.glob("attempts/*/*.log")]
    return "\n".join(f"--- {path}\n{path.read_text(errors='replace')[-2000:]}" for path in paths)


def losses(run: Path) -> dict[int, float]:
    """Returns {step: training loss}, and fails if a step stands twice."""
    records = read_records(run, "train")
    twice = [step for step, count in Counter(record["step"] for record in records).items() if count > 1]
    assert not twice
    return {record["step"]: record["loss"] for record in records}


def weights(run: Path) -> str:
    """Returns the hash of the final weights."""
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def local_losses(shared: Path) -> dict[int, float]:
    """What one process here makes of the experiment."""
    train(shared / "tiny.yaml", shared / "local")
    return losses(shared / "local")


@pytest.mark.parametrize(
    "words",
    [
        ("--nodes", "3"),
        ("--nodes", "2", "--processes-per-node", "2"),
        ("--nodes", "2", "--launcher", "accelerate"),
        ("--nodes", "1", "--strategy", "fsdp2"),
        ("--nodes", "2", "--strategy", "fsdp2", "--launcher", "accelerate"),
        ("--nodes", "2", "--strategy", "zero3"),
        ("--nodes", "1", "--processes-per-node", "2", "--strategy", "zero1", "--launcher", "accelerate"),
    ],
    ids=["3x1", "2x2", "2x1-stock", "1x1-fsdp2", "2x1-fsdp2-stock", "2x1-zero3", "1x2-zero1-stock"],
)
def test_losses_are_those_of_one_process_here(words, submit, until, local_losses):
    run = submit(*words)
    until(run, "completed")
    found = losses(run)
    assert found.keys() == local_losses.keys()
    assert max(abs(found[step] - loss) / loss for step, loss in local_losses.items()) < 1e-5


def test_dry_run_writes_nothing_and_prints_the_script(fullrank, shared):
    before = sorted(shared.glob("runs/*/*"))
    answer = fullrank("submit", "./tiny.yaml", "--cluster", "./site.yaml", "--nodes", "2", "--dry-run")
    assert answer.stdout.startswith("#!/bin/bash\n")
    assert "#SBATCH --nodes=2\n" in answer.stdout
    assert sorted(shared.glob("runs/*/*")) == before


def test_sbatch_refusal_leaves_nothing_behind(fullrank, shared):
    (shared / "odd.yaml").write_text((shared / "site.yaml").read_text() + "reservation: nowhere\n")
    before = sorted((shared / "runs").glob("*/*"))
    answer = fullrank("submit", "./tiny.yaml", "--cluster", "./odd.yaml", code=None)
    assert answer.returncode
    assert "reservation" in answer.stderr
    assert "try: " in answer.stderr
    assert sorted((shared / "runs").glob("*/*")) == before


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Path]:
    """The run that others are compared with, made by the first test that needs it."""
    return {}


@pytest.mark.parametrize("partition", ["main", "graced"], ids=["grace-0", "grace-30"])
def test_preempted_job_goes_on_to_the_same_weights(partition, cluster, submit, until, undisturbed):
    whole_run(undisturbed, submit, until)
    run = submit("--nodes", "2", "--partition", partition, *LONG)
    for number in range(1, PREEMPTIONS + 1):
        until(run, "running", step=STEPS * number // (PREEMPTIONS + 2))
        preempt(cluster)
        until_attempt(run, number + 1)
    until(run, "completed")
    assert list(losses(run)) == list(range(1, STEPS + 1))
    assert weights(run) == weights(undisturbed["run"])
    assert losses(run) == losses(undisturbed["run"])


def whole_run(undisturbed: dict[str, Path], submit, until) -> Path:
    """Returns the run that nothing has disturbed."""
    if not undisturbed:
        undisturbed["run"] = submit("--nodes", "2", *LONG)
        until(undisturbed["run"], "completed")
    return undisturbed["run"]


def last_step(run: Path) -> int:
    records = read_records(run, "train")
    return records[-1]["step"] if records else 0


def preempt(cluster: Cluster) -> None:
    """Lets an urgent job take all nodes for a moment."""
    cluster.command("srun", "--partition=urgent", "--nodes=3", "--ntasks=3", "--time=1", "sleep", "1", timeout_s=PATIENCE_S)


def until_attempt(run: Path, number: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not (run / "attempts" / f"{number:04d}" / "start.json").exists():
        assert time.monotonic() < deadline, logs_of(run)
        time.sleep(0.3)


def test_warning_before_the_time_limit_saves_and_requeues(cluster, submit, until):
    run = submit("--nodes", "2", *LONG)
    status = until(run, "running", step=100)
    cluster.command("scancel", "--signal=USR2", "--batch", status["job_id"])  # what --signal=B:USR2@... sends
    until_attempt(run, 2)
    assert json.loads((run / "attempts" / "0002" / "start.json").read_text())["first_step"] >= 100
    assert "stopped (time_limit); it goes back into the queue" in logs_of(run)
    until(run, "completed")
    assert list(losses(run)) == list(range(1, STEPS + 1))


def test_drill_warns_the_real_job_and_compares_it_with_the_undisturbed_one(cluster, fullrank, shared):
    words = ("verify", "./tiny.yaml", "evaluate.every=null", "--cluster", "./site.yaml", "--nodes", "2", "--processes-per-node", "1")
    try:
        ended = fullrank(*words, "--steps", str(STEPS), "--run-dir", str(shared / "drill"), "--json", timeout_s=2 * PATIENCE_S)
    finally:
        cluster.command("scancel", "--user", "root")
    facts = json.loads(ended.stdout)
    assert facts["is_identical"], facts["differences"]
    assert (facts["num_records"], STEPS // 2 <= facts["stopped_at"] < STEPS) == (STEPS + 1, True)  # one evaluation, at the end
    stopped = shared / "drill" / "stopped"
    assert "stopped (time_limit); it goes back into the queue" in logs_of(stopped)
    assert json.loads((stopped / "attempts" / "0002" / "start.json").read_text())["first_step"] == facts["stopped_at"]


def test_cancel_saves_first_and_the_job_does_not_come_back(cluster, fullrank, submit, until):
    run = submit("--nodes", "2", *LONG)
    job = until(run, "running", step=100)["job_id"]
    answer = fullrank("cancel", str(run))
    status = until(run, "cancelled")
    assert re.match(r"cancelled at step \d+; fullrank resume", answer.stdout)
    assert (run / "checkpoints" / f"checkpoint-{status['step']}" / "manifest.json").exists()
    assert cluster.command("squeue", "-h", "-j", job, check=False) == ""
    resumed = fullrank("resume", str(run))
    assert resumed.stdout.startswith("job ")
    until(run, "running", step=status["step"] + 20)
    fullrank("cancel", str(run), "--now")
    assert until(run, "cancelled")


def test_a_waiting_job_says_why_and_is_cancelled_at_once(cluster, fullrank, submit, until):
    blocking = cluster.command(
        "sbatch", "--parsable", "--partition=urgent", "--nodes=3", "--ntasks=3", "--output=/dev/null", "--wrap", "sleep 60"
    ).strip()
    run = submit("--nodes", "2")
    note = until(run, "pending")["note"]
    assert any(words in note for words in ("waits for nodes", "higher priority", "not looked at it yet"))
    assert fullrank("cancel", str(run)).stdout.startswith("cancelled")
    cluster.command("scancel", blocking)
    assert until(run, "cancelled")


def test_a_failure_is_reported_once_and_not_started_again(cluster, submit, until, shared):
    sound = (shared / "train.tsv").read_text()
    (shared / "torn.tsv").write_text(f"{sound}a row without its label\n{sound}")
    run = submit("--nodes", "2", "data.splits.train=torn.tsv")
    status = until(run, "failed")
    assert "torn.tsv" in status["message"]
    assert cluster.command("squeue", "-h", "-j", status["job_id"], check=False) == ""


def test_a_killed_rank_on_another_node_is_the_first_failure(cluster, fullrank, submit, until):
    run = submit("--nodes", "2", *LONG)
    until(run, "running", step=50)
    os.kill(rank_pid(cluster, "node2", run), 9)
    assert until(run, "failed")["message"] == "rank 1 on node2: rank 1 was killed by SIGKILL"
    failure = json.loads((run / "attempts" / "0001" / "failure.json").read_text())
    assert (failure["rank"], failure["host"], failure["kind"]) == (1, "node2", "killed")


def rank_pid(cluster: Cluster, node: str, run: Path) -> int:
    """Returns the pid of the rank of a run on a node."""
    from tests.cluster.network import processes_on

    for pid in processes_on(next(one for one in cluster.nodes if one.name == node)):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"trainers.train" in words and str(run / "resolved.yaml").encode() in words:
            return pid
    raise AssertionError(f"no rank of {run} on {node}")


def test_a_lost_node_is_named_and_training_goes_on(cluster, submit, until):
    run = submit("--nodes", "2", *LONG)
    until(run, "running", step=100)
    cluster.kill_node("node2")
    try:
        until_attempt(run, 2)
    finally:
        cluster.restart_node("node2")
    assert json.loads((run / "attempts" / "0002" / "start.json").read_text())["first_step"] >= 80
    until(run, "completed")
    assert list(losses(run)) == list(range(1, STEPS + 1))


@pytest.mark.parametrize("node", ["node2", "node1"], ids=["another", "the-first"])
def test_a_node_cut_off_from_the_network_is_given_up(node, cluster, submit, until, undisturbed):
    """The processes on it live on, and are to leave the run alone; node1 has rank 0, the job's script and the lock."""
    run = submit("--nodes", "2", *LONG)
    until(run, "running", step=100)
    cluster.set_cable(node, is_plugged=False)
    try:
        until_attempt(run, 2)
    finally:
        cluster.set_cable(node, is_plugged=True)
    until(run, "completed")
    assert list(losses(run)) == list(range(1, STEPS + 1))
    assert losses(run) == losses(whole_run(undisturbed, submit, until))
    assert weights(run) == weights(undisturbed["run"])
    wait_for_nodes(cluster)


def wait_for_nodes(cluster: Cluster) -> None:
    """Returns when every node is idle."""
    deadline = time.monotonic() + PATIENCE_S
    while (states := cluster.command("sinfo", "-h", "-N", "-p", "main", "-o", "%T").split()) != ["idle"] * 3:
        assert time.monotonic() < deadline, states
        time.sleep(1)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("modules: [no_such_module]", "module: command not found"),
        ("python: /nowhere/env/bin/python", "/nowhere/env/bin/python: No such file or directory"),
        ("setup: ['source /nowhere/activate']", "/nowhere/activate: No such file or directory"),
    ],
    ids=["module", "venv", "setup"],
)
def test_a_job_that_dies_before_training_is_told(line, words, fullrank, shared):
    (shared / "odd.yaml").write_text(f"{(shared / 'site.yaml').read_text()}{line}\n")
    run = Path(json.loads(fullrank("submit", "./tiny.yaml", "--cluster", "./odd.yaml", "--json").stdout)["run"])
    status = settled(fullrank, run)
    assert status["state"] == "failed"
    assert "before training began" in status["note"]
    assert words in status["note"]


@pytest.mark.parametrize("node", ["node1", "node2"], ids=["the-first", "another"])
def test_a_node_that_does_not_see_the_run_directory_is_named(node, cluster, fullrank, shared):
    root = shared / "unshared"
    root.mkdir(exist_ok=True)
    with cluster.hidden(node, root):
        answer = fullrank("submit", "./tiny.yaml", "--cluster", "./site.yaml", "--nodes", "2", "--run-root", str(root), "--json")
        status = settled(fullrank, Path(json.loads(answer.stdout)["run"]))
    assert status["state"] == "failed"
    told = f"{status.get('note')} {status.get('message')}"
    assert node in told
    assert "run_root" in told


def settled(fullrank, run: Path) -> dict[str, Any]:
    """Returns what `fullrank status` says of a run once that is neither waiting nor running."""
    deadline = time.monotonic() + 60
    while (status := json.loads(fullrank("status", str(run), "--json").stdout))["state"] in ALIVE and time.monotonic() < deadline:
        time.sleep(0.5)
    return dict(status)


def test_a_node_with_other_versions_is_refused_before_torch_loads(cluster, fullrank, shared, tmp_path):
    """node2 finds another torch before the environment's, by its metadata alone."""
    other = tmp_path / "other"
    (other / "torch-0.1.dist-info").mkdir(parents=True)
    (other / "torch-0.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 0.1\n")
    change = f"if [[ $(hostname) == node2 ]]; then export PYTHONPATH={other}:$PYTHONPATH; fi"
    (tmp_path / "python").write_text(f'#!/bin/bash\n{change}\nexec {sys.executable} "$@"\n')
    (tmp_path / "python").chmod(0o755)
    (shared / "odd.yaml").write_text(f"{(shared / 'site.yaml').read_text()}python: {tmp_path}/python\n")
    run = Path(json.loads(fullrank("submit", "./tiny.yaml", "--cluster", "./odd.yaml", "--nodes", "2", "--json").stdout)["run"])
    status = settled(fullrank, run)
    assert status["state"] == "failed"
    assert "torch differs: node1" in status["message"]
    assert "node2 0.1" in status["message"]


def test_the_job_runs_the_code_that_was_submitted(submit, shared, until, fullrank):
    script = shared / "mine.py"
    script.write_text("import os\nprint('first', os.environ.get('RANK'), flush=True)\n")
    answer = fullrank(
        "submit", "--cluster", "./site.yaml", "--nodes", "2", "--json", "--strategy", "cpu", "--script", str(script), "--", "a b", "$(touch evil)"
    )
    script.write_text("raise SystemExit('changed')\n")
    run = Path(json.loads(answer.stdout)["run"])
    until(run, "completed")
    assert (run / "attempts" / "0001" / "rank_00001.log").read_text() == "first 1\n"
    assert not (shared / "evil").exists()


@pytest.mark.parametrize("launcher", ["direct", "accelerate"])
def test_paths_and_values_are_never_code(launcher, fullrank, shared, until):
    root = shared / f"""{launcher} $(touch evil) 'a' "b" `touch evil` %j;touch evil"""
    answer = fullrank("submit", "./tiny.yaml", "--cluster", "./site.yaml", "--run-root", str(root), "--launcher", launcher, "--json")
    run = Path(json.loads(answer.stdout)["run"])
    until(run, "completed")
    assert run.is_relative_to(root)
    assert len(losses(run)) == 12
    assert not [path for path in (shared, Path.cwd(), run) if (path / "evil").exists()]
    fullrank("submit", "./tiny.yaml", "--cluster", "./site.yaml", "--run-root", f"{root}\ntouch evil", code=3)
    fullrank("submit", "./tiny.yaml", "--cluster", "./site.yaml", "name=$(touch evil)", code=2)
    assert not (shared / "evil").exists()


def test_an_array_of_seeds_is_one_job_with_a_table_of_results(cluster, fullrank, until, shared):
    answer = fullrank("submit", "./tiny.yaml", "--cluster", "./site.yaml", "--seeds", "2", "--at-most", "1", "--json")
    facts = json.loads(answer.stdout)
    for run in facts["runs"]:
        until(Path(run), "completed")
    status = json.loads(fullrank("status", facts["sweep"], "--json").stdout)
    found = [(run["overrides"], run["state"]) for run in status["runs"]]
    assert sorted(found) == [(["seed=1"], "completed"), (["seed=2"], "completed")]
    values = [run["validation"] for run in status["runs"]]
    assert values == sorted(values)
    assert {json.loads((Path(run) / "status.json").read_text())["job_id"] for run in facts["runs"]} == {
        f"{facts['job_id']}_0",
        f"{facts['job_id']}_1",
    }


def test_a_thousand_tasks_are_one_sbatch(cluster, fullrank, shared):
    (shared / "waits.yaml").write_text((shared / "site.yaml").read_text() + "sbatch: {begin: now+1hour}\n")
    facts = json.loads(fullrank("submit", "./tiny.yaml", "--cluster", "./waits.yaml", "--seeds", "1000", "--at-most", "5", "--json").stdout)
    assert len(facts["runs"]) == 1000
    assert cluster.command("squeue", "-h", "-o", "%i").split() == [f"{facts['job_id']}_[0-999%5]"]
    assert fullrank("cancel", facts["sweep"]).stdout == "cancelled\n"
    assert cluster.command("squeue", "-h") == ""


def test_a_chain_goes_on_where_the_first_job_stopped(cluster, submit, until):
    run = submit("--nodes", "2", "--chain", "2", *LONG)
    status = until(run, "running", step=80)
    cluster.command("scancel", "--signal=USR2", "--batch", status["job_id"])
    until_attempt(run, 2)
    until(run, "completed")
    assert list(losses(run)) == list(range(1, STEPS + 1))


def test_where_preemption_cancels_a_chain_is_submitted_and_goes_on(cluster, fullrank, submit, until):
    run = submit("--nodes", "2", "--partition", "cancelling", *LONG)
    ids = (run / "job_ids.txt").read_text().split()
    assert len(ids) == 4
    until(run, "running", step=100)
    preempt(cluster)
    until_attempt(run, 2)
    until(run, "completed")
    assert list(losses(run)) == list(range(1, STEPS + 1))
    deadline = time.monotonic() + 60
    while left := cluster.command("squeue", "-h", "-j", ",".join(ids), "-t", "all", "-o", "%i %T", check=False).splitlines():
        if {line.split()[1] for line in left} <= {"COMPLETED", "CANCELLED", "PREEMPTED"}:
            break
        assert time.monotonic() < deadline, left  # the rest of the chain left the queue by itself
        time.sleep(1)
    assert {line.split()[0] for line in left if line.split()[1] == "CANCELLED"} == set(ids[2:])


def test_logs_are_followed_over_a_requeue_and_of_every_rank_and_node(cluster, fullrank, shared, until):
    words = ["submit", "./tiny.yaml", "--cluster", "./site.yaml", "--nodes", "2", "--follow", "--run-dir", str(shared / "followed"), *LONG]
    environment = clean_environment() | cluster.environment | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    following = subprocess.Popen(
        [sys.executable, "-P", "-m", "launch", *words], cwd=shared, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    run = shared / "followed"
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not (run / "status.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        status = until(run, "running", step=100)
        cluster.command("scancel", "--signal=USR2", "--batch", status["job_id"])
        until(run, "completed")
        seen, _ = following.communicate(timeout=60)
    finally:
        following.kill()
    assert following.returncode == 0
    for attempt in ("0001", "0002"):
        assert (run / "attempts" / attempt / "rank_00000.log").read_text() in seen
    assert fullrank("logs", str(run), "--rank", "1").stdout == (run / "attempts" / "0002" / "rank_00001.log").read_text()
    assert fullrank("logs", str(run), "--node", "1", "--attempt", "1").stdout == (run / "attempts" / "0001" / "node_00001.log").read_text()
    assert "--node 0, 1" in fullrank("logs", str(run), "--node", "2", code=None).stderr


def test_run_in_an_allocation_trains_on_its_nodes(cluster, shared, local_losses):
    words = ["salloc", "--quiet", "--nodes=2", "--cpus-per-task=2", "--time=10", sys.executable, "-P", "-m", "launch", "run", "./tiny.yaml"]
    environment = (
        clean_environment() | cluster.environment | {"PYTHONPATH": str(ROOT), "FULLRANK_RUN_ROOT": str(shared / "allocated"), "OMP_NUM_THREADS": "1"}
    )
    ended = subprocess.run(words, cwd=shared, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (run,) = (shared / "allocated" / "tiny").iterdir()
    assert json.loads((run / "attempts" / "0001" / "nodes" / "node_00001.json").read_text())["host"] == "node2"
    found = losses(run)
    assert max(abs(found[step] - loss) / loss for step, loss in local_losses.items()) < 1e-5


def test_a_login_node_is_no_place_to_train(fullrank):
    answer = fullrank("run", "./tiny.yaml", code=3)
    assert "this is a login node" in answer.stderr
