"""Calls of the operators at random, fit and unfit ones, against what must come of them."""

from __future__ import annotations

import os

import pytest
from fuzz_operators.many import Kernels, run_many


@pytest.mark.slow
def test_calls_at_random():
    sanitize = os.environ.get("PYXAI_SANITIZE") == "1"
    calls = 20_000 if sanitize else 2_000
    report = run_many(calls, 0, kernels=Kernels(sanitize=sanitize))
    assert report.calls == calls
    assert not report.faults, report
