"""Other processes of this Python that see the packages which this one sees."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import Any


def python(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Starts this Python in a folder where no checkout stands in for what was installed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=tempfile.gettempdir(),
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )
