"""Many calls, each noted before it is made, in a process that may crash."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cuda_on_host
import sanitized_cpu
import torch

from fuzz_operators.calls import make_call, run_call
from pyxai.ops import _workspace

TESTS = Path(__file__).resolve().parents[1]
_ENOUGH = 40  # faults
_HANGS = 300.0  # seconds without a new call
_MOST_MEMORY = 12 << 30  # bytes: what asks for more is to be refused, not to be granted


@dataclass(frozen=True)
class Kernels:
    """Which kernels are called.

    Attributes:
        sanitize: built for the sanitizers of addresses and undefined behavior.
        cuda_on_host: those of CUDA, run on the host, in place of the CPU's.
    """

    sanitize: bool = False
    cuda_on_host: bool = False

    def module(self) -> Path | None:
        """Where they are, built now if need be; None for those that are installed."""
        if self.cuda_on_host:
            return cuda_on_host.build(sanitize=self.sanitize)
        return sanitized_cpu.build() if self.sanitize else None


@dataclass
class Report:
    """What came of many calls.

    Attributes:
        calls: how many were made.
        seconds: how long that took.
        faults: the number of a call, and what was wrong with it.
    """

    calls: int = 0
    seconds: float = 0.0
    faults: list[tuple[int, str]] = field(default_factory=list)

    def __str__(self) -> str:
        head = f"{self.calls} calls in {self.seconds:.0f} s, {len(self.faults)} faults"
        return "\n".join([head, *(f"call {number}: {wrong}" for number, wrong in self.faults)])


def run_many(calls: int, seed: int, *, first: int = 0, kernels: Kernels | None = None) -> Report:
    """Makes the calls from number `first` on, and goes on behind one that crashes.

    Args:
        calls: how many.
        seed: with the number of a call, what it follows from.
        first: the number of the first one.
        kernels: which kernels are called; those that are installed by default.
    """
    kernels = kernels or Kernels()
    module, report, started = kernels.module(), Report(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        number, end = first, first + calls
        while number < end and len(report.faults) < _ENOUGH:
            said = _run_process(Path(folder), kernels, module, seed, number, end)
            report.faults += _faults(Path(folder))
            reached = int((Path(folder) / "number").read_text() or number)
            if said is None:
                number = end
            else:
                report.faults.append((reached, f"{said}\n    {make_call(seed, reached)}"))
                number = reached + 1
            report.calls = min(number, end) - first
    report.seconds = time.monotonic() - started
    return report


def run_here(seed: int, number: int) -> str | None:
    """Makes one call in this process, after it was printed."""
    print(make_call(seed, number), flush=True)  # noqa: T201
    return run_call(seed, number)


def _faults(folder: Path) -> list[tuple[int, str]]:
    path = folder / "faults"
    if not path.exists():
        return []
    found = [json.loads(line) for line in path.read_text().splitlines()]
    path.unlink()
    return [(each["number"], each["wrong"]) for each in found]


def _run_process(
    folder: Path, kernels: Kernels, module: Path | None, seed: int, first: int, end: int
) -> str | None:
    """Runs calls in a process of their own; how it ended, unless it came to its end."""
    work = {"folder": str(folder), "seed": seed, "first": first, "end": end}
    work |= {"module": module and str(module), "cuda_on_host": kernels.cuda_on_host}
    environment = dict(os.environ, OMP_WAIT_POLICY="passive", PYTHONFAULTHANDLER="1")
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), *sys.path[1:]])
    if kernels.sanitize:
        del environment["PYTHONFAULTHANDLER"]
        environment |= {
            "LD_PRELOAD": cuda_on_host.address_sanitizer(),
            "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:"
            "allocator_may_return_null=1:max_allocation_size_mb=4096",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
    (folder / "number").write_text(str(first))
    code = "import json, sys; from fuzz_operators import many; many.work(json.loads(sys.argv[1]))"
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(work)],
            env=environment,
            cwd=folder,
            stdout=said,
            stderr=said,
        )
        ended = _wait(process, folder / "number")
        said.seek(0)
        words = said.read()
    if ended == 0:
        return None
    how = "hung" if ended is None else f"crashed ({ended})"
    return f"{how}: {words[:3000]}"


def _wait(process: subprocess.Popen, progress: Path) -> int | None:
    """The code that a process ends with; None where it stood still and was stopped."""
    seen, since = "", time.monotonic()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=2)
        number = progress.read_text()
        if number != seen:
            seen, since = number, time.monotonic()
        elif time.monotonic() - since > _HANGS:
            process.kill()
            process.wait()
            return None


# ---- in the process that may crash ----


def work(given: dict[str, Any]) -> None:
    """Makes the calls that were asked for."""
    torch.use_deterministic_algorithms(True)  # fills memory that is new with NaN
    _workspace._Workspace.run = _run_in_exact_memory
    if "LD_PRELOAD" not in os.environ:
        resource.setrlimit(resource.RLIMIT_DATA, (_MOST_MEMORY, _MOST_MEMORY))
    place = contextlib.nullcontext()
    if given["module"] is not None:
        module = cuda_on_host.load(Path(given["module"]))
        stand_in = cuda_on_host if given["cuda_on_host"] else sanitized_cpu
        place = stand_in.in_place_of_the_cpu(module)
    folder = Path(given["folder"])
    with place, (folder / "number").open("r+b", buffering=0) as noted:
        for number in range(given["first"], given["end"]):
            noted.seek(0)
            noted.write(b"%d" % number)  # numbers only grow
            wrong = run_call(given["seed"], number)
            if wrong:
                with (folder / "faults").open("a") as faults:
                    faults.write(json.dumps({"number": number, "wrong": wrong}) + "\n")


def _run_in_exact_memory(self: Any, kernel: Any, *arguments: Any) -> None:
    """In place of scratch memory that is kept: a byte beyond it is a fault."""
    threads = torch.get_num_threads()
    needed = kernel(*arguments, 0, 0, threads)
    if needed:
        memory = torch.empty(needed, dtype=torch.uint8)
        if kernel(*arguments, memory.data_ptr(), needed, threads):
            raise AssertionError("a kernel wants more memory than it said")
