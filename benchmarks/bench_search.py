"""Exact search against faiss Flat, scikit-learn and SciPy; the cost of building an index.

    pytest benchmarks/bench_search.py --benchmark-json=results.json    # pytest-benchmark
    python benchmarks/bench_search.py [--json FILE] [--rounds N] [--small]

Rows are `[n, 512]` float32, rectified mixtures as ReLU and pooling leave them; 50 neighbours. Each
side gets the rows as they are and does all its work in the call: norms, copies, indexes. A side
whose package is missing is left out. The share of equal neighbours is given; differences are rows
that are equally far to six digits. Peak memory (Linux) is that of processes of their own, above
what they held before the call. Building is compared with the bare work in the same order: decode,
prepare, forward. Approximate back ends are given with their recall against the exact search.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import workloads
from PIL import Image

import pyxai
from pyxai.images import open_photo
from pyxai.neighbors.distances import as_metric
from pyxai.neighbors.nearest import Matrix, nearest
from pyxai.search.backends import Collection
from pyxai.search.backends.faiss import Faiss
from pyxai.search.backends.lancedb import LanceDB

WIDTH, K = 512, 50
OURS = "pyxai"


def features(count, queries):
    """Few hidden causes, mixed and cut off at 0; queries are of the same kind."""
    random = np.random.default_rng(0)
    causes = random.standard_normal((count + queries, 40)).astype(np.float32)
    mixed = causes @ random.standard_normal((40, WIDTH)).astype(np.float32)
    mixed = np.maximum(mixed - 3, 0)
    return np.ascontiguousarray(mixed[:count]), np.ascontiguousarray(mixed[count:])


def by_pyxai(rows, queries, metric):
    matrix = Matrix([torch.from_numpy(rows)])
    return nearest(torch.from_numpy(queries), matrix, K, as_metric(metric))[1].numpy()


def by_faiss(rows, queries, metric):
    import faiss

    if metric == "cosine":
        rows, queries = rows.copy(), queries.copy()
        faiss.normalize_L2(rows)
        faiss.normalize_L2(queries)
        index = faiss.IndexFlatIP(WIDTH)
    elif metric == "euclidean":
        index = faiss.IndexFlatL2(WIDTH)
    else:
        index = faiss.IndexFlat(WIDTH, faiss.METRIC_Lp)
        index.metric_arg = 3
    index.add(rows)
    return index.search(queries, K)[1]


def by_sklearn(rows, queries, metric):
    from sklearn.neighbors import NearestNeighbors

    options = {"p": 3} if metric == "minkowski" else {}
    found = NearestNeighbors(n_neighbors=K, algorithm="brute", metric=metric, **options)
    return found.fit(rows).kneighbors(queries, return_distance=False)


def by_scipy(rows, queries, metric):
    from scipy.spatial.distance import cdist

    options = {"p": 3} if metric == "minkowski" else {}
    distances = cdist(queries, rows, metric, **options)
    best = np.argpartition(distances, K, axis=1)[:, :K]
    order = np.take_along_axis(distances, best, 1).argsort(axis=1)
    return np.take_along_axis(best, order, 1)


SIDES = {OURS: by_pyxai, "faiss Flat": by_faiss, "scikit-learn": by_sklearn, "scipy": by_scipy}
PACKAGES = {"faiss Flat": "faiss", "scikit-learn": "sklearn", "scipy": "scipy"}


def sides(metric):
    present = [
        name
        for name in SIDES
        if name == OURS or importlib.util.find_spec(PACKAGES[name]) is not None
    ]
    # SciPy takes half a minute for what it shows on a tenth of the work.
    return [name for name in present if metric == "minkowski" or name != "scipy"]


def set_threads(count):
    torch.set_num_threads(count)
    if importlib.util.find_spec("faiss") is not None:
        import faiss

        faiss.omp_set_num_threads(count)


# ---- pytest-benchmark ----


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("side", list(SIDES)[:3])
def bench_search(benchmark, threads, metric, side):
    if side not in sides(metric):
        pytest.skip(f"{PACKAGES[side]} is not installed")
    benchmark.group = f"search 500 of 20000 x {WIDTH} {metric} threads={threads}"
    set_threads(threads)
    rows, queries = features(20_000, 500)
    benchmark.pedantic(lambda: SIDES[side](rows, queries, metric), rounds=3, warmup_rounds=1)


# ---- ratios ----


def peak_memory(side, count, queries, metric, threads):
    """Megabytes at the peak of a call in a process of its own, with its usual allocator."""
    work = map(str, (side, count, queries, metric, threads))
    command = [sys.executable, __file__, "--peak-of", *work]
    usual = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=usual).stdout
    return float(output.split()[-1])


def print_peak(side, count, queries, metric, threads):
    set_threads(int(threads))
    SIDES[side](*features(200, 5), metric)  # what the libraries load at their first call
    rows, asked = features(int(count), int(queries))
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    SIDES[side](rows, asked, metric)
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    print((peak - before) / 1e6)


def compare(count, queries, metric, threads, rounds):
    """A row for each other side: seconds taken in turn, ratio, equal neighbours, memory."""
    set_threads(threads)
    rows, asked = features(count, queries)
    names, found = sides(metric), {}
    times = {name: [] for name in names}
    for _ in range(rounds + 1):  # the first warms up
        for name in names:
            start = time.perf_counter()
            found[name] = SIDES[name](rows, asked, metric)
            times[name].append(time.perf_counter() - start)
    times = {name: taken[1:] for name, taken in times.items()}
    peaks = {name: peak_memory(name, count, queries, metric, threads) for name in names}
    results = []
    for name in names[1:]:
        row = {
            "work": f"{K} nearest, {queries} of {count} x {WIDTH}, {metric}",
            "threads": threads,
            "ours": OURS,
            "other": name,
            "ours_s": statistics.median(times[OURS]),
            "other_s": statistics.median(times[name]),
            "ratio": workloads.ratio(times[name], times[OURS]),
            "equal_neighbours": recall(found[name], found[OURS]),
            "ours_peak_mb": peaks[OURS],
            "other_peak_mb": peaks[name],
        }
        results.append(row)
        print(json.dumps(row), flush=True)
    return results


def recall(found, expected):
    pairs = zip(found, expected, strict=True)
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs]))


def approximate(count, queries, threads):
    """Rows of the approximate back ends: seconds to build and to search, recall."""
    set_threads(threads)
    rows, asked = features(count, queries)
    matrix, query = Matrix([torch.from_numpy(rows)]), torch.from_numpy(asked)
    results = []
    for metric in ("cosine", "euclidean"):
        measure = as_metric(metric)
        nearest(query, matrix, K, measure)  # norms are known from here on
        start = time.perf_counter()
        expected = nearest(query, matrix, K, measure)[1].numpy()
        exact = time.perf_counter() - start
        for backend in (Faiss(), LanceDB()):
            package = type(backend).__name__.lower()
            if importlib.util.find_spec(package) is None:
                continue
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                finder = backend.finder(Collection(matrix, "a", "b", Path(folder)), measure)
                built = time.perf_counter() - start
                start = time.perf_counter()
                found = finder(query, K)[1].numpy()
                row = {
                    "work": f"{K} nearest, {queries} of {count} x {WIDTH}, {metric}",
                    "threads": threads,
                    "ours": package,
                    "other": "exact",
                    "build_s": built,
                    "ours_s": time.perf_counter() - start,
                    "other_s": exact,
                    "recall": recall(found, expected),
                }
            row["ratio"] = row["other_s"] / row["ours_s"]
            results.append(row)
            print(json.dumps(row), flush=True)
    return results


def building(photos, threads, rounds):
    """A row: an index of 8 layers against decoding, preparing and the same forward passes alone."""
    import resnet

    torch.set_num_threads(threads)
    clf = pyxai.Classifier(
        resnet.ResNet18(), preprocessing=pyxai.Preprocessing(resize=256, crop=224)
    )
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(photos):
            noise = Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8))
            noise.resize((500, 375), Image.Resampling.BICUBIC).save(f"{folder}/{number}.jpg")
        paths = sorted(Path(folder).glob("*.jpg"))
        last = []

        def index():
            built = pyxai.ImageIndex.build(clf, folder, progress=False)
            last.append(built.networks[0].layers[-1].name)

        def bare():
            for start in range(0, len(paths), 16):
                some = [clf.preprocessing(open_photo(path)) for path in paths[start : start + 16]]
                clf.activations(torch.stack(some), last[-1])

        times = workloads.in_turn({OURS: index, "bare": bare}, rounds=rounds, seconds=0)
    work = f"index of {photos} photos, ResNet-18, 8 layers"
    return workloads.compared(work, times, OURS, "bare")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--small", action="store_true", help="a tenth of the rows")
    parser.add_argument("--peak-of", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        print_peak(*arguments.peak_of)
        return
    workloads.keep_allocator_warm()
    count = 10_000 if arguments.small else 100_000
    rows = []
    for threads in arguments.threads:
        for metric in ("cosine", "euclidean"):
            rows += compare(count, 500, metric, threads, arguments.rounds)
        rows += compare(10_000, 10, "minkowski", threads, arguments.rounds)
        rows += compare(10_000, 2000, "euclidean", threads, arguments.rounds)
        rows += approximate(count, 500, threads)
        rows.append(building(384, threads, min(3, arguments.rounds)))
    if arguments.json:
        packages = ["torch", "scikit-learn", "scipy", "faiss-cpu", "lancedb"]
        workloads.save(arguments.json, rows, packages)


if __name__ == "__main__":
    main()
