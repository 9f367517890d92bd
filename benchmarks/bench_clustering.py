"""Ward's clustering against scikit-learn's, with the same labels.

    pytest benchmarks/bench_clustering.py --benchmark-json=results.json   # pytest-benchmark
    python benchmarks/bench_clustering.py [--largest] [--json FILE]       # ratios, labels, memory

Features are `[n, 512]` float32: blobs, and sparse ones as ReLU and pooling leave them. `--largest`
adds 20,000 samples (minutes). The last rows compare 2,000 groups with the exact labels. Peak memory
(Linux) is that of processes of their own, above what they held before the call.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import workloads
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from pyxai.galleries.clustering import WardClustering

CHANNELS, CLUSTERS = 512, 9
OTHER = "scikit-learn"
KINDS = ["blobs", "rectified"]


def features(kind, count):
    """Samples with clusters that touch; or few hidden causes, mixed, cut off at 0 and averaged."""
    random = np.random.default_rng(0)
    if kind == "blobs":
        centres = random.standard_normal((30, CHANNELS)) * 0.5
        samples = centres[random.integers(0, 30, count)]
        samples += random.standard_normal((count, CHANNELS))
    else:
        causes = random.standard_normal((count, 40)) + random.integers(-1, 2, (count, 1))
        samples = np.maximum(causes @ random.standard_normal((40, CHANNELS)) - 6, 0)
    return samples.astype(np.float32)


SIDES = {
    "pyxai": functools.partial(WardClustering, CLUSTERS),
    OTHER: functools.partial(AgglomerativeClustering, CLUSTERS),
    "pyxai, groups": functools.partial(WardClustering, CLUSTERS, max_exact=2000),
}


# ---- pytest-benchmark ----


@pytest.mark.parametrize("count", [1000, 5000])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", SIDES)
def bench_ward(benchmark, threads, kind, count, side):
    benchmark.group = f"ward {kind} {count} x {CHANNELS} threads={threads}"
    samples = features(kind, count)
    benchmark.pedantic(lambda: SIDES[side]().fit(samples), rounds=3, warmup_rounds=1)


# ---- ratios ----


def peak_memory(side, kind, count, threads):
    """Megabytes at the peak of a call in a process of its own, with its usual allocator."""
    command = [sys.executable, __file__, "--peak-of", side, kind, str(count), str(threads)]
    usual = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=usual).stdout
    return float(output)


def print_peak(side, kind, count, threads):
    torch.set_num_threads(int(threads))
    SIDES[side]().fit(features(kind, 50))  # what the libraries load at their first call
    samples = features(kind, int(count))
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    SIDES[side]().fit(samples)
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    print((peak - before) / 1e6)


def row(kind, count, threads, rounds, ours, other):
    """Seconds of both sides, taken in turn; their ratio; agreement of labels; peak memory."""
    torch.set_num_threads(threads)
    samples, labels = features(kind, count), {}

    def seconds(side):
        start = time.perf_counter()
        labels[side] = SIDES[side]().fit(samples).labels_
        return time.perf_counter() - start

    times = {ours: [], other: []}
    for _ in range(rounds):
        for side, taken in times.items():
            taken.append(seconds(side))
    result = {
        "work": f"ward {kind} {count}x{CHANNELS}",
        "threads": threads,
        "ours": ours,
        "other": other,
        "ours_s": statistics.median(times[ours]),
        "other_s": statistics.median(times[other]),
        "ratio": workloads.ratio(times[other], times[ours]),
        "adjusted_rand_index": adjusted_rand_score(labels[ours], labels[other]),
        "ours_peak_mb": peak_memory(ours, kind, count, threads),
        "other_peak_mb": peak_memory(other, kind, count, threads),
    }
    print(json.dumps(result), flush=True)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--largest", action="store_true", help="also 20,000 samples")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--peak-of", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        print_peak(*arguments.peak_of)
        return
    workloads.keep_allocator_warm()
    counts = [1000, 5000, 20_000] if arguments.largest else [1000, 5000]
    rows = [
        row(kind, count, threads, arguments.rounds if count < 10_000 else 1, "pyxai", OTHER)
        for threads in arguments.threads
        for count in counts
        for kind in KINDS
    ]
    rows += [
        row(kind, counts[-1], arguments.threads[0], 1, "pyxai, groups", "pyxai") for kind in KINDS
    ]
    if arguments.json:
        workloads.save(arguments.json, rows, ["torch", "scikit-learn", "scipy"])


if __name__ == "__main__":
    main()
