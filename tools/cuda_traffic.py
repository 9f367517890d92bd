"""What the CUDA kernels ask of memory, counted on the host: no GPU, no time is measured.

    python tools/cuda_traffic.py                            # the work of benchmarks/gpu_kernels.py
    python tools/cuda_traffic.py --work "289 crops" --lines # some of it, by lines of code
    python tools/cuda_traffic.py --small --json FILE

For each launch: megabytes that it must read and write (different sectors of 32 bytes), how often
over it asks for them (what caches of other multiprocessors do not have), and the cycles that its
requests keep the L1 caches and shared memory busy, as a share of the time that the memory needs
for those megabytes. Well below 100 %, the kernel may run at the speed of memory; above, it cannot.
Latency, occupancy, instructions and what L1 keeps for others are not modelled.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), str(ROOT / "tests")]  # behind what is installed

import cuda_on_host  # noqa: E402

SECTOR = 32


@dataclass
class Line:
    """The accesses of one line of code."""

    where: str
    kind: str  # "global read" and the like
    requests: int = 0
    cycles: int = 0
    sectors: int = 0


@dataclass
class Launch:
    """What one launch asks for; sectors of 32 bytes."""

    kernel: str
    least_read: int
    least_written: int
    lines: list[Line] = field(default_factory=list)

    @property
    def cycles(self) -> int:
        """Of the L1 caches and shared memory, all multiprocessors together."""
        return sum(line.cycles for line in self.lines)

    def asked(self, kind: str) -> int:
        """Sectors that requests of the kind name."""
        return sum(line.sectors for line in self.lines if line.kind == kind)


@dataclass(frozen=True)
class Device:
    """The default is an H200, with the bandwidth that copies reach."""

    multiprocessors: int = 132
    clock: float = 1.755e9
    bandwidth: float = 4.3e12

    def busy(self, launch: Launch) -> float:
        """L1 cycles as a share of the time for the least bytes."""
        memory = (launch.least_read + launch.least_written) * SECTOR / self.bandwidth
        return launch.cycles / self.multiprocessors / self.clock / memory


class Counter:
    """Runs calls with the kernels in the place of the CPU's.

    Raises:
        CannotBuild: this machine lacks what that needs.
    """

    def __init__(self) -> None:
        tool = shutil.which("addr2line")
        if tool is None:
            raise cuda_on_host.CannotBuild("no addr2line (binutils)")
        self.module = cuda_on_host.build(watch="traffic")
        self._where = [tool, "-a", "-f", "-i", "-C", "-e", str(self.module)]
        self._take = ctypes.CDLL(str(self.module)).cuda_host_traffic
        self._take.restype = ctypes.c_char_p
        self._places: dict[str, tuple[str, str]] = {}

    def count(self, call) -> list[Launch]:
        """The launches of one call."""
        self._take()
        with cuda_on_host.in_place_of_the_cpu(cuda_on_host.load(self.module)):
            call()
        text = self._take().decode()
        self._resolve(set(re.findall(r"^([0-9a-f]+) ", text, re.MULTILINE)))
        launches, kernel = [], ""
        lines: dict[tuple[str, str], Line] = {}
        for row in text.splitlines():
            first, *rest = row.split()
            if first == "launch":
                launches.append(Launch(kernel, *map(int, rest), list(lines.values())))
                lines, kernel = {}, ""
                continue
            (name, where), kind = self._places[first], " ".join(rest[:2])
            kernel = name or kernel
            line = lines.setdefault((where, kind), Line(where, kind))
            line.requests += int(rest[2])
            line.cycles += int(rest[3])
            line.sectors += int(rest[4])
        return launches

    def _resolve(self, offsets: set[str]) -> None:
        new = sorted(offsets - self._places.keys())
        # The calls return to what follows them.
        command = [*self._where, *(hex(int(each, 16) - 1) for each in new)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for offset, part in zip(
            new, re.split(r"^0x[0-9a-f]+\n", text, flags=re.M)[1:], strict=True
        ):
            rows = part.splitlines()
            functions, files = rows[::2], rows[1::2]  # from the innermost on; a few are not inlined
            kernel = re.search(r"\w+_kernel\b", "\n".join(functions))
            where = next((file for file in files if "_cuda.h" in file), files[0])
            where = re.sub(r" \(discriminator \d+\)", "", Path(where).name)
            self._places[offset] = (kernel[0] if kernel else "", where)


def work(small: bool):
    """(name, what pyxai does of it) of benchmarks/gpu_kernels.py, on the host."""
    kernels = importlib.import_module("benchmarks.gpu_kernels")
    kernels.DEVICE = "cpu"
    kernels.graphed = lambda call, calls=1: call
    kernels.compiled = lambda function: function
    for name, make in kernels.cases("kernels", small):
        yield name, lambda make=make: make()[0]["pyxai"]


def row(name: str, launch: Launch, device: Device) -> str:
    """One row of the table."""
    shares = []
    for kind, least in (("read", launch.least_read), ("write", launch.least_written)):
        asked = launch.asked(f"global {kind}")
        shares.append(f"{least * SECTOR / 1e6:9.2f} x{asked / max(least, 1):5.2f}")
    return f"{name:36} {launch.kernel:24} {'  '.join(shares)}  {device.busy(launch):6.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", default="", help="a part of the names of the work to count")
    parser.add_argument("--small", action="store_true", help="small pictures")
    parser.add_argument("--lines", action="store_true", help="also each line of code")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    given = parser.parse_args()
    try:
        counter = Counter()
    except cuda_on_host.CannotBuild as error:
        parser.error(str(error))
    device, found = Device(), {}
    print(f"{'':36} {'kernel':24} {'MB read':>9}       {'MB written':>10}      L1 busy")
    for name, make in work(given.small):
        if given.work not in name:
            continue
        found[name] = counter.count(make())
        for launch in found[name]:
            print(row(name, launch, device), flush=True)
            if given.lines:
                for line in sorted(launch.lines, key=lambda line: -line.cycles):
                    print(
                        f"    {line.kind:13} {line.requests:9} requests "
                        f"{line.cycles / line.requests:6.2f} cycles "
                        f"{line.sectors / line.requests:6.2f} sectors  {line.where}"
                    )
    if not found:
        parser.error(f"--work: expected a part of the name of some work, got {given.work!r}")
    if given.json:
        rows = {name: [asdict(each) for each in launches] for name, launches in found.items()}
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
