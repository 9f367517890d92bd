"""`pyxai.accelerate` against the plain network: forward passes and maps.

    pytest benchmarks/bench_acceleration.py --benchmark-json=results.json   # every row
    python benchmarks/bench_acceleration.py [--model NAME] [--json FILE]    # the ratios, in turn

Every time is divided by that of the plain float32 network's forward without gradients. Without
`--model` the network is that of resnet.py; a name is one of torchvision's, with random weights.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import pytest
import torch
import workloads
from resnet import ResNet18

import pyxai
from pyxai.engines.torch import accelerate

DTYPES = (torch.float32, torch.bfloat16)


def network(name=None):
    if name is None:
        return ResNet18().eval()
    import torchvision

    return torchvision.models.get_model(name, weights=None).eval()


def sides(model, batch, size=224, dtypes=DTYPES):
    """The plain forward, and for each dtype the fast forward and `pyxai.cam` on the fast copy."""
    images = torch.randn(batch, 3, size, size)

    def forward(network):
        def call():
            with torch.no_grad():
                return network(images)

        return call

    calls = {"forward": forward(model)}
    for dtype in dtypes:
        name = str(dtype).removeprefix("torch.")
        fast = accelerate(model, dtype=None if dtype == torch.float32 else dtype)
        calls[f"fast forward {name}"] = forward(fast)
        calls[f"pyxai.cam on fast {name}"] = lambda fast=fast: pyxai.cam(fast, images)
    return calls


# ---- pytest-benchmark ----


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("side", ["forward", "fast forward", "pyxai.cam on fast"])
def bench_accelerated(benchmark, threads, batch, dtype, side):
    benchmark.group = f"ResNet-18, batch {batch}, {dtype}, threads={threads}"
    name = side if side == "forward" else f"{side} {str(dtype).removeprefix('torch.')}"
    benchmark(sides(network(), batch, dtypes=(dtype,))[name])


# ---- ratios ----


def measure(model, work, rounds, batches=(1, 16)):
    """Rows (work, threads, side, s, ratio to the plain forward, its quartiles over the rounds)."""
    rows = []
    for count in (1, 2):
        torch.set_num_threads(count)
        for batch in batches:
            number = rounds if batch == 1 else max(rounds // 3, 5)
            calls = sides(model, batch)
            times = workloads.in_turn(calls, rounds=number, seconds=0.2 if batch == 1 else 0.01)
            for side in calls:
                shares = [a / b for a, b in zip(times[side], times["forward"], strict=True)]
                low, middle, high = statistics.quantiles(shares, n=4)
                rows.append(
                    {
                        "work": f"{work}, batch {batch}",
                        "threads": count,
                        "side": side,
                        "ms": 1e3 * statistics.median(times[side]),
                        "ratio": middle,
                        "low": low,
                        "high": high,
                    }
                )
                print(
                    "{work:28} {threads} thr  {side:28} {ms:9.1f} ms  {ratio:5.2f} x plain forward "
                    "({low:.2f} to {high:.2f})".format(**rows[-1]),
                    flush=True,
                )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a name of torchvision's")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--rounds", type=int, default=21)
    arguments = parser.parse_args()
    workloads.keep_allocator_warm()
    rows = measure(network(arguments.model), arguments.model or "ResNet-18", arguments.rounds)
    if arguments.json:
        workloads.save(arguments.json, rows, ["torch"])


if __name__ == "__main__":
    main()
