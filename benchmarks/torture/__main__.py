"""`python -m benchmarks.torture NAME ...`: what pyxai survives; each prints its figures.

The names are the modules beside this one. None is a benchmark of speed, none touches a file outside
a temporary folder of its own.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main() -> int:
    """Runs one of them."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        sys.stderr.write(f"expected one of {', '.join(names)}, got {sys.argv[1:]}\n")
        return 2
    found: int = importlib.import_module(f"benchmarks.torture.{sys.argv[1]}").main(sys.argv[2:])
    return found


if __name__ == "__main__":
    sys.exit(main())
