"""How ranks leave, as real processes: what a library does while the process goes away does not undo a training that is done."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.ranks import TIMEOUT_S, start_ranks
from tests.tiny_pictures import tiny_folder

pytestmark = pytest.mark.integration

ABORTS_AT_EXIT = """\
import atexit, ctypes, os
from trainers.architectures.small_cnn import SmallCnn

libc = ctypes.CDLL(None)
libc.__cxa_atexit(libc.abort, None, None)  # in place of gloo's threads, which abort once in thousands of ends
atexit.register(print, "exit handlers of rank", os.environ["RANK"])

class Net(SmallCnn):
    pass
"""


def test_a_library_that_aborts_at_the_end_of_the_process_fails_no_training(tmp_path: Path) -> None:
    (tmp_path / "aborting_net.py").write_text(ABORTS_AT_EXIT)
    values = {
        "name": "leaving",
        "model": {"class": "aborting_net:Net", "kwargs": {"channels": 3, "size": 16}},
        "task": {"kind": "image_classification", "size": 16},
        "data": {"source": str(tiny_folder(tmp_path / "pictures", num_each=4)), "splits": {"validation": "val"}, "num_workers": 0},
        "train": {"duration": "2 steps", "global_batch_size": 4},
        "optimizer": {"lr": 0.01},
        "tracking": {"wandb": {"mode": "disabled"}},
    }
    (tmp_path / "leaving.yaml").write_text(yaml.safe_dump(values))
    ranks = start_ranks(["--config", str(tmp_path / "leaving.yaml"), "--run-dir", str(tmp_path / "run")], 2)
    outputs = [rank.communicate(timeout=TIMEOUT_S)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(outputs)
    assert all(f"{name}  {tmp_path}/run/{name.strip()}" in outputs[0] for name in ("model     ", "report    "))
    assert [f"exit handlers of rank {rank}" in output for rank, output in enumerate(outputs)] == [True, True]
