"""The floors of the package, and the table of them in CONTRIBUTING.md.

python tests/floors.py      # writes the table anew
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]

# Imports go down only; on one floor there are none. Each row stands above those before it.
FLOORS = [
    ["_errors", "_locks", "_measure", "_precision", "_text"],
    ["_files"],
    ["_sealed"],
    ["_outputs"],
    ["ops", "images", "neighbors"],
    ["classifier", "draw", "runs"],
    ["_results"],
    ["engines"],
    ["zoo"],
    ["attribution"],
    ["novelty", "search"],
    ["curate"],
    ["galleries", "train"],
    ["feature_visualization"],
    ["serve"],
    ["playground"],
    ["__init__"],
    ["cli"],
    ["__main__"],
]


def table(package: Path) -> str:
    """The rooms, the highest floor first, each with the first sentence of its docstring."""
    rows = ["| floor | room | what it is |", "| --- | --- | --- |"]
    for number, rooms in reversed([*enumerate(FLOORS)]):
        rows += [f"| {number} | `{room}` | {_sentence(package, room)} |" for room in rooms]
    return "\n".join(rows) + "\n"


def _sentence(package: Path, room: str) -> str:
    file = package / room / "__init__.py"
    source = (file if file.exists() else package / f"{room}.py").read_text(encoding="utf-8")
    words = " ".join((ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.) ", words)[0]


def written(text: str, package: Path) -> str:
    """CONTRIBUTING.md with the table as it should be."""
    return re.sub(r"(?m)^\| floor \|.*\n(\|.*\n)+", lambda _: table(package), text)


if __name__ == "__main__":
    file = CHECKOUT / "CONTRIBUTING.md"
    file.write_text(written(file.read_text("utf-8"), CHECKOUT / "pyxai"), encoding="utf-8")
