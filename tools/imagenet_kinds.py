"""Kinds of animals for photos of ImageNet classes, as a CSV for `pyxai playground build --labels`.

    python tools/imagenet_kinds.py PHOTOS/index.csv > kinds.csv

The index has the columns file and class_index (0 to 999, classes in the order of their WordNet
numbers). Written are path, an absolute one, and label; photos of things, of which
there is no telling what kind is alike, and of animals that stand alone have no line.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

# The order of WordNet numbers keeps most kinds together.
KINDS = {
    "fish": [(0, 6), (389, 397)],
    "bird": [(7, 24), (80, 100), (127, 146)],
    "amphibian or reptile": [(25, 50), (52, 68)],
    "spider or insect": [(70, 79), (300, 326)],
    "sea animal without bones": [(107, 111), (114, 125), (327, 329)],
    "dog, wolf, fox": [(151, 280)],
    "cat, large or small": [(281, 293)],
    "bear": [(294, 297)],
    "rabbit or rodent": [(330, 338)],
    "hoofed animal": [(339, 355)],
    "weasel and its kin": [(356, 362)],
    "ape or monkey": [(365, 384)],
}


def kind_of(index: int) -> str | None:
    """The kind of an ImageNet class."""
    for kind, ranges in KINDS.items():
        if any(first <= index <= last for first, last in ranges):
            return kind
    return None


def main() -> None:
    index = Path(sys.argv[1])
    writer = csv.writer(sys.stdout)
    writer.writerow(("path", "label"))
    with index.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            kind = kind_of(int(row["class_index"]))
            if kind is not None:
                writer.writerow((index.parent.resolve() / row["file"], kind))


if __name__ == "__main__":
    main()
