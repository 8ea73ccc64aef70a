from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from launch.config.run_dir import RunDir
from launch.identity import compare_records, compare_runs, compare_weights, read_header


def weights(path: Path, **tensors: tuple[str, list[int], bytes]) -> Path:
    """Writes a safetensors file by hand."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def record(step: int, split: str = "train", **values: float) -> dict[str, object]:
    return {"step": step, "split": split, "time": step * 1.5, **values}


@pytest.mark.parametrize("same", [{"time": 9.0}, {"seconds": 3.0}, {"samples_per_second": 5.0}, {"attempt": 2}])
def test_time_and_attempt_are_no_difference(same):
    assert list(compare_records([record(1, loss=0.5)], [record(1, loss=0.5) | same])) == []


def test_last_bit_of_a_loss_is_a_difference_with_its_step():
    (found,) = compare_records([record(1, loss=0.5), record(2, loss=0.1)], [record(1, loss=0.5), record(2, loss=0.1 + 2**-56)])
    assert (found.where, found.what) == ("step 2, train", "loss")


def test_step_that_is_missing_or_there_twice_is_found():
    once = [record(1), record(2), record(2, "validation")]
    assert [str(found) for found in compare_records(once, once[:2])] == ["step 2, validation: record: there became missing"]
    assert [str(found) for found in compare_records(once, [*once, record(2)])] == ["metrics.jsonl: records: 3 steps became 4 lines"]


def test_tensors_are_found_where_they_lie_and_compared_bit_by_bit(tmp_path):
    before = weights(tmp_path / "a.safetensors", w=("F32", [2], b"\0" * 8), b=("F32", [1], b"1234"), c=("I64", [1], b"\0" * 8))
    now = weights(tmp_path / "b.safetensors", b=("F32", [1], b"1235"), w=("F32", [2], b"\0" * 8), c=("I32", [2], b"\0" * 8), d=("F32", [0], b""))
    assert before.read_bytes()[read_header(before)["b"].start :][:4] == b"1234"
    count, found = compare_weights(before, now, "model.safetensors")
    assert count == 3
    assert [str(difference) for difference in found] == [
        "model.safetensors: b: one value became another",
        "model.safetensors: c: I64 [1] became I32 [2]",
        "model.safetensors: d: missing became there",
    ]


def test_whole_runs_are_compared_with_their_models_and_last_checkpoints(tmp_path):
    runs = []
    for name, content in (("whole", b"1234"), ("stopped", b"5678")):
        run = RunDir(tmp_path / name)
        weights(run.model / "model.safetensors", w=("F32", [1], b"same"))
        weights(run.checkpoints / "checkpoint-2" / "model.safetensors", w=("F32", [1], content))
        (run.checkpoints / "checkpoint-2" / "manifest.json").write_text('{"files": {}}')
        run.metrics.write_text(json.dumps(record(1, loss=0.5)) + "\n")
        runs.append(run)
    comparison = compare_runs(*runs)
    assert (comparison.num_records, comparison.num_tensors) == (1, 2)
    assert [str(found) for found in comparison.differences] == ["checkpoints/checkpoint-2/model.safetensors: w: one value became another"]


def test_model_that_is_missing_is_a_difference(tmp_path):
    whole, stopped = RunDir(tmp_path / "whole"), RunDir(tmp_path / "stopped")
    weights(whole.model / "model.safetensors", w=("F32", [1], b"same"))
    assert [str(found) for found in compare_runs(whole, stopped).differences] == ["model/model.safetensors: file: there became missing"]
