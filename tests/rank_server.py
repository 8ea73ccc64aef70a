"""Forks the ranks that tests/forked_ranks.py asks for, from a process that has imported torch and the trainers once.

Reads one JSON object a line: what to start, or the pid to ask about; answers each with a line.
"""

from __future__ import annotations

import json
import os
import pkgutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import forked


def main() -> None:
    """Answers until the tests are done; what is still running then is theirs to end."""
    orders, answers = os.fdopen(os.dup(0), closefd=False), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # whatever prints must not print into the answers
    ranks: dict[int, forked.Rank] = {}
    with tempfile.TemporaryDirectory(prefix="forked_ranks_") as folder:
        for number, line in enumerate(iter(orders.readline, "")):
            order = json.loads(line)
            if "pid" in order:
                answer: Any = ranks[order["pid"]].poll()
            else:
                if "--strategy" in order["arguments"]:
                    forked.load_engines()
                prepare = pkgutil.resolve_name(order["prepare"]) if order["prepare"] else None
                started = forked.start(order["arguments"], order["num_processes"], Path(folder, str(number)), prepare, **order["environment"])
                ranks |= {rank.pid: rank for rank in started}
                answer = [(rank.pid, str(rank.log)) for rank in started]
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
