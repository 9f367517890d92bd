"""`pyxai info`: versions, instruction set, threads, CUDA, with the reason for what is missing."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from typing import Annotated, Any

import torch
import typer

import pyxai
from pyxai.ops import _native, cuda_status

_PACKAGES = ("numpy", "scikit-learn", "pillow", "torchvision", "timm", "transformers")


def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print versions, the instruction set in use, threads, and the state of CUDA."""
    typer.echo(json.dumps(facts(), indent=2) if as_json else report())


def facts() -> dict[str, Any]:
    """What `pyxai info --json` prints."""
    return {
        "pyxai": pyxai.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "packages": {name: _version(name) for name in _PACKAGES},
        "simd": {"used": _native.cpu.simd_level(), "available": _native.cpu.simd_levels()},
        "threads": torch.get_num_threads(),
        "cuda": cuda_status(),
    }


def report() -> str:
    """The same as text."""
    found = facts()
    cuda = found["cuda"]
    others = [f"{name} {version}" for name, version in found["packages"].items() if version]
    missing = [name for name, version in found["packages"].items() if not version]
    lines = [
        f"pyxai     {found['pyxai']} on Python {found['python']}, {found['platform']}",
        f"torch     {found['torch']}",
        f"packages  {', '.join(others)}"
        + (f"; not installed: {', '.join(missing)}" * bool(missing)),
        f"CPU       {found['simd']['used']} kernels (available: "
        f"{', '.join(found['simd']['available'])}; PYXAI_SIMD chooses), {found['threads']} threads",
    ]
    if cuda["built"]:
        lines.append(f"CUDA      built with {cuda['toolkit']} for {cuda['architectures']}")
        lines.append(f"          driver {_driver(cuda['driver_version'])}")
    for index, name in enumerate(cuda["devices"]):
        lines.append(f"          device {index}: {name}")
    if cuda["problem"] is not None:
        lines.append(
            f"{'          ' if cuda['built'] else 'CUDA      '}not usable: {cuda['problem']}"
        )
    return "\n".join(lines)


def _driver(version: int) -> str:
    return f"for CUDA {version // 1000}.{version % 1000 // 10}" if version else "none"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
