"""Real processes: ranks that fail, hang, ignore signals, leave children behind."""

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

from launch.agent import Outcome, run_members
from launch.config.errors import ConfigError
from launch.config.run_dir import Attempt, read_json
from launch.members import Member
from launch.stop_signals import stop_deadline_s

RANK = """
import json, os, signal, subprocess, sys, time
rank = int(os.environ['RANK'])

def wait_for(other, text):
    log = f"{os.environ['ATTEMPT']}/rank_{other:05d}.log"
    while not os.path.exists(log) or text not in open(log).read(): time.sleep(0.01)

def interrupt():
    os.kill(os.getppid(), signal.SIGINT)
    while not os.path.exists(os.environ['ATTEMPT'] + '/stop'): time.sleep(0.01)

def report(kind='exception', message='boom'):
    facts = {'rank': rank, 'host': 'h', 'pid': os.getpid(), 'time': time.time(), 'step': 3, 'kind': kind}
    facts |= {'exception': 'ValueError', 'message': message, 'traceback': 'T'}
    json.dump(facts, open(f"{os.environ['ATTEMPT']}/failures/rank_{rank:05d}.json", 'w'))
"""


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attempt:
    monkeypatch.setattr("launch.agent.GRACE_S", 0.3)
    attempt = Attempt(tmp_path / "0001")
    attempt.failures.mkdir(parents=True)
    return attempt


def members(attempt: Attempt, body: str, world_size: int = 2) -> list[Member]:
    argv = [sys.executable, "-S", "-u", "-c", RANK + textwrap.dedent(body)]
    return [
        Member(rank, argv, {"RANK": str(rank), "ATTEMPT": str(attempt.path)}, attempt.rank_log(rank), on_terminal=rank == 0)
        for rank in range(world_size)
    ]


def run(attempt: Attempt, body: str, world_size: int = 2) -> Outcome:
    return run_members(members(attempt, body, world_size), attempt)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def test_ranks_that_end_well_are_done_and_each_has_its_log(attempt, capfd):
    outcome = run(attempt, "print('hello from', rank)")
    assert outcome == Outcome(0, (0, 0))
    assert attempt.rank_log(0).read_text() == "hello from 0\n"
    assert attempt.rank_log(1).read_text() == "hello from 1\n"
    assert capfd.readouterr() == ("", "hello from 0\n")
    assert not attempt.failure.exists()


def test_failing_rank_ends_the_others_and_is_the_failure(attempt):
    outcome = run(attempt, "if rank == 1: report(); sys.exit(1)\ntime.sleep(1000)")
    assert outcome.exit_code == 1
    assert (outcome.failure.rank, outcome.failure.exception, outcome.failure.message, outcome.failure.step) == (1, "ValueError", "boom", 3)
    assert read_json(attempt.failure)["rank"] == 1


def test_earliest_report_wins_over_the_cascade(attempt):
    outcome = run(
        attempt,
        """
        if rank == 1:
            report(message='the cause')
            print('reported')
            time.sleep(60)  # as one that takes its time to end
        wait_for(1, 'reported')
        report(message='connection closed by peer')
        sys.exit(1)
        """,
    )
    assert (outcome.failure.rank, outcome.failure.message, outcome.num_others) == (1, "the cause", 1)


def test_rank_killed_by_the_kernel_is_reported_with_its_last_lines(attempt):
    outcome = run(attempt, "print('step 1')\nif rank == 1: os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(60)")
    failure = outcome.failure
    assert (failure.rank, failure.kind, failure.message, failure.exit_code) == (1, "killed", "rank 1 was killed by SIGKILL", -9)
    assert failure.last_lines == ("step 1",)
    assert "out-of-memory killer" in failure.advice


def test_rank_that_leaves_without_a_word_is_reported(attempt):
    outcome = run(attempt, "os._exit(9)", world_size=1)
    assert (outcome.exit_code, outcome.failure.kind, outcome.failure.message) == (1, "exit", "rank 0 ended with exit code 9 and no report")


def test_configuration_error_of_a_rank_is_exit_code_2_with_its_words(attempt):
    outcome = run(attempt, "print('error: data.csv:3: no label', file=sys.stderr); sys.exit(2)", world_size=1)
    assert (outcome.exit_code, outcome.failure.kind, outcome.failure.message) == (2, "configuration", "data.csv:3: no label")


def test_rank_that_ignores_sigterm_is_killed(attempt):
    body = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nif rank == 1: wait_for(0, '\\n'); sys.exit(1)\nprint(os.getpid())\ntime.sleep(60)"
    outcome = run(attempt, body)
    assert outcome.codes == (-signal.SIGKILL, 1)
    assert not is_running(int(attempt.rank_log(0).read_text()))


