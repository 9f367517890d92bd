"""Devices, instruction sets and threads as fixtures, so that one suite covers them all."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cuda_on_host
import numpy as np
import pytest
import torch
from networks import SmallNet
from on_cuda import on_cuda
from skips import pytest_addoption, pytest_sessionfinish, pytest_terminal_summary  # noqa: F401
from train_photos import COLORS, photo

from pyxai.cli import main
from pyxai.ops import _native

_CUDA = pytest.param("cuda", marks=on_cuda)

# The first backward pass of a process starts a thread for each GPU, and where torch.export was used
# before it, for one that is made up; after that, processes that are forked could take no gradients.
torch.ones(1, requires_grad=True).sum().backward()


@pytest.fixture(params=["cpu", _CUDA])
def device(request):
    """The CPU and, where there is one, the CUDA device."""
    return torch.device(request.param)


@pytest.fixture(scope="session")
def host_module():
    """The CUDA kernels compiled for the host; skips where they cannot be built."""
    given = os.environ.get("PYXAI_CUDA_HOST_MODULE")  # of test_cuda_host.py: one with sanitizers
    try:
        return cuda_on_host.load(Path(given) if given else cuda_on_host.build())
    except cuda_on_host.CannotBuild as error:
        pytest.skip(f"CUDA kernels on the host: {error}")


@pytest.fixture(scope="session")
def watched_module():
    """Those with which a launch fails where two threads race; skips as above."""
    try:
        return cuda_on_host.load(cuda_on_host.build(watch="races"))
    except cuda_on_host.CannotBuild as error:
        pytest.skip(f"CUDA kernels on the host: {error}")


@pytest.fixture
def cuda_host(host_module):
    """Puts the CUDA kernels, run on the host, in the place of the CPU's."""
    with cuda_on_host.in_place_of_the_cpu(host_module) as kernels:
        yield kernels


@pytest.fixture
def watched_cuda_host(watched_module):
    """The same, with a launch that fails where two threads race."""
    with cuda_on_host.in_place_of_the_cpu(watched_module) as kernels:
        yield kernels


@pytest.fixture(params=["baseline", "avx2", "avx512", "avx512vbmi", "cuda-on-host", _CUDA])
def kernels(request):
    """The device of each set of kernels: the CPU with each instruction set, and CUDA.

    With `cuda-on-host` the tensors are on the CPU and the CUDA kernels run there.
    """
    if request.param == "cuda":
        yield torch.device("cuda")
        return
    if request.param == "cuda-on-host":
        request.getfixturevalue("cuda_host")
        yield torch.device("cpu")
        return
    if request.param not in _native.cpu.simd_levels():
        pytest.skip(f"this processor has no {request.param}")
    before = _native.cpu.simd_level()
    _native.cpu.set_simd_level(request.param)
    yield torch.device("cpu")
    _native.cpu.set_simd_level(before)


@pytest.fixture
def threads():
    """Sets the number of torch threads; the one in use is put back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def small_net():
    """A residual network with batch norm, in-place ReLU, GAP + linear; 7 classes, stride 8."""
    return SmallNet().eval()


@pytest.fixture
def one_thread(threads):
    """So small a network is no faster with more."""
    threads(1)


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    """`train` and `valid` with photos of coloured squares in two sizes, a folder each colour."""
    root, random = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    for part, count in (("train", 8), ("valid", 4)):
        for name, color in COLORS.items():
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                size = (40, 36) if number % 2 else (44, 40)
                photo(color, size, random).save(root / part / name / f"{number}.png")
    return root


@pytest.fixture
def mixed(tmp_path):
    """Two classes with good photos, a small one, a broken one, and files that are no photos."""
    random = np.random.default_rng(1)
    for name in ("blue", "red"):
        (tmp_path / name).mkdir()
        for number in range(5):
            photo(COLORS[name], (32, 30), random).save(tmp_path / name / f"{number}.png")
    photo(COLORS["red"], (40, 20), random).save(tmp_path / "red" / "small.png")
    (tmp_path / "blue" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    (tmp_path / "blue" / "notes.txt").write_text("no photo")
    (tmp_path / ".cache").mkdir()
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Runs `pyxai ...` in a folder of its own: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["pyxai", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        code = stopped.value.code
        captured = capsys.readouterr()
        return code or 0, captured.out, captured.err

    return call
