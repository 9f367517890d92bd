"""Files of every kind, damaged: an error that names them, or the same contents."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1]))
files = pytest.importorskip("benchmarks.torture.files")


@pytest.mark.slow
def test_no_damage_passes_for_other_contents():
    pytest.importorskip("skops")
    said = []
    found = files.torture(6 * len(files.KINDS), 0, [*files.KINDS], said.append)
    assert said == []
    assert all(sum(counts.values()) == 6 for counts in found.values())
    assert sum(counts["error"] for counts in found.values()) > 5 * len(files.KINDS)


def test_damage_is_damage():
    content = random.Random(1).randbytes(5000)
    ways = set()
    for number in range(100):
        way, other = files.damaged(content, random.Random(number))
        ways.add(way)
        assert other != content or way in ("zeros", "swap", "lost", "twice")
    assert len(ways) == 8


WORKER = """
import json, os, signal, sys, time
for case in range(int(sys.argv[1]), 4):
    print(json.dumps({"case": case, "kind": "x"}), flush=True)
    if case == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if case == 2:
        time.sleep(100)
    print(json.dumps({"case": case, "what": "same"}), flush=True)
"""


def test_what_kills_a_reader_is_noticed(monkeypatch):
    monkeypatch.setattr(files, "_PATIENCE", 2.0)
    found = files.watched(lambda case: ["-c", WORKER, str(case)], 4)
    assert [each["what"] for each in found] == ["same", "CRASH", "HANG", "same"]
