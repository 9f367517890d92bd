"""Novelty detectors: what scoring adds to the forward pass, and what a fit takes.

    pytest benchmarks/bench_novelty.py --benchmark-json=results.json   # pytest-benchmark
    python benchmarks/bench_novelty.py [--json FILE] [--rounds N]      # ratios, fits, memory

Scoring: `score_samples` of a batch against the bare forward pass of the same batch, ResNet-18 at
224 pixels, fitted on 50,000 activations of 512 numbers. Fits: 100,000 × 2,048 activations that a
generator hands out 4,096 at a time, with 1,000 classes. Peak memory (Linux) is that of processes of
their own, above what they held before the fit; the floor is one pass over the generator.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import workloads
from resnet import ResNet18

from pyxai import Classifier, NoveltyDetector
from pyxai.classifier import LinearHead
from pyxai.novelty import Activations

SCORED = ["msp", "energy", "gen", "knn", "mahalanobis", "relative_mahalanobis", "vim"]
SCORED += ["react", "ash", "scale", "fdbd"]
FITTED = ["knn", "mahalanobis", "vim"]
KNOWN, ROWS, WIDTH, CLASSES = 50_000, 100_000, 2048, 1000


def synthetic_head(width):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn((CLASSES, width), generator=generator) / width**0.5
    return LinearHead(weight, torch.zeros(CLASSES))


def chunks(count, width, head, size=4096):
    """Activations as a ReLU and an average leave them, with logits; the same pool over and over."""
    generator = torch.Generator().manual_seed(1)
    pool = torch.randn((4 * size, width), generator=generator).abs_()
    logits = pool @ head.weight.T
    for start in range(0, count, size):
        place = start % len(pool)
        some = slice(place, place + min(size, count - start))
        yield Activations(pool[some], logits[some])


def detector_of(method, clf, width, known):
    head = synthetic_head(width)
    detector = NoveltyDetector(clf, method=method, holdout=0.01, progress=False)
    return detector.fit(chunks(known, width, head))


# ---- pytest-benchmark ----


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Classifier(ResNet18().eval())


@pytest.mark.parametrize("images", [1, 16])
@pytest.mark.parametrize("method", ["forward", *SCORED])
def bench_score(benchmark, threads, network, method, images):
    benchmark.group = f"novelty scores, {images} x 224 px threads={threads}"
    batch = torch.randn(images, 3, 224, 224)
    if method == "forward":
        benchmark(lambda: network(batch))
        return
    detector = detector_of(method, network, 512, 5000)
    benchmark(lambda: detector.score_samples(batch))


# ---- ratios ----


def score_rows(rounds):
    """What scoring costs, as a ratio to the forward pass; both sides in turn."""
    torch.manual_seed(0)
    clf = Classifier(ResNet18().eval())
    detectors = {method: detector_of(method, clf, 512, KNOWN) for method in SCORED}
    rows = []
    for images in (1, 16):
        batch = torch.randn(images, 3, 224, 224)
        sides = {"forward": lambda batch=batch: clf(batch)}
        for method, detector in detectors.items():
            ready = next(detector.activations(batch))
            sides[method] = lambda batch=batch, detector=detector: detector.score_samples(batch)
            sides[f"{method} alone"] = lambda ready=ready, score=detector.method_: score(ready)
        times = workloads.in_turn(sides, rounds=rounds)
        work = f"novelty score, resnet18, {images} x 224 px"
        # Ratios are a side's time over that of the forward pass. "alone" is the score of
        # activations that are there already: what it adds, without the noise of a forward pass.
        rows += [workloads.compared(work, times, "forward", side) for side in [*sides][1:]]
    return rows


def fit_rows(rounds):
    """Seconds and peak memory of fits, each in processes of their own."""
    rows = []
    for method in ["floor", *FITTED]:
        runs = [measured(method) for _ in range(max(1, rounds // 5))]
        row = {
            "work": f"novelty fit, {ROWS} x {WIDTH}",
            "method": method,
            "threads": torch.get_num_threads(),
            "seconds": statistics.median(run["seconds"] for run in runs),
            "peak_mb": max(run["peak_mb"] for run in runs),
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def measured(method):
    command = [sys.executable, __file__, "--fit", method, str(torch.get_num_threads())]
    usual = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=usual).stdout
    return json.loads(output)


def fit_here(method, threads):
    """One fit in this process, after a small one that loads what libraries load at first."""
    torch.set_num_threads(threads)
    head = synthetic_head(WIDTH)

    def fit(count):
        if method == "floor":
            return sum(len(chunk) for chunk in chunks(count, WIDTH, head))
        return NoveltyDetector(head, method=method, holdout=0.01, progress=False).fit(
            chunks(count, WIDTH, head)
        )

    fit(3000)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    start = time.perf_counter()
    fit(ROWS)
    seconds = time.perf_counter() - start
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    print(json.dumps({"seconds": seconds, "peak_mb": (peak - before) / 1e6}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=["score", "fit"])
    parser.add_argument("--fit", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fit:
        fit_here(arguments.fit[0], int(arguments.fit[1]))
        return
    workloads.keep_allocator_warm()
    torch.set_num_threads(arguments.threads)
    rows = [] if arguments.only == "score" else fit_rows(arguments.rounds)
    rows += [] if arguments.only == "fit" else score_rows(arguments.rounds)
    if arguments.json:
        workloads.save(arguments.json, rows, ["torch", "numpy", "scikit-learn"])


if __name__ == "__main__":
    main()
