"""What a site is to hold, checked where it is said."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pyxai._errors import MissingExtraError, argument_error, check_count
from pyxai.attribution.cam.methods import cam_method
from pyxai.neighbors.distances import METRICS, as_metric
from pyxai.playground.explanations import Explaining
from pyxai.playground.unit_pictures import Drawing
from pyxai.search.extraction import LayerNames


@dataclass(frozen=True, kw_only=True)
class SiteSettings:
    """What a site holds; see `pyxai.playground.build`.

    Attributes:
        title: of the site; None, the names of the data sets.
        layers: see `pyxai.ImageIndex.build`.
        metrics: of the search; see `pyxai.ImageIndex.search`. "minkowski" is that of order 3.
        maps: "pca" and "umap" (extra `umap`); None, both if umap-learn is installed.
        units: channels of each layer that get a picture, drawn at random; also how many classes
            do. 0 for none.
        unit_size: side of these pictures in pixels, at most that of the network's input.
        unit_steps: of their optimization; more give clearer pictures.
        crops: pieces of photos beside each of them; at least 0.
        explained: how many photos of each data set have explanations, spread over it; None, all.
        methods: of class activation maps, see `pyxai.cam`.
        windows: whether explanations include sliding windows.
        undesirable: how many photos of each data set, spread over it, have a map of undesirable
            pixels (`pyxai.undesirable_pixels`), which takes longest.
        undesirable_steps: of learning these.
        galleries: whether classes get a page with their most convincing crops
            (`pyxai.ClassGallery`).

    Raises:
        ValueError: a value does not fit; it is named.
        MissingExtraError: "umap" without umap-learn.
    """

    title: str | None = None
    layers: LayerNames = None
    metrics: Sequence[str] = ("cosine", "euclidean", "sqeuclidean", "minkowski")
    maps: Sequence[Literal["pca", "umap"]] | None = None
    units: int = 30
    unit_size: int = 128
    unit_steps: int = 128
    crops: int = 6
    explained: int | None = None
    methods: Sequence[str] = ("auto", "gradcam++", "layercam", "eigencam")
    windows: bool = True
    undesirable: int = 16
    undesirable_steps: int = 200
    galleries: bool = True

    def __post_init__(self) -> None:
        for name in ("units", "undesirable", "crops"):
            check_count(name, getattr(self, name), least=0)
        for name in ("unit_size", "unit_steps", "undesirable_steps"):
            check_count(name, getattr(self, name))
        if self.explained is not None:
            check_count("explained", self.explained, least=0, or_none=True)
        methods = tuple(dict.fromkeys(cam_method(name).name for name in self.methods))
        object.__setattr__(self, "methods", methods)
        object.__setattr__(self, "metrics", check_metrics(self.metrics))
        check_maps(self.maps)

    # What a step of a build depends on, and no more: a site keeps what other settings leave alone.

    def drawing(self, seed: int) -> Drawing:
        """How pictures of channels and classes are made."""
        return Drawing(
            units=self.units,
            size=self.unit_size,
            steps=self.unit_steps,
            crops=self.crops,
            seed=seed,
        )

    def explaining(self, seed: int) -> Explaining:
        """Which explanations photos get."""
        return Explaining(
            photos=self.explained,
            methods=tuple(self.methods),
            windows=self.windows,
            undesirable=self.undesirable,
            steps=self.undesirable_steps,
            seed=seed,
        )


def check_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """The names of the metrics, each once.

    Raises:
        ValueError: one is unknown, or there is none.
    """
    if isinstance(metrics, str) or not metrics:
        raise argument_error("metrics", f"at least one of {', '.join(METRICS)}", metrics)
    return tuple(dict.fromkeys(as_metric(each).name for each in metrics))


def check_maps(maps: Sequence[str] | None) -> tuple[str, ...]:
    """The kinds of map.

    Raises:
        ValueError: one is unknown.
        MissingExtraError: UMAP is asked for and not installed.
    """
    installed = importlib.util.find_spec("umap") is not None
    if maps is None:
        return ("umap", "pca") if installed else ("pca",)
    unknown = [each for each in maps if each not in ("pca", "umap")]
    if isinstance(maps, str) or unknown:
        raise argument_error("maps", "some of 'pca' and 'umap'", maps)
    if "umap" in maps and not installed:
        raise MissingExtraError("a map by UMAP", "umap-learn", "umap")
    return tuple(dict.fromkeys(maps))
