"""tools/native_stubs.py: the stubs say what the compiled modules do."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from pyxai.ops import _native

TOOL = Path(__file__).resolve().parent.parent / "tools" / "native_stubs.py"
if not TOOL.exists():
    pytest.skip("no tools folder beside the tests", allow_module_level=True)


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("native_stubs", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_of_the_cpu(tool):
    assert tool.STUBS["_cpu"].read_text("utf-8") == tool.stub(_native.cpu)


def test_of_cuda(tool, host_module):
    assert tool.STUBS["_cuda"].read_text("utf-8") == tool.stub(host_module)


def test_of_cuda_as_it_was_built(tool):
    module = pytest.importorskip("pyxai.ops._cuda")
    assert tool.STUBS["_cuda"].read_text("utf-8") == tool.stub(module)


def kernels(stub):
    """Of each function with scratch memory, its arguments before that."""
    return dict(re.findall(r"^def (\w+)\(([^)]*)workspace: int", stub, re.MULTILINE))


def test_both_take_the_same_fields(tool):
    cpu, cuda = (kernels(path.read_text("utf-8")) for path in tool.STUBS.values())
    assert "maps: int" in cpu["cam_render"]
    assert cpu == cuda
