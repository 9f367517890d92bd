"""Runs every call of pyxai on networks with habits and on their twins, and tables what came of it.

Usage:
    python tools/hand_written_networks.py [--only TEXT] [--write]

A habit is a way of writing a network that people have. For each, tests/networks holds a network
with it and a twin without it, of the same weights and the same function; every call must give the
same for both (`pytest tests/networks` checks it). ``--only`` takes the habits whose name contains
the text; ``--write`` writes docs/hand_written_networks.md. Takes ten minutes.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch

import pyxai

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from networks.capabilities import CAPABILITIES, PHOTO_CAPABILITIES, photos_in  # noqa: E402
from networks.habits import HABITS, Habit  # noqa: E402
from networks.matrix import NOT_ABOUT_HABITS, Cell, compare_on  # noqa: E402

DOCUMENT = ROOT / "docs" / "hand_written_networks.md"

# Columns of the table that stand for several calls.
GROUPS = {
    "maps": [name for name in CAPABILITIES if name.startswith("cam: ")],
    "CamModel": ["CamModel", "CamModel, exported"],
    "windows": [name for name in CAPABILITIES if name.startswith("windows: ")],
    "novelty": ["novelty", "novelty of photos"],
}
Row = dict[str, Cell]


def columns() -> dict[str, list[str]]:
    """The columns of the table, and the calls that each stands for."""
    grouped = {name: group for group, names in GROUPS.items() for name in names}
    found: dict[str, list[str]] = {}
    for name in CAPABILITIES:
        found.setdefault(grouped.get(name, name), []).append(name)
    return found


def row_of(habit: Habit, folder: Path) -> Row:
    """What came of each call on one pair of networks."""
    return {
        name: compare_on(habit, name, folder)
        for name in CAPABILITIES
        if habit.channels == 3 or name not in PHOTO_CAPABILITIES
    }


def text_of(cells: list[Cell]) -> str:
    """One cell of the table."""
    states = Counter(cell.state for cell in cells)
    if not states:
        return ""
    marks = {"same": "✓", "neither": "–", "refused": "refused", "different": "**differs**"}
    if len(states) == 1 and (len(cells) == 1 or "same" in states):
        return marks[cells[0].state]
    return ", ".join(f"{states[state]} {marks[state]}" for state in marks if states[state])


def reason_of(text: str) -> str:
    """Why a call refuses a network and its twin, in the words by which rows are counted."""
    return next((each for each in NOT_ABOUT_HABITS if each in text), text)


def document(rows: dict[str, Row]) -> str:
    """The whole page."""
    cells = [cell for row in rows.values() for cell in row.values()]
    states = Counter(cell.state for cell in cells)
    maps = len(GROUPS["maps"])
    lines = [
        "# Hand-written networks",
        "",
        f"{len(rows)} habits that people have when they write a network, each as a network with",
        "the habit and a twin without it: the same weights, the same function. Every call of pyxai",
        "is made on both, and has to give the same. Maps, probabilities and other values agree",
        "within 1e-4 of the largest (channels_last: 3e-4, half precision: 2e-2), lists and names",
        "to the letter.",
        "",
        f"Of {len(cells)} pairs of habit and call, {states['same']} give the same; for",
        f"{states['neither']} the call refuses network and twin alike, for a reason that has",
        f"nothing to do with the habit; {states['refused']} are refused for the habit; in",
        f"{states['different']} the two differ.",
        "",
        f"Made on {datetime.date.today().isoformat()} with pyxai {pyxai.__version__} and PyTorch",
        f"{torch.__version__.split('+')[0]} by `python tools/hand_written_networks.py --write`;",
        "`pytest tests/networks` checks the same. The networks are in `tests/networks/habits.py`.",
        "What has no twin, such as features of a single position, is compared with values computed",
        "by hand in `tests/networks/test_by_hand.py`.",
        "",
        f"- ✓: the same. The column *maps* stands for the {maps - 1} methods and for `auto`,",
        "  *CamModel* also for its export by `torch.export`, *windows* for the modes exhaustive,",
        "  shared and dense, *novelty* for images and photos, *SHAP* for three of its methods.",
        "- –: refused for both (listed below). With a number: so many of the calls.",
        "- empty: not tried, as photos have three channels.",
        "",
        "| habit | " + " | ".join(columns()) + " |",
        "| --- |" + " --- |" * len(columns()),
    ]
    for name, row in rows.items():
        texts = [
            text_of([row[each] for each in group if each in row]) for group in columns().values()
        ]
        lines.append(f"| {name} | " + " | ".join(texts) + " |")
    lines += ["", "## Refused for the habit", ""]
    for name, row in rows.items():
        for call, cell in row.items():
            if cell.state in ("refused", "different"):
                lines.append(f"- {name}, {call}: {first_sentence(cell.text)}")
    lines += ["", "## Refused for network and twin", "", "| calls | because |", "| --- | --- |"]
    reasons = Counter(reason_of(cell.text) for cell in cells if cell.state == "neither")
    lines += [f"| {count} | {reason} |" for reason, count in reasons.most_common()]
    return "\n".join([*lines, ""])


def first_sentence(text: str) -> str:
    """The first 300 characters of a message, in one line."""
    return " ".join(text.split())[:300].replace("|", "\\|")


def main() -> None:
    """Runs all pairs, printing rows as they come."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="habits whose name contains this")
    parser.add_argument("--write", action="store_true", help=f"writes {DOCUMENT.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the networks are small
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as folder:
        photos = photos_in(Path(folder))
        for habit in HABITS:
            if arguments.only.casefold() in habit.name.casefold():
                rows[habit.name] = row_of(habit, photos)
                states = Counter(cell.state for cell in rows[habit.name].values())
                print(f"{habit.name}: {dict(states)}", flush=True)
    if arguments.write:
        DOCUMENT.write_text(document(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
