from __future__ import annotations

from bdb import BdbQuit
from pathlib import Path

from launch.config.run_dir import RunDir, read_json
from trainers.crash import CrashReport


def test_quitting_the_debugger_is_said_in_a_line_and_in_the_report(tmp_path: Path, capsys) -> None:
    attempt = RunDir(tmp_path).attempt(1)
    assert CrashReport(0, attempt).write(BdbQuit()) == 1
    assert capsys.readouterr().err == "error: the training was ended from the debugger\n"
    assert read_json(attempt.rank_failure(0))["message"] == "the training was ended from the debugger"
