"""What starting costs: imports on top of torch's, and the help of the command line.

    python benchmarks/bench_startup.py --rounds 9

Each in processes of its own, one after the other, in turn; the median of the wall-clock times.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

STARTS = {
    "import torch": "import torch",
    "import torch, pyxai": "import torch, pyxai",
    "and pyxai.cam": "import torch, pyxai; pyxai.cam",
    "and a classifier": "import torch, pyxai; pyxai.cam; pyxai.load_classifier('demo')",
    "and every public name": "import torch, pyxai; [getattr(pyxai, a) for a in pyxai.__all__]",
    "pyxai --help": "import sys; sys.argv = ['pyxai', '--help']; import pyxai.cli as c; c.main()",
}


def seconds(code: str) -> float:
    """How long a process takes that runs the code."""
    start = time.perf_counter()
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=tempfile.gettempdir(), stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    taken: dict[str, list[float]] = {name: [] for name in STARTS}
    for number in range(rounds + 1):
        for name, code in STARTS.items():
            took = seconds(code)
            if number:  # the first round warms the disk
                taken[name].append(took)
    medians = {name: statistics.median(each) for name, each in taken.items()}
    base = medians["import torch"]
    for name, median in medians.items():
        more = "" if name in ("import torch", "pyxai --help") else f"  {median - base:+.2f} s"
        print(f"{name:22} {median:.2f} s{more}")


if __name__ == "__main__":
    main()
