"""The examples run as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pyxai

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments", "says"),
    [
        ("service.py", ["--check", "24"], "24 requests from 8 clients, each answer as computed"),
        ("inference_loop.py", ["--batches", "2"], "ms an image, explained"),
        ("inference_loop.py", ["--batches", "2", "--dtype", "bfloat16"], "ms an image, explained"),
    ],
)
def test_example(script, arguments, says, tmp_path):
    package = str(Path(pyxai.__file__).parents[1])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert says in result.stdout
