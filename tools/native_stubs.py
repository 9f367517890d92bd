"""The stubs of the compiled modules, from what the modules say of themselves.

    python tools/native_stubs.py           # exit code 1 where one is not what its module says
    python tools/native_stubs.py --write   # writes them anew

Where `_cuda` was not built, the one that tests compile for the host says the same.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import torch  # noqa: F401  before _cpu, so that both share torch's OpenMP runtime

ROOT = Path(__file__).resolve().parent.parent
STUBS = {name: ROOT / "pyxai" / "ops" / f"{name}.pyi" for name in ("_cpu", "_cuda")}
# What pybind11 says of a number, by version.
PLAIN = {
    "typing.SupportsInt | typing.SupportsIndex": "int",
    "typing.SupportsFloat | typing.SupportsIndex": "float",
    "typing.SupportsInt": "int",
    "typing.SupportsFloat": "float",
}
WIDTH = 100


def stub(module: ModuleType) -> str:
    """The stub of a module that pybind11 has made, as ruff formats it."""
    lines = [f'"""{module.__doc__}"""', ""]
    for function in filter(inspect.isbuiltin, vars(module).values()):
        lines += _definition(function.__doc__.splitlines()[0])
    return "\n".join(lines) + "\n"


def _definition(signature: str) -> list[str]:
    """The lines of `name(a: int, b: bool) -> int`."""
    for words, plain in PLAIN.items():
        signature = signature.replace(words, plain)
    whole = f"def {signature}: ..."
    if len(whole) <= WIDTH:
        return [whole]
    name, arguments, result = re.fullmatch(r"(\w+)\((.*)\) -> (.*)", signature).groups()
    return [
        f"def {name}(",
        *(f"    {each}," for each in arguments.split(", ")),
        f") -> {result}: ...",
    ]


def compiled(name: str) -> ModuleType:
    """The module of that name."""
    try:
        return importlib.import_module(f"pyxai.ops.{name}")
    except ImportError:
        if name == "_cpu":
            raise
        sys.path.insert(0, str(ROOT / "tests"))
        import cuda_on_host

        return cuda_on_host.load(cuda_on_host.build())


def main() -> int:
    """Compares or writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write what differs")
    write, differ = parser.parse_args().write, []
    for name, path in STUBS.items():
        text = stub(compiled(name))
        if path.read_text("utf-8") == text:
            continue
        differ.append(name)
        print(f"{path}: {'written' if write else 'not what the module says'}")
        if write:
            path.write_text(text, "utf-8")
    return 1 if differ and not write else 0


if __name__ == "__main__":
    sys.exit(main())
