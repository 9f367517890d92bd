"""Photos that a classifier finds alike: an index of its features, and the search in it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict, overload

import torch

from pyxai._errors import argument_error, check_count, folder_of
from pyxai.classifier import Classifier
from pyxai.classifier.features import Pooling
from pyxai.images import PhotoFailure, PhotoSources
from pyxai.neighbors.distances import Metric, MetricName, as_metric
from pyxai.runs import Executor
from pyxai.search.backends import Backend, as_backend
from pyxai.search.building import build_store, extend_store, reduce_store
from pyxai.search.contents import Photo
from pyxai.search.extraction import LayerNames
from pyxai.search.header import Network
from pyxai.search.labels import Labels
from pyxai.search.networks import Models, match, named
from pyxai.search.projection import Projection, principal_components, umap_points
from pyxai.search.queries import OneQuery, Query, read_queries
from pyxai.search.result import SearchResult
from pyxai.search.retrieval import (
    RetrievalReport,
    RetrievalRow,
    check_cutoffs,
    choose_queries,
    evaluate_layer,
)
from pyxai.search.storage import KIND, Store
from pyxai.search.vectors import query_vectors
from pyxai.search.view import View

if TYPE_CHECKING:
    from typing_extensions import Unpack

Directory: TypeAlias = "str | os.PathLike[str]"


class _Options(TypedDict, total=False):
    metric: MetricName
    p: float | None
    layer: str | None
    model: str | None
    box: tuple[int, int, int, int] | None
    include_itself: bool
    backend: str | Backend


class ImageIndex:
    """Features of photos by one or several layers of one or several networks, to search in.

    Made by `build` or `load`. Every photo has an id, its place in the index. Features lie in
    memory, or in files that are mapped into it, so that only what is looked at is read.

        index = pyxai.ImageIndex.build(classifier, "photos/", directory="photos.index")
        found = index.search("new.jpg", 50)
        found.paths, found.distances, found.similarity
        found.save("alike.png")

    docs/search.md says more.
    """

    def __init__(self, store: Store, classifiers: Mapping[str, Classifier] | None = None) -> None:
        """Takes what `build` and `load` made; use these."""
        self._classifiers = dict(classifiers or {})
        self._take(store)

    def _take(self, store: Store, removed: Sequence[str] = ()) -> None:
        """Shows other photos from now on."""
        self._store, self._view = store, View(store)
        self._removed = tuple(removed)

    def __repr__(self) -> str:
        layers = sum(len(network.layers) for network in self.networks)
        names = ", ".join(network.name for network in self.networks)
        return f"ImageIndex({len(self)} photos, {layers} layers of {names})"

    def __len__(self) -> int:
        return len(self._view.photos)

    # ---- making one ----

    @classmethod
    def build(
        cls,
        models: Models,
        photos: PhotoSources,
        *,
        directory: Directory | None = None,
        layers: LayerNames = None,
        pooling: Pooling = "average",
        dtype: Literal["float32", "float16"] = "float32",
        labels: Labels = "folder",
        allow_removal: bool = False,
        executor: Executor = "local",
        progress: bool = True,
    ) -> ImageIndex:
        """Looks at all photos once, and keeps the features of some layers.

        Each photo is decoded once, and each network runs on it once for all its layers, up to the
        last of them. Memory does not grow with the number of photos if there is a directory.

        An index in the directory becomes that of exactly these photos, in their order. Those that
        are not there any more are taken out of it and of its files, and are named in `removed`.
        Photos whose file has another size or time are read, and looked at again if their content
        is another; what moved, with its folder or alone, is known by its content.

        Args:
            models: a classifier (or `nn.Module`), several, or several by name.
            photos: a folder, a list, a generator; see `pyxai.images.iterate_photos`.
            directory: a folder for the index. What is known is written there part by part, of at
                most 512 photos; the same call goes on where a run was interrupted. None keeps the
                features in memory.
            layers: a name or several, as in `model.named_modules()`, of one network or the same of
                all; by name of the network; None, up to 8 of each spread over its depth, which are
                found by running it (`pyxai.search.layers.spread_layers`). The last one is what is
                searched by default.
            pooling: how positions become one vector: "average", "max", "gem" (a mean in between)
                or "flatten" (all of them; wide, and for photos of one size).
            dtype: of the features that are kept; "float16" takes half the space.
            labels: the class of a photo, for evaluation and colours: "folder", the first folder
                below the one that was given (of single files, the folder they are in); a function
                of the path; or None.
            allow_removal: whether an index may lose more than half of its photos, or all below a
                folder that is empty or cannot be read, which may be a disk that is not mounted.
            executor: where photos are read and networks run: "local", in this process.
            progress: whether to show a bar; there is none without a terminal.

        Raises:
            ValueError: an argument does not fit; the directory holds an index of other networks or
                settings, or a damaged one; most of its photos are not there any more.
            pyxai.images.ImageError: there are no photos, or none can be read. Single photos that
                cannot be read are in `failures`.
            BusyError: another run works in the directory.
        """
        classifiers = named(models)
        folder = folder_of("directory", directory)
        store, removed = build_store(
            classifiers,
            photos,
            folder,
            layers=layers,
            pooling=pooling,
            dtype=dtype,
            labels=labels,
            allow_removal=allow_removal,
            executor=executor,
            progress=progress,
        )
        made = cls(store, classifiers)
        made._take(store, removed)
        return made

    def add(
        self,
        photos: PhotoSources,
        *,
        labels: Labels = "folder",
        executor: Executor = "local",
        progress: bool = True,
    ) -> ImageIndex:
        """Adds photos, and reads those again that the index knows and that changed. Returns itself.

        Other photos of the index are not looked at. A photo that cannot be read any more is taken
        out; see `removed`.

        Raises:
            ValueError: the index was loaded without its networks.
            pyxai.images.ImageError: there are no photos, or none can be read.
            BusyError: another run works in the directory.
        """
        classifiers = {network.name: self._classifier(network) for network in self.networks}
        found = extend_store(
            self._store, classifiers, photos, labels=labels, executor=executor, progress=progress
        )
        self._take(*found)
        return self

    def remove(self, photos: Directory | Sequence[Directory]) -> ImageIndex:
        """Takes photos out of the index and of its files, whether they exist or not.

        Args:
            photos: a path, as the index has it or from here; or a folder, with all below it; or
                several. "images[i]" is one that came from memory.

        Returns:
            Itself; `removed` has the names.

        Raises:
            ValueError: the index has no such photo, or no other.
            BusyError: another run works in the directory.
        """
        several = [photos] if isinstance(photos, (str, os.PathLike)) else [*photos]
        found = reduce_store(self._store, several)
        self._take(*found)
        return self

    def save(self, directory: Directory) -> Path:
        """Writes an index that lies in memory into a folder, which it lies in from then on.

        Raises:
            ValueError: there is an index in that folder.
            BusyError: another run works in it.
        """
        folder, own = Path(directory), self._store.directory
        if own is None or folder.resolve() != own.resolve():
            copy = self._store.copied_to(folder)
            if own is None:
                self._take(copy, self._removed)
        return folder

    @classmethod
    def load(cls, directory: Directory, models: Models | None = None) -> ImageIndex:
        """Opens an index; features stay on disk until they are looked at.

        Args:
            directory: where it lies.
            models: its networks, or some of them: needed to search by a photo, not by an id.

        Raises:
            ValueError: it is no index, or a damaged one, which the message names; a network is not
                one of the index. Features are checked when they are used first.
            OSError: a file cannot be read.
        """
        store = Store.load(Path(directory), KIND)
        given = () if models is None else named(models).values()
        return cls(store, match(given, store))

    # ---- what is in it ----

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks, with their layers in order of execution."""
        return self._store.header.networks

    @property
    def photos(self) -> tuple[Photo, ...]:
        """The photos, in the order of their ids."""
        return self._view.photos

    @property
    def failures(self) -> tuple[PhotoFailure, ...]:
        """The photos that could not be used."""
        return tuple(PhotoFailure(*each) for each in self._store.failures.items())

    @property
    def version(self) -> str:
        """The same for indexes of the same photos, in their order, by the same networks."""
        return self._view.version

    @property
    def removed(self) -> tuple[str, ...]:
        """The photos that the call which made or changed the index last has taken out of it."""
        return self._removed

    def features(self, layer: str | None = None, *, model: str | None = None) -> torch.Tensor:
        """The features of a layer, `[n, F]`, of the index's dtype; mapped if in a file.

        Args:
            layer: see `search`.
            model: see `search`.
        """
        pieces = self._view.matrix(self._store.header.place(layer, model)).pieces
        return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces))

    # ---- searching ----

    @overload
    def search(
        self,
        query: list[Query] | range,
        n_neighbors: int = 50,
        **options: Unpack[_Options],
    ) -> list[SearchResult]: ...

    @overload
    def search(
        self,
        query: Query,
        n_neighbors: int = 50,
        **options: Unpack[_Options],
    ) -> SearchResult: ...

    def search(
        self,
        query: Query | list[Query] | range,
        n_neighbors: int = 50,
        *,
        metric: MetricName = "cosine",
        p: float | None = None,
        layer: str | None = None,
        model: str | None = None,
        box: tuple[int, int, int, int] | None = None,
        include_itself: bool = False,
        backend: str | Backend = "exact",
    ) -> SearchResult | list[SearchResult]:
        """The photos nearest to a photo, to a piece of it, or to a photo of the index.

        Args:
            query: a photo, as `pyxai.images.open_photo` takes it; or an id of the index; or several
                of these, as a list; or model input, a float tensor `[N, C, H, W]`.
            n_neighbors: how many photos; fewer come if the index has fewer.
            metric: "cosine", "euclidean", "sqeuclidean", "minkowski", "manhattan", "chebyshev" or
                "correlation"; see `pyxai.neighbors.distances.Metric`.
            p: the order of "minkowski", 1 or more; by default 3.
            layer: whose features are compared; None, the last of the network's.
            model: name of the network; None, the one that has the layer, else the first.
            box: (x0, y0, x1, y1), in pixels of the upright photo: search by this piece of it.
            include_itself: whether a photo that was given by id may be among its own results.
            backend: "exact" (all photos, in blocks, nothing left out); "faiss" or "lancedb",
                approximate for many photos; or a `pyxai.search.backends.Backend`.

        Returns:
            A `SearchResult`, or a list of these for several queries.

        Raises:
            ValueError: an argument does not fit; the index was loaded without the network.
            pyxai.images.ImageError: the photo cannot be read.
        """
        wanted, measure = check_count("n_neighbors", n_neighbors), as_metric(metric, p)
        finder_of = as_backend(backend)
        place, view = self._store.header.place(layer, model), self._view
        queries, single = read_queries(query, view.photos, box)
        vectors = query_vectors(
            queries,
            view.matrix(place),
            self.networks[place[0]].layers[place[1]].name,
            lambda: self._classifier(self.networks[place[0]]),
            self._store.header.pooling,
        )
        more = 0 if include_itself else int(any(each.id is not None for each in queries))
        count = min(wanted + more, len(view.photos))
        finder = view.finder(place, measure, finder_of)
        distances, rows = finder(vectors, count)
        found = []
        for at, one in enumerate(queries):
            keep = rows[at] >= 0
            if one.id is not None and not include_itself:
                keep &= rows[at] != one.id
            chosen = keep.nonzero()[:wanted, 0]
            nearest = rows[at][chosen], distances[at][chosen]
            found.append(self._result(view, one, *nearest, place, measure))
        return found[0] if single else found

    def evaluate(
        self,
        k: int | Sequence[int] = (1, 5, 10, 50),
        *,
        metrics: MetricName | Sequence[MetricName] = ("cosine", "euclidean"),
        layers: str | Sequence[str] | None = None,
        model: str | None = None,
        queries: int | None = 1000,
        bootstrap: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> RetrievalReport:
        """How well photos find others of their class, for each network, layer and metric.

        Each photo that has a class searches all others, the exact way; see
        `pyxai.search.retrieval.measures_of` for the measures. Intervals are bootstrap percentiles
        over the queries: how far other queries of the same kind would move the mean.

        Args:
            k: cutoffs of P@k; nDCG has the largest.
            metrics: one or several.
            layers: one or several; None, all.
            model: name of a network; None, all that have the layers.
            queries: photos that search, at most (a random sample); None, all.
            bootstrap: samples for the intervals; 0 for none.
            confidence: of the intervals.
            seed: of the samples; the global random state is left alone.

        Raises:
            ValueError: an argument does not fit, or no class has two photos.
        """
        cutoffs = check_cutoffs(k)
        given = metrics if isinstance(metrics, (tuple, list)) else (metrics,)
        measures = [as_metric(each) for each in given]
        check_count("bootstrap", bootstrap, least=0)
        if not 0 < confidence < 1:
            raise argument_error("confidence", "a number between 0 and 1", confidence)
        most = None if queries is None else check_count("queries", queries, or_none=True)
        view = self._view
        chosen = choose_queries([photo.label for photo in view.photos], most, seed)
        rows = [
            RetrievalRow(self.networks[i].name, self.networks[i].layers[j].name, str(m), *each)
            for i, j in self._store.header.places(layers, model)
            for m in measures
            for each in evaluate_layer(
                view.matrix((i, j)),
                chosen,
                m,
                cutoffs,
                bootstrap=bootstrap,
                confidence=confidence,
                seed=seed,
            )
        ]
        return RetrievalReport(tuple(rows), chosen.chance, chosen.skipped, confidence)

    def project(
        self,
        layer: str | None = None,
        *,
        method: Literal["pca", "umap"] = "pca",
        model: str | None = None,
        metric: MetricName = "cosine",
        n_neighbors: int = 15,
        seed: int = 0,
    ) -> Projection:
        """The photos as points on a plane, alike ones close together.

        Args:
            layer: see `search`.
            method: "pca", the two directions of largest variance; "umap" (extra `umap`), which
                keeps neighbours together and says nothing by large distances.
            model: see `search`.
            metric: of the neighbours of UMAP.
            n_neighbors: of UMAP, at most.
            seed: of UMAP, and of PCA where scikit-learn takes a randomised decomposition.

        Raises:
            ValueError: an argument does not fit.
            MissingExtraError: umap-learn is not installed.
        """
        place = self._store.header.place(layer, model)
        matrix, name = self._view.matrix(place), self.networks[place[0]].layers[place[1]].name
        paths, labels = zip(*((each.path, each.label) for each in self._view.photos), strict=True)
        if method == "pca":
            points, explained = principal_components(matrix, seed=seed)
            return Projection(points, method, name, (explained[0], explained[1]), paths, labels)
        if method != "umap":
            raise argument_error("method", "'pca' or 'umap'", method)
        least = check_count("n_neighbors", n_neighbors, least=2)
        points = umap_points(matrix, as_metric(metric), least, seed)
        return Projection(points, method, name, None, paths, labels)

    def typical_distance(
        self,
        *,
        metric: MetricName = "cosine",
        p: float | None = None,
        layer: str | None = None,
        model: str | None = None,
    ) -> float:
        """The mean distance of two photos, from a fixed sample of pairs; 1 where it is 0.

        Similarities by metrics other than cosine and correlation are shares of it.

        Args:
            metric: see `search`.
            p: see `search`.
            layer: see `search`.
            model: see `search`.

        Raises:
            ValueError: an argument does not fit.
        """
        place = self._store.header.place(layer, model)
        return self._view.typical_distance(place, as_metric(metric, p))

    def classifier(self, model: str | None = None) -> Classifier:
        """A network of the index, by name; None, the first.

        Raises:
            ValueError: there is no such network, or the index was loaded without it.
        """
        return self._classifier(self.networks[self._store.header.place(None, model)[0]])

    # ---- how ----

    def _classifier(self, network: Network) -> Classifier:
        if network.name not in self._classifiers:
            raise ValueError(
                f"model: expected an index with its network {network.name!r}, which is needed to "
                f"look at new photos: ImageIndex.load(directory, models)"
            )
        return self._classifiers[network.name]

    def _result(
        self,
        view: View,
        query: OneQuery,
        rows: torch.Tensor,
        distances: torch.Tensor,
        place: tuple[int, int],
        metric: Metric,
    ) -> SearchResult:
        network = self.networks[place[0]]
        photos = [view.photos[row] for row in rows.tolist()]
        scale = 1.0 if metric.is_angle else view.typical_distance(place, metric)
        similarity = 100 * (1 - distances / scale).clamp(0, 1)
        label = None if query.id is None else view.photos[query.id].label
        return SearchResult(
            query=query.name,
            query_id=query.id,
            query_label=label,
            ids=rows.numpy().copy(),
            paths=tuple(photo.path for photo in photos),
            labels=tuple(photo.label for photo in photos),
            distances=distances.numpy().copy(),
            similarity=similarity.numpy(),
            network=network.name,
            layer=network.layers[place[1]].name,
            metric=str(metric),
            _picture=query.picture,
        )
