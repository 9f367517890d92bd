"""Many calls of the native operators at random, in a process of their own.

    PYTHONPATH=tests python -m fuzz_operators --calls 500000 --seed 0
    PYTHONPATH=tests python -m fuzz_operators --seed 0 --only 1234    # one of them, here

`--sanitize` builds the kernels of the CPU for the sanitizers of addresses and undefined behavior,
`--cuda-on-host` runs those of CUDA on the host.
"""

from __future__ import annotations

import argparse
import sys

from fuzz_operators.many import Kernels, run_here, run_many

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first call")
    parser.add_argument("--only", type=int, help="the number of the only call")
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument("--cuda-on-host", action="store_true")
    given = parser.parse_args()
    kernels = Kernels(sanitize=given.sanitize, cuda_on_host=given.cuda_on_host)
    if given.only is not None:
        sys.exit(run_here(given.seed, given.only))
    report = run_many(given.calls, given.seed, first=given.first, kernels=kernels)
    print(report)  # noqa: T201
    sys.exit(bool(report.faults))
