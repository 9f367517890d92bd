"""The CUDA kernels compiled for the host by a C++ compiler, as the ordinary tests run them.

`load` builds `csrc/` against the stand-ins in `tests/cuda_host/`, once for each state of the
sources; `Kernels` then takes the place of `pyxai.ops._cpu`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import torch

from pyxai.ops import _native

ROOT = Path(__file__).resolve().parent.parent
UNITS = (
    "csrc/cam/cam.cu",
    "csrc/mask/mask.cu",
    "csrc/windows/windows.cu",
    "csrc/bind_cuda.cpp",
    "tests/cuda_host/scheduler.cpp",
)
KERNEL_UNITS = 3  # the first of them
RENAME = ".bss=cuda_shared,alloc,load,data,contents"
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off")
# The compiler calls a function before each access, of one of the units that watch.
WATCHED = ("-g", "-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0")
WATCHERS = {
    "races": ("tests/cuda_host/races.cpp", "tests/cuda_host/racy_kernels.cpp"),
    "traffic": ("tests/cuda_host/traffic.cpp",),
}
# Red zones lie around shared memory too. Misaligned vector loads are undefined behaviour.
SANITIZERS = (
    "-g",
    "-fsanitize=address,undefined",
    "-fno-sanitize=vptr",
    "-fno-sanitize-recover=undefined",
)
# Host code of the CPU module that CUDA uses too.
WITHOUT_KERNEL = ("survey_boxes", "simd_levels", "simd_level", "set_simd_level")
MAX_CHANNELS = 64  # kMaxChannels of csrc/windows/windows.h
CHANNELS = 6  # where they are among the fields of CropArgs


class CannotBuild(RuntimeError):
    """This machine lacks what the build needs."""


def compiler() -> str:
    """The C++ compiler: of the environment variable CXX, else g++."""
    found = shutil.which(os.environ.get("CXX", "g++"))
    if found is None:
        raise CannotBuild("no C++ compiler (g++, or the one that CXX names)")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        raise CannotBuild("no Python.h")
    if not (ROOT / "csrc").is_dir():
        raise CannotBuild("no csrc folder beside the tests")
    return found


def objcopy() -> str:
    """The tool of binutils, which comes with every g++."""
    found = shutil.which("objcopy")
    if found is None:
        raise CannotBuild("no objcopy (binutils)")
    return found


def address_sanitizer() -> str:
    """What a process preloads to load a module built with `sanitize`: libraries.

    That of C++ is among them because the sanitizer looks for what throws when it starts.
    """
    names = ("libasan.so", "libstdc++.so.6")
    return " ".join(call([compiler(), f"-print-file-name={name}"]).strip() for name in names)


def digest(command: list[str]) -> str:
    state = hashlib.sha256("\0".join([*command, torch.__version__]).encode())
    for folder in ("csrc", "tests/cuda_host"):
        for path in sorted((ROOT / folder).rglob("*.*")):
            state.update(path.read_bytes())
    return state.hexdigest()[:16]


def build(sanitize: bool = False, watch: str | None = None) -> Path:
    """Compiles the module, unless that was done before; returns its path.

    Args:
        sanitize: for the sanitizers of addresses and undefined behaviour.
        watch: "races": a launch fails where two threads meet in memory without a barrier between
            them; "traffic": what launches ask of memory is counted.
    """
    flags = [*FLAGS, *(SANITIZERS if sanitize else ())]
    kernels = [*UNITS[:KERNEL_UNITS]]
    others = [*UNITS[KERNEL_UNITS:]]
    watched: tuple[str, ...] = ()
    if watch is not None:
        if "clang" in call([compiler(), "--version"]):  # has other calls
            raise CannotBuild("accesses to memory are watched by what g++ compiles")
        watched = (*WATCHED, f"-DCUDA_HOST_TRAFFIC={int(watch == 'traffic')}")
        others += ["tests/cuda_host/accesses.cpp", WATCHERS[watch][0]]
        kernels += WATCHERS[watch][1:]
    # torch brings the headers of pybind11 along.
    includes = [ROOT / "tests/cuda_host", Path(torch.__file__).parent / "include"]
    includes += [Path(sysconfig.get_path("include"))]
    command = [compiler(), *flags, *(f"-I{each}" for each in includes[:1])]
    command += [part for each in includes[1:] for part in ("-isystem", str(each))]
    key = digest([*command, *kernels, *watched, *others])
    folder = Path(tempfile.gettempdir()) / f"pyxai-cuda-host-{os.getuid()}" / key
    module = folder / "_cuda.so"
    if module.exists():
        return module
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        units = [*kernels, *others]
        objects = [str(Path(work) / f"{i}.o") for i in range(len(units))]
        calls = [
            [*command, *watched * (unit in kernels), "-x", "c++", "-c", str(ROOT / unit), "-o", out]
            for unit, out in zip(units, objects, strict=True)
        ]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(call, calls))
        if not sanitize:
            for out in objects[: len(kernels)]:  # their only variables are shared memory
                call([objcopy(), "--rename-section", RENAME, out])
        call([compiler(), *flags, "-shared", *objects, "-o", f"{work}/_cuda.so"])
        Path(work, "_cuda.so").replace(module)  # whole or not at all
    return module


def call(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-4000:]}")
    return done.stdout


@functools.cache
def load(path: Path):
    """The module at the path, whose stem names its PyInit function."""
    # pybind11 hands out one module a name.
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}.{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def in_place_of_the_cpu(module):
    """Yields the `Kernels` of a module, which run what else the CPU's kernels would."""
    before, kernels = _native.cpu, Kernels(module, _native.cpu)
    try:
        _native.cpu = kernels
        yield kernels
    finally:
        _native.cpu = before


class Kernels:
    """Calls the kernels with what the CPU kernels are called with: they share their arguments.

    The last three (scratch memory, its size, threads) are left out. Scratch memory is as large as
    a kernel asks for, and starts as NaN.
    """

    def __init__(self, cuda, cpu):
        self._cuda, self._cpu = cuda, cpu
        library = ctypes.CDLL(cuda.__spec__.origin)  # the one that is loaded already
        self._count = ctypes.c_uint64.in_dll(library, "cuda_host_launches")
        self._most_blocks = ctypes.c_uint64.in_dll(library, "cuda_host_most_blocks")

    @property
    def launches(self) -> int:
        """How many kernels were launched in this process."""
        return self._count.value

    @contextlib.contextmanager
    def last_blocks(self, count: int):
        """Runs no more than the last blocks of each launch."""
        before, self._most_blocks.value = self._most_blocks.value, count
        try:
            yield
        finally:
            self._most_blocks.value = before

    def __getattr__(self, name):
        if name in WITHOUT_KERNEL:
            return getattr(self._cpu, name)
        kernel = getattr(self._cuda, name)

        def call(*arguments):
            if name == "crop_windows" and arguments[CHANNELS] > MAX_CHANNELS:
                return self._cpu.crop_windows(*arguments)  # on a device the reference does it
            device, stream = 0, 0
            needed = kernel(*arguments[:-3], 0, 0, device, stream)
            if needed:
                scratch = torch.full((needed // 4,), torch.nan)
                kernel(*arguments[:-3], scratch.data_ptr(), needed, device, stream)
            return 0

        return call
