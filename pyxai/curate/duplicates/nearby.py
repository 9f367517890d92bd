"""Pairs of hashes that differ in few bits, and of features that point the same way."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from pyxai.neighbors.products import products

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""Places of the one, places of the other, and how far apart each pair is."""

_BAND = 16  # bits
_BANDS = 64 // _BAND
_CANDIDATES = 1 << 22  # pairs looked at together
_BLOCK = 2048  # rows of features
_FEWEST = 30  # rows that tell how alike different photos are
_SAMPLED = 50_000  # pairs
_DEVIATIONS = 5.0
_LEAST = 0.88


def near_hashes(
    hashes: NDArray[np.uint64], queries: NDArray[np.uint64], most: int
) -> Iterator[Pairs]:
    """All pairs of a query and a hash that differ in at most so many bits.

    If two hashes of 64 bits differ in at most r, they differ in at most r / 4 in one of their four
    bands of 16 bits (the pigeonhole principle). So each band of a query is looked up with up to
    r / 4 bits changed, and only what is found there is compared. Exact; memory is linear in the
    number of hashes, and time nearly so while hashes are spread out.

    Args:
        hashes: `[n]`, each of them once.
        queries: `[m]`.
        most: bits, 0 to 31.

    Yields:
        Places of queries, places of hashes, and bits that differ; a pair may come more than once.
    """
    flips = _flips(most // _BANDS)
    for band in range(_BANDS):
        keys = _band(hashes, band)
        order = np.argsort(keys, kind="stable")
        counts = np.bincount(keys, minlength=1 << _BAND)
        starts = np.concatenate([[0], np.cumsum(counts)])
        wanted = _band(queries, band)
        for flip in flips:
            yield from _compare(
                hashes, queries, wanted ^ flip, order=order, starts=starts, counts=counts, most=most
            )


def _band(values: NDArray[np.uint64], band: int) -> NDArray[np.int64]:
    shifted = values >> np.uint64(_BAND * band)
    found: NDArray[np.int64] = (shifted & np.uint64((1 << _BAND) - 1)).astype(np.int64)
    return found


def _flips(most: int) -> list[int]:
    """All ways to change at most so many of 16 bits."""
    return [
        sum(1 << bit for bit in bits)
        for count in range(most + 1)
        for bits in combinations(range(_BAND), count)
    ]


def _compare(
    hashes: NDArray[np.uint64],
    queries: NDArray[np.uint64],
    keys: NDArray[np.int64],
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    most: int,
) -> Iterator[Pairs]:
    """Compares each query with the hashes whose band has its key, some queries at a time."""
    sizes = counts[keys]
    ends = np.cumsum(sizes)
    begin = 0
    while begin < len(queries):
        done = ends[begin - 1] if begin else 0
        stop = max(begin + 1, int(np.searchsorted(ends, done + _CANDIDATES, side="right")))
        some = sizes[begin:stop]
        rows = np.repeat(np.arange(begin, stop), some)
        inside = np.arange(len(rows)) - np.repeat(np.cumsum(some) - some, some)
        found = order[starts[keys[rows]] + inside]
        bits = np.bitwise_count(queries[rows] ^ hashes[found])
        near = bits <= most
        yield rows[near], found[near], bits[near].astype(np.float64)
        begin = stop


def least_cosine(features: NDArray[np.float32], seed: int = 0) -> float:
    """From which cosine on two rows are taken for the same, told by how alike other rows are.

    Networks differ: unlike photos have cosines about 0.3 in one and 0.8 in another. The measure
    -log(1 - cosine) of random pairs is nearly normal for all; what lies 5 standard deviations above
    its median (told by quantiles, which the duplicates among them do not move) is no chance. It may
    still be the same kind of thing, two black cats say, so that 0.88 is the least.

    Args:
        features: `[n, d]` of length 1; with fewer than 30 rows the result is 0.95.
        seed: of the pairs.
    """
    if len(features) < _FEWEST:
        return 0.95
    random = np.random.default_rng(seed)
    one, other = random.integers(len(features), size=(2, _SAMPLED))
    one, other = one[one != other], other[one != other]
    cosines = np.concatenate(
        [
            np.einsum("nd,nd->n", features[one[start:stop]], features[other[start:stop]])
            for start in range(0, len(one), _BLOCK)
            for stop in [start + _BLOCK]
        ]
    )
    values = -np.log(np.clip(1 - cosines.astype(np.float64), 1e-6, None))
    low, middle, high = np.quantile(values, [0.16, 0.5, 0.84])
    return max(_LEAST, float(1 - np.exp(-(middle + _DEVIATIONS * (high - low) / 2))))


def near_features(features: torch.Tensor, least: float) -> Iterator[Pairs]:
    """All pairs of rows whose cosine is at least so much, each once; never all products at once.

    Args:
        features: `[n, d]` float32 of length 1.
        least: the cosine.

    Yields:
        Places of the earlier row, of the later row, and cosines.
    """
    for start in range(0, len(features), _BLOCK):
        rows = features[start : start + _BLOCK]
        for other in range(start, len(features), _BLOCK):
            cosines = products(rows, features[other : other + _BLOCK])
            one, two = (cosines >= least).nonzero(as_tuple=True)
            later = two + other > one + start
            one, two = one[later], two[later]
            values = cosines[one, two].double().clamp(-1, 1)
            yield (one + start).numpy(), (two + other).numpy(), values.numpy()
