"""The three calls, in real processes: plain python, and two gloo ranks that were joined by torch itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from launch.config.run_dir import RunDir
from tests.ranks import ROOT, TIMEOUT_S, clean_environment, hold_port

JOIN = """
import torch.distributed as dist
dist.init_process_group("gloo")
rank = dist.get_rank()
"""


@pytest.fixture
def start(tmp_path: Path):
    """Returns a function that starts a script in tmp_path on some ranks; under a run's environment if it is given the run."""

    def begin(body: str, world_size: int = 1, run: RunDir | None = None) -> list[subprocess.Popen[str]]:
        (tmp_path / "mine.py").write_text(
            "import json, os, sys, time\nfrom pathlib import Path\nfrom trainers.runtime import *\n" + textwrap.dedent(body)
        )
        port = hold_port() if world_size > 1 else 0
        contract = {}
        if run:
            attempt = run.attempt(1)
            attempt.path.mkdir(parents=True, exist_ok=True)
            contract = {"FULLRANK_RUN_DIR": str(run.path), "FULLRANK_ATTEMPT": "1", "FULLRANK_STOP_FILE": str(attempt.stop_file)}
        place = {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} if world_size > 1 else {}
        return [
            subprocess.Popen(
                [sys.executable, "mine.py"],
                cwd=tmp_path,
                env=clean_environment()
                | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
                | contract
                | place
                | ({"RANK": str(rank)} if place else {}),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(world_size)
        ]

    return begin


def ends(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    return [(process.returncode, *said) for process in processes for said in [process.communicate(timeout=TIMEOUT_S)]]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not come in time"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_plain_python_stops_when_it_is_asked(start, tmp_path, number):
    (process,) = start("Path('ready').touch()\nwhile not should_stop():\n    time.sleep(0.01)\nassert 'torch' not in sys.modules\nsys.exit(75)")
    wait_for(tmp_path / "ready")
    process.send_signal(number)
    assert ends([process]) == [(75, "", "")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.py", "ready"]  # without fullrank nothing else is written


def test_stop_file_counts_as_a_signal_and_the_cause_is_left_for_the_launcher(start, tmp_path):
    run = RunDir(tmp_path / "run")
    (process,) = start("Path('ready').touch()\nwhile not should_stop():\n    time.sleep(0.01)", run=run)
    wait_for(tmp_path / "ready")
    assert not run.attempt(1).agreed_stop.exists()
    run.attempt(1).stop_file.write_text("time_limit\n")
    assert ends([process]) == [(0, "", "")]
    assert run.attempt(1).agreed_stop.read_text() == "time_limit\n"


def test_checkpoints_are_whole_numbered_and_the_older_ones_go(start, tmp_path):
    (process,) = start(
        """
        assert latest_checkpoint() is None
        for step in (8, 9, 10):
            with publish_checkpoint(step) as folder:
                (folder / "weights").write_text(str(step))
        print(latest_checkpoint())
        """
    )
    newest = tmp_path / "checkpoints" / "checkpoint-10"
    assert ends([process]) == [(0, f"{newest}\n", f"going on from {newest}\n")]
    assert sorted(path.name for path in newest.parent.iterdir()) == ["checkpoint-10", "checkpoint-9"]
    manifest = json.loads((newest / "manifest.json").read_text())
    assert (manifest["step"], manifest["world_size"], list(manifest["files"])) == (10, 1, ["weights"])


def test_body_that_raises_publishes_nothing_and_removes_nothing(start, tmp_path):
    (process,) = start(
        """
        with publish_checkpoint(1, keep=1) as folder:
            (folder / "weights").write_text("1")
        with publish_checkpoint(2, keep=1) as folder:
            (folder / "weights").write_text("2")
            raise OSError("no room")
        """
    )
    assert ends([process])[0][0] == 1
    assert [path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*")] == ["checkpoint-1"]


@pytest.mark.parametrize("leaves", ["", "dist.destroy_process_group()"])
def test_the_threads_of_its_own_group_are_gone_before_python_is(start, leaves):
    """One of gloo's that frees a collective's tensors while Python goes away aborts the process; those of the script's group stay, DDP holds them."""
    ranks = start(
        JOIN
        + """
import atexit, torch
from trainers import runtime
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1))
model(torch.ones(1, 2)).sum().backward()
threads = lambda: sum("gloo" in comm.read_text() for comm in Path("/proc/self/task").glob("*/comm"))
before = threads()
should_stop()
asked = threads()
atexit.unregister(runtime._leave)
atexit.register(lambda: print(asked > before, threads() == before))
atexit.register(runtime._leave)
"""
        + f"{leaves}\nsys.exit(75)",
        2,
    )
    assert [(code, out) for code, out, _ in ends(ranks)] == [(75, "True True\n")] * 2


def test_damaged_checkpoint_is_passed_over(start, tmp_path):
    write = "for step in (1, 2):\n    with publish_checkpoint(step) as folder:\n        (folder / 'weights').write_text(str(step))"
    assert ends(start(write))[0][0] == 0
    (tmp_path / "checkpoints" / "checkpoint-2" / "weights").write_text("3")
    ((code, out, err),) = ends(start("print(latest_checkpoint().name)"))
    assert (code, out) == (0, "checkpoint-1\n")
    assert "warning: checkpoint-2 is passed over and renamed to damaged-checkpoint-2: weights has changed" in err


def test_new_checkpoints_stay_when_every_old_one_is_damaged(start, tmp_path):
    write = "for step in {}:\n    with publish_checkpoint(step) as folder:\n        (folder / 'weights').write_text(str(step))\n"
    assert ends(start(write.format("(200, 202)")))[0][0] == 0
    for name in ("checkpoint-200", "checkpoint-202"):
        (tmp_path / "checkpoints" / name / "weights").write_text("bad")
    ((code, out, err),) = ends(start("assert latest_checkpoint() is None\n" + write.format("(10, 20)") + "print(latest_checkpoint().name)"))
    assert (code, out, err.count("warning: ")) == (0, "checkpoint-20\n", 2)


def test_script_that_looks_for_none_still_keeps_its_checkpoints_from_damaged_ones(start, tmp_path):
    write = "with publish_checkpoint({}) as folder:\n    (folder / 'weights').touch()\n"
    assert ends(start(write.format(200)))[0][0] == 0
    (tmp_path / "checkpoints" / "checkpoint-200" / "weights").write_text("bad")
    assert ends(start(write.format(10)))[0][0] == 0
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["checkpoint-10", "damaged-checkpoint-200"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("publish_checkpoint(-1)", "ValueError: the step of a checkpoint is -1, not a number from 0 on"),
        ("publish_checkpoint('abc')", "TypeError: 'str' object cannot be interpreted as an integer"),
        ("publish_checkpoint(4)", "ValueError: step 4 is before {folder}/checkpoint-5: go on from it"),
        ("publish_checkpoint(6)", "ValueError: nothing was written into the checkpoint of step 6"),
    ],
)
def test_what_nobody_could_go_on_from_is_not_published(start, tmp_path, body, said):
    first = "with publish_checkpoint(5) as folder:\n    (folder / 'weights').touch()\n"
    ((code, _, err),) = ends(start(f"{first}with {body} as folder:\n    pass"))
    folder = tmp_path / "checkpoints"
    assert code == 1
    assert said.format(folder=folder) in err
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-5"]


def test_checkpoint_of_the_same_step_is_replaced(start, tmp_path):
    body = "with publish_checkpoint(1) as folder:\n    (folder / 'weights').write_text(str(time.time_ns()))"
    assert [ends(start(body))[0][0] for _ in range(2)] == [0, 0]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-1"]


@pytest.mark.integration
def test_ranks_agree_on_the_step_to_stop_and_write_one_checkpoint(start, tmp_path):
    run = RunDir(tmp_path / "run")
    ranks = start(
        JOIN
        + """
step = 0
while not should_stop():
    step += 1
    time.sleep(0.02 * rank)
    if step == 3:
        Path(f"ready{rank}").touch()
with publish_checkpoint(step) as folder:
    (folder / f"rank{rank}").write_text(str(step))
print(step, latest_checkpoint().name)
sys.exit(75)
""",
        world_size=2,
        run=run,
    )
    wait_for(tmp_path / "ready1")
    ranks[1].send_signal(signal.SIGTERM)  # one of them alone
    (code_0, out_0, _), (code_1, out_1, _) = ends(ranks)
    assert (code_0, code_1) == (75, 75)
    assert out_0 == out_1
    step = out_0.split()[0]
    (path,) = run.checkpoints.iterdir()
    assert sorted(file.name for file in path.iterdir()) == ["manifest.json", "rank0", "rank1"]
    assert (path.name, (path / "rank1").read_text()) == (f"checkpoint-{step}", step)
    assert run.attempt(1).agreed_stop.read_text() == "preempted\n"


def test_several_processes_that_are_not_joined_cannot_publish(start):
    outputs = ends(start("with publish_checkpoint(1) as folder:\n    pass", world_size=2))
    assert [code for code, _, _ in outputs] == [1, 1]
    assert all("RuntimeError: 2 processes, and torch.distributed is not initialised" in err for _, _, err in outputs)


def test_listening_in_another_thread_is_left_out():
    code = "import threading, sys\nthread = threading.Thread(target=__import__, args=('trainers.runtime',))\nthread.start(); thread.join()\n"
    code += "import signal; assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL; assert not sys.modules['trainers.runtime'].should_stop()"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
