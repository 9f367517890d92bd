"""Many calls from eight threads on one model: does memory grow, does a map ever differ?

    python benchmarks/soak.py [--calls 10000]

Each call takes one of 40 requests (image, target, method) and compares its map with the one that
was computed alone. Prints resident memory and the number of live tensors on the way; exit code 1 if
a map differs, or if memory after the last call is more than 5 % above that after the first tenth.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

import pyxai

THREADS = 8
METHODS = ["auto", "gradcam", "layercam", "gradcam++", "eigencam", ["hirescam", "xgradcam"]]


def resident_megabytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def live_tensors() -> int:
    gc.collect()
    return sum(isinstance(each, torch.Tensor) for each in gc.get_objects())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=10_000)
    calls = parser.parse_args().calls
    warnings.simplefilter("ignore")  # of looking at every object there is
    torch.set_num_threads(1)
    linear = pyxai.load_classifier("demo").model
    perceptron = pyxai.load_classifier("demo").model
    perceptron.head = torch.nn.Sequential(
        torch.nn.Linear(160, 32), torch.nn.GELU(), torch.nn.Linear(32, 6)
    ).eval()
    generator = torch.Generator().manual_seed(0)
    requests = []
    for index in range(40):
        images = torch.randn(1 + index % 2, 3, 64 + 16 * (index % 3), 64, generator=generator)
        requests.append(
            {
                "model": perceptron if index % 4 == 3 else linear,
                "images": images,
                "target": (None, index % 6, [[0, 5]])[index % 3],
                "method": METHODS[index % len(METHODS)],
            }
        )

    def flat(maps: object) -> list[torch.Tensor]:
        return list(maps.values()) if isinstance(maps, dict) else [maps]

    expected = [flat(pyxai.cam(**request)) for request in requests]
    differing = threading.Semaphore(0)

    def call(index: int) -> None:
        place = index % len(requests)
        if not all(map(torch.equal, flat(pyxai.cam(**requests[place])), expected[place])):
            differing.release()

    memory = []
    with ThreadPoolExecutor(THREADS) as pool:
        step = max(1, calls // 10)
        for start in range(0, calls, step):
            list(pool.map(call, range(start, min(start + step, calls))))
            memory.append(resident_megabytes())
            print(
                f"{min(start + step, calls):6} calls  {memory[-1]:7.1f} MB  "
                f"{live_tensors()} tensors  {differing._value} maps differ",
                flush=True,
            )
    hooks = sum(len(m._forward_hooks) for m in [*linear.modules(), *perceptron.modules()])
    print(f"hooks left: {hooks}")
    return int(differing._value > 0 or hooks > 0 or memory[-1] > 1.05 * memory[0])


if __name__ == "__main__":
    sys.exit(main())
