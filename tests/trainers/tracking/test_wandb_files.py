"""Copies of W&B's files hold every whole record, whatever its size, and nothing torn."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainers.tracking.wandb_files import _payloads, copy_part, framed, read_records, read_rows


@pytest.mark.parametrize("sizes", [[], [0], [1, 2, 3], [32754], [32761 - 7], [32761], [100_000, 5], [32740, 1, 1, 1], [32768] * 5])
def test_records_of_any_size_come_back_as_they_were(sizes: list[int]) -> None:
    payloads = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    assert list(_payloads(framed(iter(payloads)))) == payloads


def test_a_copy_leaves_out_the_rows_that_were_sent_and_keeps_the_rest(tmp_path: Path) -> None:
    part = write_part(tmp_path / "wandb" / "offline-run-20260101_000000-x", rows=range(5, 12))
    before = part.read_bytes()
    (part.parent / "files").mkdir()
    (part.parent / "files" / "picture.png").write_bytes(b"png")
    copy = copy_part(part, tmp_path / "copies", first_row=9)
    assert [row["_step"] for row in read_rows(copy)] == [9, 10, 11]
    assert [record.run.run_id for record in read_records(copy) if record.HasField("run")] == ["x"]
    assert (copy.parent / "files" / "picture.png").read_bytes() == b"png"
    assert (copy.name, copy.parent.name) == (part.name, part.parent.name)
    assert part.read_bytes() == before


@pytest.mark.parametrize("lost", [1, 3, 8, 200])
def test_a_torn_end_is_not_copied(tmp_path: Path, lost: int) -> None:
    part = write_part(tmp_path / "wandb" / "offline-run-20260101_000000-x", rows=range(20))
    part.write_bytes(part.read_bytes()[:-lost])
    rows = read_rows(part)
    assert 0 < len(rows) < 20
    assert read_rows(copy_part(part, tmp_path / "copies", first_row=0)) == rows


def test_a_file_of_zeros_or_of_something_else_holds_nothing(tmp_path: Path) -> None:
    for number, content in enumerate((b"", bytes(70000), b"hello")):
        part = tmp_path / f"offline-run-{number}-x" / "run-x.wandb"
        part.parent.mkdir()
        part.write_bytes(content)
        assert list(read_records(copy_part(part, tmp_path / f"copies-{number}", first_row=0))) == []


def write_part(folder: Path, rows: range) -> Path:
    """Writes an offline part with a run record and history rows, as W&B frames them."""
    from wandb.proto.wandb_internal_pb2 import Record

    folder.mkdir(parents=True)
    run = Record()
    run.run.run_id = "x"
    payloads = [run.SerializeToString()]
    for row in rows:
        record = Record()
        for key, value in (("_step", row), ("train/loss", 0.5)):
            item = record.history.item.add()
            item.key, item.value_json = key, str(value)
        payloads.append(record.SerializeToString())
    path = folder / "run-x.wandb"
    path.write_bytes(framed(iter(payloads)))
    return path