def test_no_grandchild_is_left_behind_even_by_ranks_that_succeed(attempt):
    body = "child = subprocess.Popen(['sleep', '60'])\nprint(child.pid)"
    assert run(attempt, body).exit_code == 0
    assert not any(is_running(int(attempt.rank_log(rank).read_text())) for rank in range(2))


@pytest.mark.parametrize(
    ("number", "times", "code", "cause"),
    [(signal.SIGTERM, 3, 75, "preempted"), (signal.SIGUSR2, 3, 75, "preempted"), (signal.SIGINT, 1, 130, "user")],
)
def test_signal_reaches_every_rank_once_and_the_stop_file_says_it_too(attempt, number, times, code, cause):
    body = f"""
    got = []
    signal.signal({int(number)}, lambda n, f: got.append(n))
    print('ready')
    if rank == 1:
        wait_for(0, 'ready')
        for _ in range({times}):
            os.kill(os.getppid(), {int(number)})
            time.sleep(0.05)
    while not got: time.sleep(0.01)
    time.sleep(0.3)
    print(len(got))
    sys.exit({code})
    """
    assert run(attempt, body) == Outcome(code, (code, code))
    assert [attempt.rank_log(rank).read_text() for rank in range(2)] == ["ready\n1\n"] * 2
    assert attempt.stop_file.read_text() == f"{cause}\n"


def test_signal_before_the_handler_does_not_kill_a_rank(attempt):
    body = """
    os.kill(os.getppid(), signal.SIGTERM)
    while not os.path.exists(os.environ['ATTEMPT'] + '/stop'): time.sleep(0.01)
    time.sleep(0.2)
    print(signal.getsignal(signal.SIGTERM) == signal.SIG_IGN, 'still here')
    sys.exit(75)
    """
    assert run(attempt, body, world_size=1) == Outcome(75, (75,))
    assert attempt.rank_log(0).read_text() == "True still here\n"


def test_second_ctrl_c_ends_ranks_that_do_not_listen(attempt):
    body = "interrupt()\nos.kill(os.getppid(), signal.SIGINT)\ntime.sleep(60)"
    assert run(attempt, body, world_size=1) == Outcome(130, (-signal.SIGKILL,))


SESSIONS = """
child = subprocess.Popen(['sleep', '60'], start_new_session=True, stdout=subprocess.DEVNULL)
follower = subprocess.Popen(['sleep', '60'], start_new_session=True, stdout=subprocess.DEVNULL, env={**os.environ, 'FULLRANK_OUTLIVES': '1'})
print(child.pid, follower.pid)
"""


def test_nothing_is_left_in_other_sessions_but_what_ends_by_itself(attempt):
    assert run(attempt, SESSIONS, world_size=1) == Outcome(0, (0,))
    child, follower = map(int, attempt.rank_log(0).read_text().split())
    assert (is_running(child), is_running(follower)) == (False, True)
    os.kill(follower, signal.SIGKILL)


def test_second_ctrl_c_ends_stopped_processes_of_every_session(attempt):
    stop = "os.kill(child.pid, signal.SIGSTOP)\ninterrupt()\nos.kill(os.getppid(), signal.SIGINT)\ntime.sleep(60)"
    assert run(attempt, SESSIONS + stop, 1).exit_code == 130
    assert not any(is_running(int(pid)) for pid in attempt.rank_log(0).read_text().split())


def test_what_the_shell_says_of_another_launcher_is_not_inherited(attempt, monkeypatch):
    for name, value in {"RANK": "7", "WORLD_SIZE": "8", "LOCAL_RANK": "7", "OMPI_COMM_WORLD_SIZE": "8", "OTHER": "kept"}.items():
        monkeypatch.setenv(name, value)
    run(attempt, "print(*(os.environ.get(n) for n in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'OMPI_COMM_WORLD_SIZE', 'OTHER')))", 1)
    assert attempt.rank_log(0).read_text() == "0 None None None kept\n"


def test_processes_of_the_caller_are_not_touched(attempt):
    before = subprocess.Popen(["sleep", "60"])
    run(attempt, "pass", 1)
    assert before.poll() is None
    before.kill()
    before.wait()


def test_handlers_of_the_caller_are_back_afterwards(attempt):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGCHLD)]
    run(attempt, "pass", world_size=1)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGCHLD)] == before


