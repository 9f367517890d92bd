"""What an index holds at one time, with what was worked out about it."""

from __future__ import annotations

import threading

from pyxai._sealed import digest
from pyxai.neighbors.distances import Metric
from pyxai.neighbors.nearest import Matrix
from pyxai.search.backends import Backend, Collection, Finder
from pyxai.search.contents import Photo
from pyxai.search.header import key
from pyxai.search.result import typical_distance
from pyxai.search.storage import Store


class View:
    """The photos of an index and what is kept for searches; several threads may use it.

    An index that changes gets another one, so that a search in progress sees one state.

    Attributes:
        photos: in the order of their ids.
    """

    def __init__(self, store: Store) -> None:
        """Looks at what is in a store now."""
        self.photos = tuple(map(Photo.of, store.photos()))
        self._header, self._directory = store.header, store.directory
        self._parts = tuple(store.parts)
        self._lock = threading.Lock()
        self._matrices: dict[tuple[int, int], Matrix] = {}
        self._finders: dict[tuple[int, int, Metric, Backend], Finder] = {}
        self._typical: dict[tuple[int, int, Metric], float] = {}

    def matrix(self, place: tuple[int, int]) -> Matrix:
        """The features of a (network, layer).

        Raises:
            DamagedError: they are not as they were written.
        """
        with self._lock:
            return self._matrix(place)

    def finder(self, place: tuple[int, int], metric: Metric, backend: Backend) -> Finder:
        """What finds neighbours in a layer.

        Raises:
            DamagedError: see `matrix`.
            ValueError: the back end cannot search by this metric.
        """
        key = (*place, metric, backend)
        with self._lock:
            if key not in self._finders:
                name = f"layer-{place[0]}-{place[1]}"
                collection = Collection(self._matrix(place), name, self.version, self._directory)
                self._finders[key] = backend.finder(collection, metric)
            return self._finders[key]

    def typical_distance(self, place: tuple[int, int], metric: Metric) -> float:
        """See `ImageIndex.typical_distance`."""
        key = (*place, metric)
        if key not in self._typical:
            self._typical[key] = typical_distance(self.matrix(place), metric)
        return self._typical[key]

    @property
    def version(self) -> str:
        """Tells what is here from what is in other states of the index, or in others."""
        prints = "-".join(network.fingerprint[:8] for network in self._header.networks)
        return f"{prints}-{digest(photo.content.encode() for photo in self.photos)[:16]}"

    def _matrix(self, place: tuple[int, int]) -> Matrix:
        if place not in self._matrices:
            self._matrices[place] = Matrix([part.tensor(key(*place)) for part in self._parts])
        return self._matrices[place]
