from __future__ import annotations

import errno

import pytest

from launch.rank_log import RankLog, final_text


@pytest.mark.parametrize(
    ("line", "final"),
    [(b"plain", b"plain"), (b"1 %\r2 %\r100 %", b"100 %"), (b"windows\r", b"windows"), (b"\r", b""), (b"", b"")],
)
def test_final_text_is_what_a_terminal_shows_in_the_end(line, final):
    assert final_text(line) == final


def test_file_keeps_final_texts_and_the_terminal_every_byte(tmp_path, capfd):
    log = RankLog(tmp_path / "log", on_terminal=True)
    for data in (b"a\n 10 %|#  |\r 5", b"0 %|## |\r100 %|###|\nlast", b" words"):
        log.write(data)
    log.close()
    assert (tmp_path / "log").read_bytes() == b"a\n100 %|###|\nlast words\n"
    assert capfd.readouterr().err == "a\n 10 %|#  |\r 50 %|## |\r100 %|###|\nlast words"


def test_a_bar_that_never_ends_its_line_does_not_pile_up_in_memory(tmp_path):
    log = RankLog(tmp_path / "log", on_terminal=False)
    for step in range(1000):
        log.write(b"\r" + b"x" * 100 + str(step).encode())
    assert len(log._pending) < 200
    log.close()
    assert (tmp_path / "log").read_bytes() == b"x" * 100 + b"999\n"


def test_last_lines_are_the_newest_twenty(tmp_path):
    log = RankLog(tmp_path / "log", on_terminal=False)
    log.write(b"".join(f"{n}\n".encode() for n in range(50)) + b"\xff bad\n")
    log.close()
    assert log.last_lines == (*(str(n) for n in range(31, 50)), "\ufffd bad")


def test_full_disk_is_told_once_and_ends_nothing(tmp_path, capfd):
    log = RankLog(tmp_path / "log", on_terminal=False)
    log._file.close()
    log._file = _FullDisk()
    for _ in range(3):
        log.write(b"line\n")
    log.close()
    assert capfd.readouterr().err == f"warning: {tmp_path / 'log'} is not written any more: No space left on device\n"
    assert log.last_lines == ("line", "line", "line")


class _FullDisk:
    closed = False

    def write(self, data: bytes) -> int:
        if self.closed:
            raise ValueError("closed")
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        self.closed = True