def test_ranks_die_with_an_agent_that_is_killed(attempt):
    agent = subprocess.Popen([sys.executable, "-c", _AGENT, str(attempt.path)], env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    pid_file = attempt.path / "pid"
    while not pid_file.exists() or not pid_file.read_text():
        time.sleep(0.02)
    rank = int(pid_file.read_text())
    assert is_running(rank)
    agent.kill()
    agent.wait()
    deadline = time.monotonic() + 120
    while is_running(rank) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(rank)


_AGENT = """
import sys
from pathlib import Path
from launch.agent import run_members
from launch.members import Member
from launch.config.run_dir import Attempt
attempt = Attempt(Path(sys.argv[1]))
body = f"import os, time; open({str(attempt.path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
run_members([Member(0, [sys.executable, "-S", "-c", body], {}, attempt.rank_log(0), on_terminal=False)], attempt)
"""


def test_failure_json_holds_the_report(attempt):
    run(attempt, "report(); sys.exit(1)", world_size=1)
    facts = json.loads(attempt.failure.read_text())
    assert {name: facts[name] for name in ("rank", "step", "kind", "exception", "message", "traceback")} == {
        "rank": 0,
        "step": 3,
        "kind": "exception",
        "exception": "ValueError",
        "message": "boom",
        "traceback": "T",
    }


STOPS_BY_FILE = """
    while not os.path.exists(attempt + "/stop"): time.sleep(0.01)
    print(open(attempt + "/stop").read().strip(), flush=True)
"""


def test_stock_launcher_is_told_by_the_stop_file_alone(attempt, capfd):
    code = "import os, sys, time\nattempt = os.environ['ATTEMPT']\nprint('ready', flush=True)\nos.kill(os.getppid(), 15)\n"
    code += textwrap.dedent(STOPS_BY_FILE) + "sys.exit(1)"
    member = Member(None, [sys.executable, "-S", "-u", "-c", code], {"ATTEMPT": str(attempt.path)}, attempt.job_log, on_terminal=True)
    outcome = run_members([member], attempt)
    assert (outcome.exit_code, outcome.codes) == (75, (1,))  # not ended by the signal: it saw the file, and ended as torchrun does
    assert attempt.job_log.read_text() == "ready\npreempted\n"


def test_cause_in_a_stop_file_is_kept_when_the_signal_comes(attempt, capfd):
    attempt.stop_file.write_text("time_limit\n")
    body = "signal.signal(signal.SIGUSR2, lambda *_: (print(open(os.environ['ATTEMPT'] + '/stop').read()), sys.exit(75)))\n"
    body += "os.kill(os.getppid(), signal.SIGUSR2)\ntime.sleep(60)"
    assert run(attempt, body, world_size=1).exit_code == 75
    assert attempt.rank_log(0).read_text() == "time_limit\n\n"


def test_deadline_ends_what_does_not_stop_as_stopped(attempt, monkeypatch, capfd):
    monkeypatch.setenv("FULLRANK_STOP_DEADLINE", "0.3")
    body = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready')\n"
    body += "if rank == 1: wait_for(0, 'ready'); os.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(60)"
    outcome = run(attempt, body, world_size=2)
    assert (outcome.exit_code, outcome.codes, outcome.failure) == (75, (-9, -9), None)
    assert "the deadline has passed: ending at once; the last checkpoint stays" in capfd.readouterr().err


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_deadline_that_is_no_number_is_refused_before_anything_starts(attempt, monkeypatch, text):
    monkeypatch.setenv("FULLRANK_STOP_DEADLINE", text)
    with pytest.raises(ConfigError, match=f"FULLRANK_STOP_DEADLINE: '{text}' is no number of seconds"):
        run(attempt, "pass", world_size=1)
    assert not attempt.rank_log(0).exists()


def test_no_deadline_is_none(monkeypatch):
    monkeypatch.setenv("FULLRANK_STOP_DEADLINE", "")
    assert stop_deadline_s() is None


def test_hangup_is_a_warned_stop_that_the_ranks_hear_as_sigterm(attempt, capfd):
    body = "signal.signal(signal.SIGTERM, lambda *_: (print('TERM', open(os.environ['ATTEMPT'] + '/stop').read()), sys.exit(75)))\n"
    body += "os.kill(os.getppid(), signal.SIGHUP)\ntime.sleep(60)"
    outcome = run(attempt, body, world_size=1)
    assert (outcome.exit_code, outcome.failure) == (75, None)
    assert attempt.rank_log(0).read_text() == "TERM preempted\n\n"
    assert "SIGHUP: finishing the step, saving, then stopping" in capfd.readouterr().err


def test_hangup_under_nohup_is_ignored(attempt):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        outcome = run(attempt, "os.kill(os.getppid(), signal.SIGHUP)\ntime.sleep(0.3)", world_size=1)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert outcome == Outcome(0, (0,))


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_bytes(b"\xff\xfe stop")], ids=["folder", "no text"])
def test_stop_file_of_any_kind_is_no_hindrance_to_a_signal(attempt, make, capfd):
    make(attempt.stop_file)
    body = "signal.signal(signal.SIGINT, lambda *_: sys.exit(130))\nos.kill(os.getppid(), signal.SIGINT)\ntime.sleep(60)"
    outcome = run(attempt, body, world_size=1)
    assert (outcome.exit_code, outcome.failure) == (130, None)


def test_agent_shows_that_it_lives(attempt):
    beats = []
    run_members(members(attempt, "pass", world_size=1), attempt, beat=lambda: beats.append(1))
    assert beats == [1]
