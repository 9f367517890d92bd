"""What is near to what in a set: neighbours, maps, and how well photos find their kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pyxai.playground.photo_files import PhotoSet
from pyxai.playground.writing import SiteFolder, packed
from pyxai.search.header import Network
from pyxai.search.index import ImageIndex
from pyxai.search.retrieval import RetrievalReport

NEIGHBORS = 50
NEIGHBORS_PER_FILE = 100
MEASURES = ("P@1", "P@10", "P@50", "mAP", "R-precision", "nDCG@50", "score")
_TOP = 15  # results whose classes are counted to choose a first photo
_QUERIES = 1000  # photos that search when layers are compared, at most


def write_neighbors(
    site: SiteFolder,
    photos: PhotoSet,
    index: ImageIndex,
    metrics: Sequence[str],
    *,
    progress: bool,
) -> None:
    """The nearest photos to each, by each network, layer and metric."""
    k = min(NEIGHBORS, len(index) - 1)
    kind = "uint16" if len(index) <= 1 << 16 else "uint32"
    for folder, network, name, metric in _jobs(photos, index, "neighbours", metrics, progress):
        step = f"{folder}/neighbors-{metric}-"
        site.begin(step, photos=photos.key, k=k, of=(*_identity(network), name, metric))
        asked: dict[str, Any] = {"metric": metric, "layer": name, "model": network.name}
        typical = index.typical_distance(**asked)
        for first in range(0, len(index), NEIGHBORS_PER_FILE):
            address = f"{step}{first // NEIGHBORS_PER_FILE}"
            if site.has(address):
                continue
            rows = range(first, min(first + NEIGHBORS_PER_FILE, len(index)))
            found = index.search(rows, k, **asked)
            ids = np.stack([each.ids for each in found])
            distances = np.stack([each.distances for each in found])
            record = {"first": first, "ids": packed(ids, kind), "typical": typical}
            site.write(address, {**record, "distances": packed(distances, "float32")})


def write_maps(
    site: SiteFolder,
    photos: PhotoSet,
    index: ImageIndex,
    methods: Sequence[str],
    seed: int,
    *,
    progress: bool,
) -> None:
    """The photos as points on a plane, by each network and layer."""
    for folder, network, name, method in _jobs(photos, index, "maps", methods, progress):
        address = f"{folder}/map-{method}"
        site.begin(f"{address}.js", photos=photos.key, seed=seed, of=(*_identity(network), name))
        if site.has(address):
            continue
        kind = cast(Literal["pca", "umap"], method)
        found = index.project(name, method=kind, model=network.name, seed=seed)
        points = packed(on_a_square(found.points), "uint16")
        site.write(address, {"points": points, "explained": found.explained})


def on_a_square(points: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Points in whole numbers, 0 to 65535 over the larger extent, in the middle of a square."""
    low, high = points.min(axis=0), points.max(axis=0)
    extent = float((high - low).max()) or 1.0
    middle = (low + high) / 2
    shares = (points - middle) / extent + 0.5
    whole: NDArray[np.uint16] = np.rint(shares.clip(0, 1) * 65535).astype(np.uint16)
    return whole


def write_retrieval(
    site: SiteFolder, photos: PhotoSet, index: ImageIndex, metrics: Sequence[str], seed: int
) -> RetrievalReport | None:
    """How well photos find others of their class; None where no class has two."""
    counts = np.bincount([label for label in photos.labels if label >= 0])
    address = f"{photos.address}/retrieval"
    prints = [_identity(network) for network in index.networks]
    layers = [[layer.name for layer in network.layers] for network in index.networks]
    site.begin(f"{address}.js", photos=photos.key, seed=seed, of=(prints, layers, metrics))
    if len(photos.classes) < 2 or counts.max() < 2:
        return None
    report = index.evaluate((1, 10, 50), metrics=list(metrics), queries=_QUERIES, seed=seed)
    numbers = {network.name: place for place, network in enumerate(index.networks)}
    classes = {name: place for place, name in enumerate(photos.classes)}
    rows = []
    for row in report.rows:
        number = numbers[row.network]
        names = [layer.name for layer in index.networks[number].layers]
        measures = [row.measures[name].to_dict() for name in MEASURES]
        rows.append(
            {
                "network": number,
                "layer": names.index(row.layer),
                "metric": row.metric.partition(" ")[0],
                "class": None if row.label is None else classes[row.label],
                "queries": row.queries,
                "measures": [[each["value"], each["low"], each["high"]] for each in measures],
            }
        )
    overall = next(row.queries for row in report.rows if row.label is None)
    head = {"chance": report.chance, "confidence": report.confidence, "queries": overall}
    site.write(address, {**head, "skipped": report.skipped, "rows": rows})
    return report


def good_start(
    photos: PhotoSet, index: ImageIndex, report: RetrievalReport | None, metric: str
) -> dict[str, Any]:
    """What to show first: the best layer, and a photo that finds its kind or something close."""
    number, layer = 0, len(index.networks[0].layers) - 1
    if report is not None:
        rows = [row for row in report.rows if row.label is None and row.metric == metric]
        best = max(rows, key=lambda row: row.measures["mAP"].value)
        number = [network.name for network in index.networks].index(best.network)
        layer = [each.name for each in index.networks[number].layers].index(best.layer)
    network = index.networks[number]
    step = max(1, len(index) // 200)  # of many photos some are tried
    tried = range(0, len(index), step)
    found = index.search(
        list(tried), _TOP, metric=metric, layer=network.layers[layer].name, model=network.name
    )
    scores = [
        (sum(label == each.query_label is not None for label in each.labels), -each.distances.sum())
        for each in found
    ]
    photo = tried[max(range(len(scores)), key=lambda place: scores[place])]
    return {"photo": photo, "network": number, "layer": layer, "metric": metric}


def _jobs(
    photos: PhotoSet, index: ImageIndex, title: str, kinds: Sequence[str], progress: bool
) -> Iterator[tuple[str, Network, str, str]]:
    """(address, network, name of the layer, kind) of each layer of all networks and each kind."""
    jobs = [
        (f"{photos.address}/networks/{number}/layers/{place}", network, layer.name, kind)
        for number, network in enumerate(index.networks)
        for place, layer in enumerate(network.layers)
        for kind in kinds
    ]
    yield from tqdm(jobs, desc=title, unit="job", disable=None if progress else True)


def _identity(network: Network) -> tuple[str, str]:
    """What its features depend on."""
    return network.fingerprint, network.preprocessing
