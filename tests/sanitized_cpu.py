"""The CPU kernels compiled for the sanitizers of addresses and undefined behavior.

`build` compiles `csrc/` as CMakeLists.txt does, but for those; a process that preloads
`cuda_on_host.address_sanitizer()` may then put the module in the place of `pyxai.ops._cpu`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import platform
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch
from cuda_on_host import ROOT, SANITIZERS, call, compiler, digest

from pyxai.ops import _native

UNITS = (
    "csrc/bind_cpu.cpp",
    "csrc/cam/cam_cpu.cpp",
    "csrc/mask/mask_cpu.cpp",
    "csrc/mask/slopes_cpu.cpp",
    "csrc/mask/learn_cpu.cpp",
    "csrc/windows/crop_cpu.cpp",
    "csrc/windows/heatmap_cpu.cpp",
    "csrc/cpu/dispatch.cpp",
)
# What each set of instructions is compiled for; the first is there on every processor.
SETS = {
    "csrc/cpu/isa_baseline.cpp": (),
    "csrc/cpu/isa_avx2.cpp": ("-march=x86-64-v3",),
    "csrc/cpu/isa_avx512.cpp": ("-march=x86-64-v4", "-mprefer-vector-width=512"),
    "csrc/cpu/isa_avx512vbmi.cpp": (
        *("-march=x86-64-v4", "-mavx512vbmi"),
        "-mprefer-vector-width=512",
    ),
}
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-fopenmp", *SANITIZERS)
# Positions become indices: those that an index cannot hold are a fault, too.
CASTS = ("-fsanitize=float-cast-overflow",)
KERNEL_FLAGS = ("-ffp-contract=fast", "-fno-math-errno")


def build() -> Path:
    """Compiles the module, unless that was done before; returns its path."""
    sets = dict(SETS)
    flags = [*FLAGS, *CASTS]
    if platform.machine() in ("x86_64", "AMD64"):
        flags.append("-DPYXAI_X86_UNITS")
    else:
        sets = {"csrc/cpu/isa_baseline.cpp": ()}
    # torch brings the headers of pybind11 along.
    includes = [Path(torch.__file__).parent / "include", Path(sysconfig.get_path("include"))]
    command = [compiler(), *flags, *(part for each in includes for part in ("-isystem", str(each)))]
    units = {**dict.fromkeys(UNITS, ()), **{unit: (*KERNEL_FLAGS, *sets[unit]) for unit in sets}}
    key = digest([*command, *(part for unit, more in units.items() for part in (unit, *more))])
    folder = Path(tempfile.gettempdir()) / f"pyxai-cpu-sanitized-{os.getuid()}" / key
    module = folder / "_cpu.so"
    if module.exists():
        return module
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        objects = [str(Path(work) / f"{i}.o") for i in range(len(units))]
        calls = [
            [*command, *more, "-c", str(ROOT / unit), "-o", out]
            for (unit, more), out in zip(units.items(), objects, strict=True)
        ]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(call, calls))
        call([compiler(), *flags, "-shared", *objects, "-o", f"{work}/_cpu.so"])
        Path(work, "_cpu.so").replace(module)  # whole or not at all
    return module


@contextlib.contextmanager
def in_place_of_the_cpu(module: ModuleType) -> Iterator[None]:
    """Calls go to the kernels of this module."""
    before = _native.cpu
    try:
        _native.cpu = module
        yield
    finally:
        _native.cpu = before
