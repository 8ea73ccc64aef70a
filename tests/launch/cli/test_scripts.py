from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from launch.config.run_dir import read_json
from launch.processes import process_start


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Returns a function that writes tiny.py, in whose folder fullrank is called."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        path = tmp_path / "tiny.py"
        path.write_text("import json, os, signal, subprocess, sys, time\nfrom pathlib import Path\nrank = os.environ.get('RANK')\n" + text)
        return path

    return write


def state(run: Path) -> tuple[str, str | None]:
    status = read_json(run / "status.json")
    return status["state"], status["cause"]


def send_when(path: Path, *numbers: int) -> threading.Thread:
    """Sends this process the signals once the path is there, each when the one before has been heard."""

    def is_heard(cause: str) -> bool:
        return any(cause in stop_file.read_text() for stop_file in path.parent.glob("runs/tiny/*/attempts/*/stop"))

    def wait() -> None:
        wait_until(path.exists)
        os.kill(os.getpid(), numbers[0])
        for before, number in pairwise(numbers):
            wait_until(lambda cause="user" if before == signal.SIGINT else "preempted": is_heard(cause))
            os.kill(os.getpid(), number)

    def wait_until(happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 200
        while not happened():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("code", [0, 1, 2, 3, 75, 130])
def test_exit_code_of_the_script_is_passed_through_and_is_no_stop_that_nobody_asked_for(fullrank, script, run_path, code):
    answer = fullrank("run", "--script", script(f"sys.exit({code})"))
    assert answer.code == code
    assert state(run_path()) == ("failed" if code else "completed", None)


def test_exit_75_by_itself_is_told_as_what_it_is(fullrank, script):
    answer = fullrank("run", "--script", script("sys.exit(75)"))
    assert "rank 0 ended with exit code 75 by itself: no stop was asked for" in answer.err
    assert "go on with" not in answer.err


def test_death_by_a_signal_is_128_and_its_number(fullrank, script):
    answer = fullrank("run", "--script", script("os.kill(os.getpid(), signal.SIGKILL)"))
    assert answer.code == 137
    assert "rank 0 was killed by SIGKILL" in answer.err


def test_arguments_behind_the_dashes_are_the_scripts_own(fullrank, script, run_path):
    fullrank("run", "--script", script("print(sys.argv[1:])"), "--", "--json", "a=b", "--", "--script")
    assert (run_path() / "attempts" / "0001" / "rank_00000.log").read_text() == "['--json', 'a=b', '--', '--script']\n"


def test_environment_contract(fullrank, script, run_path):
    keys = ("FULLRANK_RUN_DIR", "FULLRANK_ATTEMPT", "FULLRANK_RESUME_FROM", "FULLRANK_STOP_FILE")
    path = script(f"print(json.dumps([os.environ.get(key) for key in {keys}]))\nsys.exit(1)")
    fullrank("run", "--script", path)
    run = run_path()
    for number in (3, 12):
        (run / "checkpoints" / f"checkpoint-{number}").mkdir(parents=True)
        (run / "checkpoints" / f"checkpoint-{number}" / "manifest.json").write_text('{"files": {}}')
    (run / "checkpoints" / "checkpoint-20").mkdir()  # half-written
    fullrank("resume", run)
    said = [json.loads((run / "attempts" / number / "rank_00000.log").read_text()) for number in ("0001", "0002")]
    assert said[0] == [str(run), "1", None, f"{run}/attempts/0001/stop"]
    assert said[1] == [str(run), "2", f"{run}/checkpoints/checkpoint-12", f"{run}/attempts/0002/stop"]


def test_resume_starts_the_same_script_with_the_same_words_in_the_same_folder(fullrank, script, run_path, tmp_path, monkeypatch):
    fullrank(
        "run",
        "--script",
        script("print(os.getcwd(), sys.argv[1:], os.environ['WORLD_SIZE'])\nsys.exit(1)"),
        "--processes-per-node",
        "2",
        "--",
        "--lr",
        "1",
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    answer = fullrank("resume", run_path())
    assert answer.code == 1
    assert (run_path() / "attempts" / "0002" / "rank_00000.log").read_text() == f"{tmp_path} ['--lr', '1'] 2\n"


def test_resume_of_a_script_that_is_gone_is_refused(fullrank, script, run_path):
    path = script("sys.exit(1)")
    fullrank("run", "--script", path)
    path.unlink()
    answer = fullrank("resume", run_path())
    assert answer.code == 2
    assert "there is no such script" in answer.err


def test_script_and_its_own_modules_are_kept_with_the_run(fullrank, script, run_path, tmp_path):
    (tmp_path / "parts.py").write_text("x = 1\n")
    path = script("import parts")
    assert fullrank("run", "--script", path).code == 0
    assert (run_path() / "code" / "script" / "tiny.py").read_text() == path.read_text()
    assert (run_path() / "code" / "script" / "parts.py").read_text() == "x = 1\n"


def test_failing_rank_of_a_script_ends_the_others_and_is_the_report(fullrank, script, run_path):
    path = script("if rank == '1':\n    raise ValueError('it broke')\ntime.sleep(60)")
    answer = fullrank("run", "--script", path, "--processes-per-node", "2")
    assert answer.code == 1
    assert "failed: rank 1 on " in answer.err
    assert "ValueError: it broke" in answer.err
    assert state(run_path()) == ("failed", None)


def test_rank_that_only_lost_the_other_is_not_the_failure(fullrank, script):
    text = """
if rank == '0':
    while not Path('raised').exists():
        time.sleep(0.01)
    raise RuntimeError('Connection closed by peer')
try:
    raise ValueError('the reason')
except ValueError:
    import traceback
    traceback.print_exc()
    Path('raised').touch()
    time.sleep(60)  # as a rank that takes its time to end
"""
    path = script(text)
    answer = fullrank("run", "--script", path, "--processes-per-node", "2")
    assert "failed: rank 1 on " in answer.err
    assert "1 other rank failed after it" in answer.err


def test_stop_is_passed_on_and_a_script_that_leaves_by_75_is_stopped(fullrank, script, run_path, tmp_path):
    text = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\nPath('ready').touch()\ntime.sleep(60)"
    thread = send_when(tmp_path / "ready", signal.SIGTERM)
    answer = fullrank("run", "--script", script(text))
    thread.join()
    assert answer.code == 75
    assert state(run_path()) == ("stopped", "preempted")
    assert answer.err.endswith(f"stopped; go on with: fullrank resume runs/tiny/{run_path().name}\n")


def test_stop_ends_a_script_without_handlers_and_it_is_stopped(fullrank, script, run_path, tmp_path):
    thread = send_when(tmp_path / "ready", signal.SIGINT)
    answer = fullrank("run", "--script", script("Path('ready').touch()\ntime.sleep(60)"))
    thread.join()
    assert answer.code == 130
    assert state(run_path()) == ("stopped", "user")


def test_rank_that_waits_for_one_the_stop_has_killed_is_ended_too(fullrank, script, run_path, tmp_path):
    text = "if rank == '1':\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\nPath(f'ready{rank}').touch()\ntime.sleep(60)"
    thread = send_when(tmp_path / "ready1", signal.SIGTERM)
    answer = fullrank("run", "--script", script(text), "--processes-per-node", "2")
    thread.join()
    assert answer.code in (143, 137)
    assert state(run_path()) == ("stopped", "preempted")


def test_script_that_ignores_sigterm_and_finishes_is_completed(fullrank, script, run_path, tmp_path):
    text = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nPath('ready').touch()\ntime.sleep(1)"
    thread = send_when(tmp_path / "ready", signal.SIGTERM)
    answer = fullrank("run", "--script", script(text))
    thread.join()
    assert (answer.code, state(run_path())) == (0, ("completed", None))


def test_script_that_ignores_everything_is_spoken_of_and_ended_by_a_second_interrupt(fullrank, script, run_path, tmp_path, monkeypatch):
    monkeypatch.setattr("launch.agent.REMIND_S", 0.0)
    text = "for number in (signal.SIGTERM, signal.SIGINT):\n    signal.signal(number, signal.SIG_IGN)\nPath('ready').touch()\ntime.sleep(60)"
    thread = send_when(tmp_path / "ready", signal.SIGTERM, signal.SIGINT, signal.SIGINT)
    answer = fullrank("run", "--script", script(text))
    thread.join()
    assert answer.code == 137
    assert "after SIGTERM: what heeds no signal runs to its end; Ctrl-C (twice) ends it at once" in answer.err
    assert state(run_path()) == ("stopped", "user")


def test_daemon_that_a_script_forks_is_ended_with_it_and_told(fullrank, script, run_path):
    text = """
pid = os.fork()
if pid == 0:
    os.setsid()
    if os.fork() == 0:
        Path('daemon').write_text(str(os.getpid()))
        time.sleep(60)
    os._exit(0)
while not (Path('daemon').exists() and Path('daemon').read_text()):
    time.sleep(0.01)
"""
    answer = fullrank("run", "--script", script(text))
    assert answer.code == 0
    assert "fullrank: ended 1 process that the script left running" in answer.err
    assert process_start(int(Path("daemon").read_text())) is None
    assert state(run_path()) == ("completed", None)


def test_script_is_not_told_of_an_outer_run(fullrank, script, run_path, monkeypatch):
    monkeypatch.setenv("FULLRANK_RESUME_FROM", "/another/checkpoint-1")
    assert fullrank("run", "--script", script("assert 'FULLRANK_RESUME_FROM' not in os.environ")).code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["quickstart", "--script", "tiny.py"], "an experiment (quickstart) and a script (tiny.py): only one of them can be launched"),
        (["--script", "tiny.py", "seed=1"], "'seed=1' beside --script: a script has no experiment whose keys could be set"),
        (["quickstart", "--", "--lr", "1"], "'--lr 1' stands behind --, where a script's arguments stand"),
        ([], "what is to be launched?"),
        (["--script", "none.py"], "none.py: --script: there is no such script"),
        (["--script", "tiny.py", "--launcher", "srun"], "'srun' is not a launcher"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "plan"])
