"""Registers, shared memory and spills of every CUDA kernel, as nvcc's assembler counts them.

    python tools/cuda_resources.py                              # 80, 90 and 100; needs nvcc, no GPU
    python tools/cuda_resources.py --architectures 90 --json FILE
    python tools/cuda_resources.py --markdown                   # the table of docs/cuda.md

Spilled registers go to memory and back. Exit code 1 if a kernel spills that `ALLOWED` does not
name.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UNITS = ("csrc/cam/cam.cu", "csrc/mask/mask.cu", "csrc/windows/windows.cu")
ALLOWED: dict[str, int] = {}  # a part of the name of a kernel: bytes that it may spill

_FUNCTION = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)\w*'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class Kernel:
    """What one kernel takes of one architecture."""

    unit: str
    name: str
    architecture: str
    registers: int
    shared: int
    stack: int
    stores: int
    loads: int


def parse(unit: str, text: str, readable: dict[str, str] | None = None) -> list[Kernel]:
    """The kernels in what `nvcc -Xptxas -v` says.

    Raises:
        ValueError: a kernel without its numbers, so the compiler writes them in another way.
    """
    found = []
    parts = _FUNCTION.split(text)  # before, then (name, architecture, what follows) of each
    for name, architecture, rest in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        spills, used, shared = _SPILLS.search(rest), _USED.search(rest), _SHARED.search(rest)
        if spills is None or used is None:
            raise ValueError(f"expected registers and spills of {name}, got {rest[:200]!r}")
        numbers = [int(each) for each in spills.groups()]
        found.append(
            Kernel(
                unit,
                (readable or {}).get(name, name),
                architecture,
                int(used[1]),
                int(shared[1]) if shared else 0,
                *numbers,
            )
        )
    return found


def spilling(kernels: list[Kernel], allowed: dict[str, int] | None = None) -> list[Kernel]:
    """Those that spill more than they may."""
    known = ALLOWED if allowed is None else allowed
    return [
        kernel
        for kernel in kernels
        if max(kernel.stores, kernel.loads)
        > max((most for part, most in known.items() if part in kernel.name), default=0)
    ]


def compile_unit(nvcc: str, unit: str, architecture: str, folder: Path) -> list[Kernel]:
    """The kernels of one file."""
    output = folder / f"{Path(unit).stem}-{architecture}.cubin"
    flags = ["-std=c++17", "-O3", "-lineinfo", "-cubin", "-Xptxas", "-v"]
    command = [nvcc, *flags, f"-arch=sm_{architecture}", str(ROOT / unit), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-4000:]}")
    names = sorted(set(_FUNCTION.findall(done.stderr)))
    return parse(unit, done.stderr, demangled([name for name, _ in names]))


def demangled(names: list[str]) -> dict[str, str]:
    """The names as they are written in C++, where c++filt is there."""
    tool = shutil.which("c++filt") or shutil.which("cu++filt")
    if tool is None:
        return {}
    text = subprocess.run([tool, *names], capture_output=True, text=True, check=True).stdout
    return dict(zip(names, map(_short, text.splitlines()), strict=True))


def _short(name: str) -> str:
    """Without what all kernels share: namespaces, the type of the result, parameters."""
    name = re.sub(r"pyxai::|cuda::|\(anonymous namespace\)::", "", name).removeprefix("void ")
    return re.sub(r"\([A-Za-z][^()]*\)$", "", name)


def summary(kernels: list[Kernel]) -> list[tuple[str, int, int, int, int]]:
    """(architecture, kernels, most registers, most shared memory, kernels with spills)."""
    found = []
    for architecture in sorted({kernel.architecture for kernel in kernels}, key=int):
        some = [kernel for kernel in kernels if kernel.architecture == architecture]
        found.append(
            (
                architecture,
                len(some),
                max(kernel.registers for kernel in some),
                max(kernel.shared for kernel in some),
                sum(kernel.stores + kernel.loads > 0 for kernel in some),
            )
        )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", nargs="+", default=["80", "90", "100"])
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--markdown", action="store_true", help="print the summary as a table")
    given = parser.parse_args()
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        parser.error("expected a CUDA compiler, got none (nvcc is not on the PATH)")
    with tempfile.TemporaryDirectory() as folder:
        work = [(unit, each) for each in given.architectures for unit in UNITS]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            parts = pool.map(lambda one: compile_unit(nvcc, *one, Path(folder)), work)
            kernels = [kernel for part in parts for kernel in part]
    if given.json:
        given.json.write_text(json.dumps([asdict(each) for each in kernels], indent=1) + "\n")
    if given.markdown:
        print("| architecture | kernels | most registers | most shared memory | with spills |")
        print("| --- | --- | --- | --- | --- |")
        for row in summary(kernels):
            print(f"| {' | '.join(map(str, row))} |")
    else:
        for kernel in kernels:
            print(
                "sm_{architecture:4} {registers:4} registers {shared:6} B shared  {stores:4}/"
                "{loads:<4} B spilled  {name}".format(**asdict(kernel))
            )
    bad = spilling(kernels)
    for kernel in bad:
        print(
            f"spills: sm_{kernel.architecture} {kernel.stores} B stored, {kernel.loads} B loaded "
            f"in {kernel.name}",
            file=sys.stderr,
        )
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
