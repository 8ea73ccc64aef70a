"""`fullrank run --debug` on a terminal of its own (a pty), as a person at a keyboard has it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.config.run_dir import read_json
from tests.ranks import ROOT, clean_environment

TIMEOUT_S = 60


class Terminal:
    """A terminal with `fullrank WORDS` in it."""

    def __init__(self, folder: Path, *words: str, **environment: str) -> None:
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            path = os.pathsep.join([str(ROOT), environment.pop("PYTHONPATH", "")])
            os.execve(sys.executable, [sys.executable, "-P", "-m", "launch", *words], clean_environment() | environment | {"PYTHONPATH": path})
        self.text = ""

    def wait_for(self, text: str) -> None:
        """Reads until the text has been shown, behind what was waited for before."""
        deadline = time.monotonic() + TIMEOUT_S
        while text not in self.text:
            assert time.monotonic() < deadline, self.text
            assert self._read(), self.text
        self.text = self.text.partition(text)[2]

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def press_until(self, key: str, text: str) -> None:
        """Presses a key until the text is shown: Python's readline sleeps over a signal that comes just as it begins to wait for a key."""
        for _ in range(int(TIMEOUT_S)):
            self.type(key)
            started = time.monotonic()
            while text not in self.text and time.monotonic() < started + 1:
                if select.select([self.descriptor], [], [], 0.1)[0]:
                    assert self._read(), self.text
            if text in self.text:
                break
        self.wait_for(text)

    def end(self) -> tuple[int, str]:
        """Returns the exit code and what else was shown."""
        while self._read():
            pass
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.descriptor)
        return code, self.text

    def _read(self) -> bool:
        if not select.select([self.descriptor], [], [], TIMEOUT_S)[0]:
            return False
        try:
            data = os.read(self.descriptor, 65536)
        except OSError:  # Linux's way to say that the last process has closed the terminal
            return False
        self.text += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)


@pytest.fixture
def script(tmp_path):
    def write(text: str) -> str:
        (tmp_path / "tiny.py").write_text(text)
        return "tiny.py"

    return write


def test_breakpoint_reads_the_keyboard_and_goes_on(tmp_path, script):
    terminal = Terminal(tmp_path, "run", "--debug", "--run-dir", "r", "--script", script("x = 41\nbreakpoint()\nprint('x is', x)"))
    terminal.wait_for("tiny: debug, 1 process on the CPU")
    terminal.wait_for("(Pdb) ")
    terminal.type("x = x + 1\n")
    terminal.wait_for("(Pdb) ")
    terminal.type("c\n")
    terminal.wait_for("x is 42")
    assert terminal.end()[0] == 0
    assert read_json(tmp_path / "r" / "status.json")["is_debug"] is True
    status = subprocess.run(
        [sys.executable, "-P", "-m", "launch", "status", "r"],
        cwd=tmp_path,
        env=clean_environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "completed, a debug run" in status.stdout
    assert read_json(tmp_path / "r" / "attempts" / "0001" / "plan.json")["mode"]["is_debug"] is True
    assert (tmp_path / "r" / "attempts" / "0001" / "rank_00000.log").read_text() == "a debug run: what it said went to the terminal\n"


def test_quitting_the_debugger_is_an_end_whose_words_are_on_the_terminal(tmp_path, script):
    terminal = Terminal(tmp_path, "run", "--debug", "--run-dir", "r", "--script", script("breakpoint()\nprint('never')"))
    terminal.wait_for("(Pdb) ")
    terminal.type("q\n")
    code, said = terminal.end()
    assert (code, said.count("bdb.BdbQuit"), said.count("Traceback")) == (1, 1, 1)
    assert "rank 0 ended with exit code 1; what it said is above" in said


def test_interrupt_belongs_to_the_debugger(tmp_path, script):
    text = "import time\ntry:\n    print('sleeping', flush=True)\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    breakpoint()\nprint('went on')"
    terminal = Terminal(tmp_path, "run", "--debug", "--run-dir", "r", "--script", script(text))
    terminal.wait_for("sleeping")
    terminal.type("\x03")
    terminal.wait_for("(Pdb) ")
    terminal.press_until("\x03", "KeyboardInterrupt")  # a second one does not end the run
    terminal.wait_for("(Pdb) ")
    terminal.type("c\n")
    terminal.wait_for("went on")
    assert terminal.end()[0] == 0
    assert read_json(tmp_path / "r" / "status.json")["state"] == "completed"


def test_traceback_is_shown_once_and_the_run_has_failed(tmp_path, script):
    terminal = Terminal(tmp_path, "run", "--debug", "--run-dir", "r", "--script", script("raise ValueError('it broke')"))
    code, text = terminal.end()
    assert code == 1
    assert text.count("Traceback (most recent call last)") == 1
    assert "ValueError: it broke" in text
    assert read_json(tmp_path / "r" / "status.json")["state"] == "failed"


def test_experiment_has_few_samples_no_workers_and_its_training_is_told(fullrank, experiment_file):
    answer = fullrank("run", experiment_file, "--debug", "--dry-run", "data.limit=8")
    assert answer.code == 0, answer.err
    rows = [line.split() for line in answer.out.splitlines()]
    for key, value in (("data.num_workers", "0"), ("data.limit", "8"), ("checkpoint.background", "false"), ("tracking.wandb.mode", "disabled")):
        assert [key, value] in [row[:2] for row in rows]
    assert " --debug" in answer.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--debug", "--processes-per-node", "2"], "--debug is for one process, and 2 are asked for\n    try: --processes-per-node 1"),
        (["--debug", "--launcher", "torchrun"], "--debug gives the process the terminal, which torchrun does not\n    try: --launcher direct"),
        (["--overfit-batch", "--profile-steps", "1:2"], "--overfit-batch and --profile-steps: cannot both be asked for"),
        (["--profile-steps", "15:10"], "'15:10' ends before it begins"),
        (["--profile-steps", "0:10"], "'0:10' counts from 1"),
        (["--profile-steps", "10"], "'10' is not FIRST:LAST"),
        (["--profile-steps", "1:1000"], "'1:1000' is too long"),
        (["--profile-steps", "17:18", "train.duration=17 steps"], "the training makes steps 1 to 17, and 17:18 is not among them"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(fullrank, experiment_file, tmp_path, words, message):
    answer = fullrank("run", experiment_file, *words)
    assert answer.code == 2
    assert message in answer.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("option", [["--overfit-batch"], ["--profile-steps", "1:2"]])
def test_scripts_loop_is_its_own(fullrank, tmp_path, script, option):
    answer = fullrank("run", "--script", tmp_path / script(""), *option)
    assert (answer.code, "needs an experiment: a script's loop is its own" in answer.err) == (2, True)


def test_debug_without_a_terminal_works_too(tmp_path, script):
    words = [sys.executable, "-P", "-m", "launch", "run", "--debug", "--run-dir", "r", "--script", script("print(input())")]
    environment = clean_environment() | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, input="typed\n", capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (done.returncode, done.stdout) == (0, "typed\n")