def test_words_that_do_not_go_together_are_refused(fullrank, script, tmp_path, verb, words, message):
    script("")
    answer = fullrank(verb, *words)
    assert answer.code == 2
    assert message in answer.err
    assert not (tmp_path / "runs").exists()


def test_plan_of_a_script_writes_nothing_and_shows_the_command(fullrank, script, tmp_path):
    path = script("")
    answer = fullrank("plan", "--script", path, "--processes-per-node", "2", "--", "--lr", "1")
    assert answer.code == 0
    assert f"{path} --lr 1" in answer.out
    assert "2 processes would train 2 separate models" not in answer.out  # it looks at RANK
    assert not (tmp_path / "runs").exists()


def test_status_and_logs_know_the_run_of_a_script(fullrank, script, run_path):
    fullrank("run", "--script", script("print('said')"))
    assert run_path().name in fullrank("status").out
    assert fullrank("logs", "latest").out == "said\n"


def test_processes_that_never_met_are_warned_of(fullrank, script):
    answer = fullrank("run", "--script", script("time.sleep(0.3)"), "--processes-per-node", "2")
    assert answer.code == 0
    assert "fullrank: warning: the 2 processes never met (nothing listened on MASTER_PORT " in answer.err


def test_processes_that_met_are_not(fullrank, script):
    text = """
import socket
place = ('127.0.0.1', int(os.environ['MASTER_PORT']))
if rank == '0':
    with socket.create_server(place) as server:
        server.accept()
        for word in ('here', 'still there'):  # the agent has looked between reading the one and the other
            print(word, flush=True)
            while word not in Path(os.environ['FULLRANK_RUN_DIR'], 'attempts/0001/rank_00000.log').read_text():
                time.sleep(0.01)
else:
    while True:
        try:
            socket.create_connection(place).close()
            break
        except OSError:
            time.sleep(0.01)
"""
    answer = fullrank("run", "--script", script(text), "--processes-per-node", "2")
    assert (answer.code, "never met" in answer.err) == (0, False)


def test_dashes_mean_what_they_always_do_to_verbs_without_scripts(fullrank, script, run_path):
    fullrank("run", "--script", script("print('said')"))
    assert fullrank("logs", "--", "latest").out == "said\n"
    assert "there is no run '-x'" in fullrank("logs", "--", "-x").err


def test_completed_script_is_started_anew_by_its_own_words(fullrank, script, run_path):
    path = script("")
    fullrank("run", "--script", path, "--", "--say", "two words")
    answer = fullrank("resume")
    assert (answer.code, answer.err.splitlines()[1]) == (2, f"    try: fullrank run --script {path} -- --say 'two words' for a new run")
