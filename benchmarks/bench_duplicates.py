"""Grouping 100,000 hashes: CPU time, and memory for growing numbers.

    python benchmarks/bench_duplicates.py [--json FILE] [--rounds N]

Synthetic hashes of 64 bits; one in ten is a copy of another with up to six bits changed. Measured
is what `find_duplicates` does once photos are hashed: near pairs, matches, groups. Peak memory is
that above the records themselves, in a process of its own.
"""

from __future__ import annotations

import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import workloads

from pyxai.curate.duplicates.grouping import group_photos
from pyxai.curate.duplicates.matching import alike, by_hash
from pyxai.curate.duplicates.records import Record


def records_of(count):
    """Photos that have been hashed, a tenth of them near-duplicates."""
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, count, np.uint64, endpoint=False)
    copies = count // 10
    hashes[:copies] = hashes[copies : 2 * copies]
    for _ in range(6):
        hashes[:copies] ^= np.uint64(1) << random.integers(0, 64, copies).astype(np.uint64)
    return [
        Record(f"/photos/{place}.jpg", 1000, 0, str(place), str(place), 100, 100, 50.0, {"p": [v]})
        for place, v in enumerate(hashes.tolist())
    ]


def grouped(records, most):
    same = alike(records, "pixels")
    matches = by_hash(records, same, "p", most, orientations=False)
    return group_photos(records, matches, Path("/photos"))


def measure(rounds):
    rows = []
    records = records_of(100_000)
    for most in (0, 4, 7, 8, 10):
        times = []
        for _ in range(rounds):
            start = time.process_time()
            found = grouped(records, most)
            times.append(time.process_time() - start)
        row = {"hashes": len(records), "max_bits": most, "cpu_s": statistics.median(times)}
        row["groups"] = len(found)
        print(
            "{hashes} hashes, {max_bits:2} bits: {cpu_s:5.2f} s CPU, {groups} groups".format(**row)
        )
        rows.append(row)
    for count in (25_000, 100_000, 400_000):
        code = f"import bench_duplicates as b; b.peak({count})"
        command = [sys.executable, "-c", code]
        here = Path(__file__).parent
        output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=here)
        row = {"hashes": count, "max_bits": 7, "peak_mb": float(output.stdout)}
        print("{hashes} hashes, {max_bits:2} bits: {peak_mb:5.0f} MB".format(**row))
        rows.append(row)
    return rows


def peak(count):
    """Prints the peak memory of grouping so many hashes, in MB."""
    records = records_of(count)
    gc.collect()
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    grouped(records, 7)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            print(json.dumps(int(line.split()[1]) * 1024 / 1e6 - before / 1e6))


if __name__ == "__main__":
    workloads.command_line(__doc__, measure, rounds=3)
