"""Which photos match: the same file or pixels, hashes that differ little, features alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from pyxai.curate.duplicates.grouping import Match, quality
from pyxai.curate.duplicates.nearby import Pairs, near_features, near_hashes
from pyxai.curate.duplicates.records import Record

_MOST = 200  # of photos with the same pixels or the same hash, how many are paired with others

Item = TypeVar("Item")

Matches = Iterator[tuple[int, int, Match]]
"""Places of two records, and why they match."""


def alike(records: Sequence[Record], key: str) -> list[list[int]]:
    """Places of the records with the same value, the best of each first."""
    found: dict[str, list[int]] = defaultdict(list)
    for place, record in enumerate(records):
        found[getattr(record, key)].append(place)
    return [sorted(each, key=lambda place: quality(records[place])) for each in found.values()]


def same_pixels(records: Sequence[Record], same: Sequence[list[int]]) -> Matches:
    """Photos with equal pixels, among them equal files."""
    for places in same:
        for one, other in _pairs_within(places):
            stage = "exact" if records[one].file == records[other].file else "pixels"
            yield one, other, Match(stage, 0.0)


def by_hash(
    records: Sequence[Record],
    same: Sequence[list[int]],
    kind: str,
    most: int,
    *,
    orientations: bool,
) -> Matches:
    """Photos whose hashes differ in at most so many bits.

    Args:
        records: the photos.
        same: places of those with equal pixels.
        kind: of the hash.
        most: bits.
        orientations: also where one of them is turned or mirrored.
    """
    by_value: dict[int, list[list[int]]] = defaultdict(list)
    for places in same:
        values = records[places[0]].hashes[kind]
        if values is not None:
            by_value[values[0]].append(places)
    if not by_value:
        return
    hashes = np.array([*by_value], np.uint64)
    classes = [
        sorted(each, key=lambda places: quality(records[places[0]])) for each in by_value.values()
    ]
    for each in classes:
        for one, other in _pairs_within(each):
            yield from _all_pairs(one, other, Match("hash", 0.0))
    for pairs in _near(records, hashes, classes, kind, most, orientations):
        for row, column, bits in _once(pairs):
            for one, other in product(classes[row][:_MOST], classes[column][:_MOST]):
                yield from _all_pairs(one, other, Match("hash", bits))


def _near(
    records: Sequence[Record],
    hashes: NDArray[np.uint64],
    classes: Sequence[list[list[int]]],
    kind: str,
    most: int,
    orientations: bool,
) -> Iterator[Pairs]:
    yield from near_hashes(hashes, hashes, most)
    if not orientations:
        return
    turned = [records[each[0][0]].hashes[kind] for each in classes]
    rows = np.array([values for values in turned if values is not None], np.uint64)
    for orientation in range(1, rows.shape[1]):
        yield from near_hashes(hashes, np.ascontiguousarray(rows[:, orientation]), most)


def by_features(same: Sequence[list[int]], features: NDArray[np.float32], least: float) -> Matches:
    """Photos whose features, `[len(same), d]` of length 1, have at least so large a cosine."""
    for pairs in near_features(torch.from_numpy(features), least):
        for one, other, cosine in _once(pairs):
            yield from _all_pairs(same[one], same[other], Match("features", round(1 - cosine, 6)))


def _once(pairs: Pairs) -> Iterator[tuple[int, int, float]]:
    one, other, distance = pairs
    different = one != other
    yield from zip(
        one[different].tolist(),
        other[different].tolist(),
        distance[different].tolist(),
        strict=True,
    )


def _pairs_within(items: Sequence[Item]) -> Iterator[tuple[Item, Item]]:
    """All pairs of few, of many those with one of the best; the items come the best first."""
    for place, item in enumerate(items):
        for earlier in items[: min(place, _MOST)]:
            yield earlier, item


def _all_pairs(one: Iterable[int], other: Iterable[int], match: Match) -> Matches:
    for first, second in product([*one][:_MOST], [*other][:_MOST]):
        yield first, second, match
