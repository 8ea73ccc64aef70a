"""Memory that a step frees is there for the next one, without the system's pages being touched anew."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.ranks import ROOT, clean_environment

COUNT = """
import resource
block = bytearray(64 << 20)
del block
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
block = bytearray(64 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize(("begin", "least", "most"), [("", 10_000, 20_000), ("from trainers.host_memory import keep_freed_memory as k; k()", 0, 200)])
def test_a_block_that_was_freed_is_taken_again_without_page_faults(begin: str, least: int, most: int) -> None:
    environment = clean_environment() | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-P", "-c", begin + COUNT], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert least <= int(done.stdout) <= most
