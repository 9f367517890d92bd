"""How well photos of one class are found by each other, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pyxai._errors import argument_error, check_count
from pyxai._measure import Measure
from pyxai._results import Report, Rows
from pyxai._text import text_table
from pyxai.draw.bars import Bar, bars
from pyxai.neighbors.distances import Metric, prepared, ranks
from pyxai.neighbors.nearest import Matrix

Array = NDArray[np.float64]
_QUERIES = 32  # ranked together
_TOP = 15  # of ConvNet Playground's score
_BARS = 160  # of a figure
_AT_ONCE = 1 << 22  # numbers of a bootstrap chunk


@dataclass(frozen=True)
class RetrievalRow:
    """The measures of one network, layer and metric, over all queries or those of one class.

    Attributes:
        network: its name.
        layer: the layer.
        metric: the distance.
        label: the class of the queries, None for all.
        queries: how many.
        measures: by name: "P@k" for each k, "mAP", "R-precision", "nDCG@k" for the largest k, and
            "score", each 0 to 1.
    """

    network: str
    layer: str
    metric: str
    label: str | None
    queries: int
    measures: dict[str, Measure]


@dataclass(frozen=True, eq=False, repr=False)
class RetrievalReport(Report):
    """What `ImageIndex.evaluate` found; a sequence of rows.

    Attributes:
        rows: for each network, layer and metric one over all queries, then one for each class.
        chance: the share of photos of its class among the others, mean over queries: the P@k of
            photos in random order.
        skipped: photos without a class, or alone in theirs; they are never queries.
        confidence: of the intervals.
    """

    rows: tuple[RetrievalRow, ...]
    chance: float
    skipped: int
    confidence: float

    def _facts(self) -> str:
        best = self.best()
        told = f"{best.network} {best.layer}, {best.metric}, mAP {best.measures['mAP']}"
        return f"{len(self.rows)} rows, best: {told}"

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[RetrievalRow]:
        return iter(self.rows)

    def __getitem__(self, place: int) -> RetrievalRow:
        return self.rows[place]

    def figure(self, measure: str = "mAP") -> Image.Image:
        """One measure of each network, layer and metric, over all queries, as bars.

        Args:
            measure: such as "mAP" or "P@10".

        Raises:
            ValueError: there is no such measure.
        """
        rows = [row for row in self.rows if row.label is None][:_BARS]
        if measure not in rows[0].measures:
            raise argument_error("measure", f"one of {', '.join(rows[0].measures)}", measure)
        several = len({row.network for row in rows}) > 1
        shown = []
        for row in rows:
            name = f"{row.network} {row.layer}" if several else row.layer
            found = row.measures[measure]
            shown.append(Bar(f"{name}, {row.metric}", found.value, found.low, found.high))
        title = f"{measure} over {rows[0].queries} queries, intervals of {self.confidence:.0%}"
        note = f"P@k of photos in random order: {self.chance:.3f}"
        return bars(shown, title=title, notes=[note])

    def _table(self) -> Rows:
        names = [*self.rows[0].measures]
        columns = ["network", "layer", "metric", "class", "queries"]
        for name in names:
            columns += [name, f"{name} low", f"{name} high"]
        rows = []
        for row in self.rows:
            numbers = [
                number
                for name in names
                for each in [row.measures[name]]
                for number in (each.value, each.low, each.high)
            ]
            rows.append((row.network, row.layer, row.metric, row.label, row.queries, *numbers))
        return columns, rows

    def __str__(self) -> str:
        return self.table()

    def table(self, *, classes: bool = False) -> str:
        """Per cent with intervals, a line for each network, layer and metric (and class)."""
        names = list(self.rows[0].measures)
        lines = [("network", "layer", "metric", "class", "queries", *names)]
        for row in self.rows:
            if row.label is None or classes:
                cells = [row.measures[name].percent() for name in names]
                label = "all" if row.label is None else row.label
                head = (row.network, row.layer, row.metric, label, str(row.queries))
                lines.append((*head, *cells))
        chance = f"per cent, {100 * self.confidence:g} % intervals; P@k by chance"
        return f"{text_table(lines)}\n{chance}: {100 * self.chance:.1f}"

    def best(self, measure: str = "mAP") -> RetrievalRow:
        """The network, layer and metric with the highest value.

        Raises:
            ValueError: there is no such measure.
        """
        rows = [row for row in self.rows if row.label is None]
        if measure not in rows[0].measures:
            raise argument_error("measure", f"one of {', '.join(rows[0].measures)}", measure)
        return max(rows, key=lambda row: row.measures[measure].value)

    def to_dict(self) -> dict[str, Any]:
        """The rows with all measures, the chance, and what was skipped."""
        return {
            "chance": self.chance,
            "skipped": self.skipped,
            "confidence": self.confidence,
            "rows": [
                {
                    "network": row.network,
                    "layer": row.layer,
                    "metric": row.metric,
                    "class": row.label,
                    "queries": row.queries,
                    "measures": {name: each.to_dict() for name, each in row.measures.items()},
                }
                for row in self.rows
            ],
        }


def relevance_in_order(
    matrix: Matrix, codes: torch.Tensor, queries: torch.Tensor, metric: Metric
) -> Iterator[NDArray[np.bool_]]:
    """For some queries at a time: which photos are of their class, the nearest first.

    All other photos are ranked for each query; the query itself is left out. Photos at the same
    distance are in an order that has nothing to do with their class: that of a fixed shuffle.

    Yields:
        `[q, n - 1]`.
    """
    count = len(matrix)
    shuffled = torch.randperm(
        count, generator=torch.Generator(device="cpu").manual_seed(0), device="cpu"
    )
    terms = matrix.terms(metric)
    for start in range(0, len(queries), _QUERIES):
        ids = queries[start : start + _QUERIES]
        ready = prepared(matrix.take(ids), metric, matrix.origin)
        values = torch.empty((len(ids), count), dtype=torch.float32, device="cpu")
        for first, block in matrix.blocks():
            part = slice(first, first + len(block))
            ranks(ready, block, metric, None if terms is None else terms[part], values[:, part])
        values[torch.arange(len(ids), dtype=torch.int64, device="cpu"), ids] = torch.inf
        order = shuffled[values[:, shuffled].argsort(dim=1, stable=True)]
        yield (codes[order[:, :-1]] == codes[ids][:, None]).numpy()


def measures_of(relevant: NDArray[np.bool_], cutoffs: Sequence[int]) -> dict[str, Array]:
    """Measures of rankings `[q, n]`, for each query; every query has a relevant photo.

    - P@k: the share of relevant photos among the first k.
    - mAP: the mean of the precision at the place of each relevant photo (average precision).
    - R-precision: the precision at R, the number of relevant photos.
    - nDCG@k: Σ 1/log2(1 + place) over relevant photos among the first k, over the most it can be.
    - score: that of ConvNet Playground: Σ (15 − i)/15 · relevant, i = 0 … 14, over 8, the most.

    Returns:
        `[q]` by name.
    """
    n = relevant.shape[1]
    total = relevant.sum(axis=1)
    hits = relevant.cumsum(axis=1)
    places = np.arange(1, n + 1)
    found = {f"P@{k}": hits[:, min(k, n) - 1] / k for k in cutoffs}
    found["mAP"] = (relevant * (hits / places)).sum(axis=1) / total
    found["R-precision"] = hits[np.arange(len(hits)), total - 1] / total
    last = min(max(cutoffs), n)
    gains = 1 / np.log2(1 + places[:last])
    ideal = gains.cumsum()[np.minimum(total, last) - 1]
    found[f"nDCG@{max(cutoffs)}"] = (relevant[:, :last] * gains).sum(axis=1) / ideal
    weights = np.arange(_TOP, 0, -1) / _TOP
    top = min(_TOP, n)
    found["score"] = (relevant[:, :top] * weights[:top]).sum(axis=1) / weights.sum()
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


def estimates(
    values: dict[str, Array], bootstrap: int, confidence: float, random: np.random.Generator
) -> dict[str, Measure]:
    """Means with percentile intervals over samples of the queries, drawn with replacement.

    Source: Efron and Tibshirani, "An introduction to the bootstrap" (1993).
    """
    table = np.stack(list(values.values()), axis=1)
    count = len(table)
    ends = np.full((2, table.shape[1]), np.nan)
    if bootstrap and count > 1:
        step = max(1, _AT_ONCE // count)
        drawn = [
            random.multinomial(count, np.full(count, 1 / count), size=min(step, bootstrap - start))
            @ table
            / count
            for start in range(0, bootstrap, step)
        ]
        tail = (1 - confidence) / 2
        ends = np.quantile(np.concatenate(drawn), [tail, 1 - tail], axis=0)
    means = table.mean(axis=0)
    return {
        name: Measure(float(means[i]), float(ends[0, i]), float(ends[1, i]))
        for i, name in enumerate(values)
    }


def check_cutoffs(k: int | Sequence[int]) -> tuple[int, ...]:
    """The cutoffs of P@k in order.

    Raises:
        ValueError: they are no numbers of photos.
    """
    given = k if isinstance(k, (tuple, list)) else (k,)
    if not given:
        raise argument_error("k", "at least one int", k)
    return tuple(sorted({check_count("k", each) for each in given}))


@dataclass(frozen=True)
class Queries:
    """Which photos are searched by, and the classes of all.

    Attributes:
        ids: `[q]`.
        codes: `[n]`, a number for each class.
        names: the classes.
        chance: the mean share of relevant photos.
        skipped: photos that cannot be queries.
    """

    ids: torch.Tensor
    codes: torch.Tensor
    names: tuple[str, ...]
    chance: float
    skipped: int


def choose_queries(labels: Sequence[str | None], most: int | None, seed: int) -> Queries:
    """Photos with a class that others have too; of too many, a random sample.

    Raises:
        ValueError: there are none.
    """
    names = tuple(sorted({label for label in labels if label is not None}))
    number = {name: place for place, name in enumerate(names)}
    # Photos without a class are of a class of their own, which no query has.
    codes = np.array([-1 if label is None else number[label] for label in labels])
    sizes = np.bincount(codes[codes >= 0], minlength=len(names))
    known = codes >= 0
    usable = np.flatnonzero(known & (sizes[codes] > 1)) if len(names) else np.zeros(0, int)
    if not len(usable):
        raise ValueError(
            "labels: expected photos in a folder for each class, at least one of them with two "
            "photos, got none; see labels of ImageIndex.build"
        )
    skipped = len(codes) - len(usable)
    if most is not None and len(usable) > most:
        usable = np.sort(np.random.default_rng(seed).choice(usable, most, replace=False))
    chance = float(np.mean((sizes[codes[usable]] - 1) / (len(codes) - 1)))
    return Queries(torch.from_numpy(usable), torch.from_numpy(codes), names, chance, skipped)


def evaluate_layer(
    matrix: Matrix,
    queries: Queries,
    metric: Metric,
    cutoffs: Sequence[int],
    *,
    bootstrap: int,
    confidence: float,
    seed: int,
) -> list[tuple[str | None, int, dict[str, Measure]]]:
    """(class or None for all, number of queries, measures) of one layer and metric."""
    parts = [
        measures_of(relevant, cutoffs)
        for relevant in relevance_in_order(matrix, queries.codes, queries.ids, metric)
    ]
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    codes = queries.codes[queries.ids].numpy()
    random = np.random.default_rng(seed)
    found: list[tuple[str | None, int, dict[str, Measure]]] = []
    for place, name in enumerate((None, *queries.names)):
        inside = np.ones(len(codes), bool) if name is None else codes == place - 1
        if inside.any():
            chosen = {key: each[inside] for key, each in values.items()}
            found.append(
                (name, int(inside.sum()), estimates(chosen, bootstrap, confidence, random))
            )
    return found
