"""tools/cuda_resources.py: what it reads of nvcc's words."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parent.parent / "tools" / "cuda_resources.py"
if not TOOL.exists():
    pytest.skip("no tools folder beside the tests", allow_module_level=True)

SAID = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z5firstv' for 'sm_80'
ptxas info    : Function properties for _Z5firstv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 512 bytes smem, 536 bytes cmem[0]
ptxas info    : Compiling entry function '_Z6secondv' for 'sm_90a'
ptxas info    : Function properties for _Z6secondv
    8 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 40 registers, 536 bytes cmem[0]
"""


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("cuda_resources", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules["cuda_resources"] = module
    spec.loader.exec_module(module)
    return module


def test_what_nvcc_says(tool):
    first, second = tool.parse("a.cu", SAID, {"_Z5firstv": "first"})
    assert (first.name, first.architecture, first.registers, first.shared) == (
        "first",
        "80",
        32,
        512,
    )
    assert (second.name, second.architecture, second.registers) == ("_Z6secondv", "90", 40)
    assert (second.shared, second.stack, second.stores, second.loads) == (0, 8, 8, 4)
    assert tool.summary([first, second]) == [("80", 1, 32, 512, 0), ("90", 1, 40, 0, 1)]


def test_spills_are_found_unless_allowed(tool):
    kernels = tool.parse("a.cu", SAID)
    assert [kernel.name for kernel in tool.spilling(kernels)] == ["_Z6secondv"]
    assert tool.spilling(kernels, {"second": 8}) == []
    assert len(tool.spilling(kernels, {"second": 4})) == 1


def test_other_words_are_an_error(tool):
    with pytest.raises(ValueError, match="expected registers and spills of _Z5firstv"):
        tool.parse("a.cu", SAID.replace("registers", "REG"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_no_kernel_spills(tool, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cuda_resources", "--architectures", "90"])
    assert tool.main() == 0
    assert "slopes_kernel" in capsys.readouterr().out
