"""Marks of tests that need a CUDA device and the kernels built for it."""

from __future__ import annotations

import pytest

from pyxai.ops import _native

_PROBLEM = _native.cuda_status()["problem"]
on_cuda = [pytest.mark.cuda, pytest.mark.skipif(_PROBLEM is not None, reason=f"CUDA: {_PROBLEM}")]
