"""The record of a run on a GPU as JSON and as tables, and whether the goals were reached."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Rows = dict[str, dict[str, Any]]
ONE_MAP, CLASS_MAPS = "one map, batch 32", "60 class maps, 800 px"
CROPS, STEP = "289 crops, float32", "mask step, batch 32"
LEARNED, CAM = "learned masks, batch 32", "pyxai.cam, ResNet-50, batch 64"


@dataclass(frozen=True)
class Goal:
    """A number to reach: `value` of the rows and roofs, at least or at most `bound`."""

    name: str
    bound: float
    at_least: bool
    value: Callable[[Rows, dict[str, float]], float]

    def reached(self, value: float) -> bool:
        """Whether the number is good enough."""
        return value >= self.bound if self.at_least else value <= self.bound


def _bandwidth(work: str) -> Callable[[Rows, dict[str, float]], float]:
    """The share of a copy's bytes a second."""
    return lambda rows, roofs: (
        rows[work]["bytes"] / rows[work]["seconds"]["pyxai"] / roofs["copy_bytes_per_s"]
    )


def _times(work: str, slow: str, fast: str = "pyxai") -> Callable[[Rows, dict[str, float]], float]:
    return lambda rows, roofs: rows[work]["seconds"][slow] / rows[work]["seconds"][fast]


def goals() -> list[Goal]:
    """What is to be reached on an H200."""
    found = [
        Goal("60 class maps at 800 px: share of copy bandwidth", 0.8, True, _bandwidth(CLASS_MAPS)),
        Goal("289 crops: share of copy bandwidth", 0.8, True, _bandwidth(CROPS)),
        Goal(
            "one map at batch 32, in a graph: times the cost of a launch",
            2.0,
            False,
            lambda rows, roofs: rows[ONE_MAP]["seconds"]["pyxai in a graph"] / roofs["launch_s"],
        ),
        Goal(
            "one map at batch 32, called: times the cost of torch's smallest operator",
            2.0,
            False,
            lambda rows, roofs: rows[ONE_MAP]["seconds"]["pyxai"] / roofs["call_s"],
        ),
    ]
    for work in (ONE_MAP, CROPS, STEP):
        found.append(Goal(f"{work}: times as fast as eager", 5.0, True, _times(work, "eager")))
        name = f"{work}: times as fast as torch.compile"
        found.append(Goal(name, 1.5, True, _times(work, "torch.compile")))
    found += [
        Goal(f"{LEARNED}: times as fast as one by one", 10.0, True, _times(LEARNED, "eager")),
        Goal(f"{CAM}: times the bare forward", 1.02, False, _times(CAM, "pyxai", "eager")),
        Goal(
            f"{CAM}, bfloat16: times the bare float32 forward",
            0.6,
            False,
            _times(CAM, "pyxai, bfloat16", "eager"),
        ),
    ]
    return found


def goal_rows(record: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """(goal, bound, measured, reached / missed / not measured)."""
    rows = {row["work"]: row for row in record["rows"]}
    found = []
    for goal in goals():
        bound = f"{'>=' if goal.at_least else '<='} {goal.bound:g}"
        try:
            value = goal.value(rows, record["roofs"])
        except (KeyError, TypeError, ZeroDivisionError):
            found.append((goal.name, bound, "", "not measured"))
            continue
        state = "reached" if goal.reached(value) else "missed"
        found.append((goal.name, bound, f"{value:.2f}", state))
    return found


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table; what would break its cells is made harmless."""

    def line(cells: tuple[str, ...]) -> str:
        safe = (str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells)
        return f"| {' | '.join(safe)} |"

    return "\n".join([line(head), line(("---",) * len(head)), *map(line, rows)])


def time_rows(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """(work, side, microseconds, times ours, share of copy bandwidth)."""
    found: list[tuple[str, ...]] = []
    roof = record["roofs"].get("copy_bytes_per_s")
    for row in record["rows"]:
        if "error" in row:
            found.append((row["work"], "failed: " + row["error"].splitlines()[0], "", "", ""))
            continue
        own = row["seconds"]["pyxai"]
        for side, seconds in row["seconds"].items():
            share = ""
            if row.get("bytes") and roof and side.startswith("pyxai"):
                share = f"{row['bytes'] / seconds / roof:.0%}"
            found.append((row["work"], side, f"{1e6 * seconds:.1f}", f"{seconds / own:.2f}", share))
    return found


def markdown(record: dict[str, Any]) -> str:
    """The report for people."""
    facts, roofs = record["machine"], record["roofs"]
    parts = [f"# {facts.get('card', 'no card')}, {record['date']}", f"`{record['command']}`"]
    parts.append(table(("", ""), [(name, str(value)) for name, value in facts.items()]))
    first = ("step", "outcome", "seconds", "")
    steps = [
        (each["name"], each["state"], f"{each['seconds']:.0f}", _last_line(each))
        for each in record["steps"]
    ]
    parts += ["## Steps", table(first, steps)]
    parts += ["## Goals", table(("goal", "bound", "measured", ""), goal_rows(record))]
    if roofs:
        numbers = [
            ("copy, bytes read and written", f"{roofs['copy_bytes_per_s'] / 1e9:.0f} GB/s"),
            ("fill", f"{roofs['fill_bytes_per_s'] / 1e9:.0f} GB/s"),
            ("torch's smallest operator, called", f"{1e6 * roofs['call_s']:.2f} us"),
            ("the same as a node of a graph", f"{1e6 * roofs['launch_s']:.2f} us"),
        ]
        parts += ["## Roofs", table(("", ""), numbers)]
    head = ("work", "side", "us", "times ours", "of copy bandwidth")
    parts += ["## Times", table(head, time_rows(record))]
    return "\n\n".join(parts) + "\n"


def _last_line(step: dict[str, Any]) -> str:
    lines = [line for line in step["detail"].splitlines() if line.strip()]
    return lines[-1][:160] if lines else ""


def write(record: dict[str, Any], path: Path) -> None:
    """Both files: the path with .json and .md."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(record))
