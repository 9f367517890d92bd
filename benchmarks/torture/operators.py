"""Many unfit and fit calls of the native operators, in processes that may crash.

    python -m benchmarks.torture operators --calls 500000 --seed 0

See tests/fuzz_operators, which makes the calls and knows what must come of each.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """The command line."""
    sys.path.append(str(Path(__file__).parents[2] / "tests"))
    sys.argv[1:] = arguments
    try:
        runpy.run_module("fuzz_operators", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code)
        return int(ended.code not in (None, 0))
    return 0
