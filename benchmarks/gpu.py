"""Everything that can only be known on a machine with a GPU, by one command.

    python -m benchmarks.gpu                    # build, tests, times, sanitizers; an hour at most
    python -m benchmarks.gpu --seconds 480      # what fits into eight minutes, fewer rounds
    python -m benchmarks.gpu --only kernels     # some of the steps
    python -m benchmarks.gpu --dry-run          # the plan; needs no GPU

Builds the CUDA kernels for the card, runs the tests that need a device, times kernels and whole
calls against eager PyTorch and torch.compile on the same card, and lets compute-sanitizer look at
every kernel. A step that fails or runs out of time is written down, and the next one starts. The
record goes to `benchmarks/results/DATE-CARD.json` and `.md`, after each step.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_report, gpu_steps
from benchmarks.gpu_steps import Step

ROOT = Path(__file__).resolve().parent.parent
SANITIZERS = ("memcheck", "racecheck", "initcheck")


def plan(
    capability: tuple[int, int], nvcc: str | None, sanitizer: str | None, seconds: float, work: Path
) -> list[Step]:
    """The steps, in the order of their worth.

    Args:
        capability: of the card, (9, 0) for an H100.
        nvcc: the compiler, None if there is none.
        sanitizer: compute-sanitizer, None if there is none.
        seconds: for all of them.
        work: a folder for what steps write.
    """
    architecture = "{}{}".format(*capability)
    python = sys.executable
    rounds = ["--rounds", "7" if seconds < 1200 else "21"]

    def times(group: str, share: float) -> Step:
        out = work / f"{group}.json"
        command = [python, "-m", "benchmarks.gpu_kernels", group, "--json", str(out), *rounds]
        return Step(group, command, share, output=out)

    install = [python, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "-e", "."]
    resources = [python, "tools/cuda_resources.py", "--architectures", architecture]
    steps = [
        Step(
            "build",
            install if nvcc else None,
            3,
            {"PYXAI_CUDA": "ON", "CUDAARCHS": f"{architecture}-real"},
            why_not="no nvcc: what is installed is measured as it is",
        ),
        Step("tests", [python, "-m", "pytest", "-q", "-m", "cuda", "tests"], 4),
        times("kernels", 3),
        times("calls", 3),
    ]
    for tool in SANITIZERS:
        command = [sanitizer or "", "--tool", tool, "--error-exitcode", "9"]
        command += [python, "-m", "benchmarks.gpu_sanitize"]
        # torch's allocator hands out parts of large blocks, past whose ends nothing is noticed.
        alone = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        why_not = "no compute-sanitizer (of the CUDA toolkit)"
        steps.append(Step(tool, command if sanitizer else None, 2, alone, why_not=why_not))
    why_not = "no nvcc"
    steps.append(Step("resources", resources if nvcc else None, 1, why_not=why_not))
    return steps


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    properties = torch.cuda.get_device_properties(0)
    smi = shutil.which("nvidia-smi")
    driver = _output([smi, "--query-gpu=driver_version", "--format=csv,noheader"]) if smi else ""
    commit = _output(["git", "-C", str(ROOT), "rev-parse", "HEAD"])
    changed = _output(["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"])
    compiler = _output(["nvcc", "--version"]) if shutil.which("nvcc") else ""
    return {
        "card": properties.name,
        "compute capability": f"{properties.major}.{properties.minor}",
        "memory": f"{properties.total_memory / 2**30:.0f} GiB",
        "driver": driver.splitlines()[0] if driver else "unknown",
        "torch": torch.__version__,
        "CUDA of torch": torch.version.cuda,
        "nvcc": compiler.splitlines()[-2].strip() if compiler.count("\n") else "none",
        "commit": (commit or "unknown") + (" with changes" if changed else ""),
        "TF32 in convolutions": torch.backends.cudnn.allow_tf32,
    }


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def find_sanitizer(nvcc: str | None) -> str | None:
    """compute-sanitizer, on the PATH or beside nvcc."""
    beside = Path(nvcc).resolve().parent / "compute-sanitizer" if nvcc else None
    found = shutil.which("compute-sanitizer")
    return found or (str(beside) if beside is not None and beside.exists() else None)


def measured(steps: list[Step]) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Roofs and rows of the files that steps have written so far."""
    roofs: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for step in steps:
        if step.output is not None and step.output.exists():
            found = json.loads(step.output.read_text())
            roofs = roofs or found["roofs"]
            rows += found["rows"]
    return roofs, rows


def record_of(
    facts: dict[str, Any], steps: list[Step], outcomes: list[gpu_steps.Outcome]
) -> dict[str, Any]:
    """All that is known now."""
    roofs, rows = measured(steps)
    return {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python -m benchmarks.gpu", *sys.argv[1:]]),
        "machine": facts,
        "steps": [asdict(each) for each in outcomes],
        "roofs": roofs,
        "rows": rows,
    }


def show(steps: list[Step]) -> None:
    """Prints the plan."""
    for step in steps:
        variables = "".join(f"{name}={value} " for name, value in step.environment.items())
        command = " ".join(step.command) if step.command else f"skipped: {step.why_not}"
        print(f"{step.name:10} {variables}{command}")
    print("goals:")
    for goal in gpu_report.goals():
        print(f"  {goal.name}: {'at least' if goal.at_least else 'at most'} {goal.bound:g}")


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 if a step failed or ran out of time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", nargs="+", default=[], metavar="STEP")
    parser.add_argument("--seconds", type=float, default=3600, help="for all steps together")
    parser.add_argument("--dry-run", action="store_true", help="print the plan")
    parser.add_argument("--out", type=Path, help="file for the record, without ending")
    given = parser.parse_args(arguments)
    has_gpu = torch.cuda.is_available()
    nvcc = shutil.which("nvcc")
    capability = torch.cuda.get_device_capability() if has_gpu else (9, 0)
    with tempfile.TemporaryDirectory() as folder:
        steps = plan(capability, nvcc, find_sanitizer(nvcc), given.seconds, Path(folder))
        try:
            steps = gpu_steps.chosen(steps, given.only)
        except ValueError as error:
            parser.error(str(error))
        if given.dry_run:
            if not has_gpu:
                print("no CUDA device here: the plan for an H100")
            show(steps)
            return 0
        if not has_gpu:
            parser.error(
                "expected a CUDA device, got none (torch.cuda.is_available() is False: no card, no "
                "driver, or a torch without CUDA); --dry-run prints what would be done"
            )
        facts = machine()
        name = re.sub(r"[^a-z0-9]+", "-", facts["card"].lower()).strip("-")
        path = ROOT / "benchmarks" / "results" / f"{datetime.date.today().isoformat()}-{name}"
        path = given.out or path

        def save(outcomes: list[gpu_steps.Outcome]) -> None:
            gpu_report.write(record_of(facts, steps, outcomes), path)

        outcomes = gpu_steps.run_all(steps, given.seconds, ROOT, save)
        print(path.with_suffix(".md").read_text())
        return int(any(each.state in ("failed", "timed out") for each in outcomes))


if __name__ == "__main__":
    sys.exit(main())
