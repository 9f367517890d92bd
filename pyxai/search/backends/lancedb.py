"""Search in LanceDB: a folder on this machine, a bucket, or a cluster, by the same call."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pyxai._errors import MissingExtraError, argument_error
from pyxai._outputs import OutputFolder, written_in
from pyxai.neighbors.distances import Metric, prepared
from pyxai.neighbors.nearest import Matrix, check_queries
from pyxai.search.backends import Candidates, Collection, Finder, with_exact_distances

_FOLDER = "lancedb"
_ROWS = 4096  # handed over together


@dataclass(frozen=True)
class LanceDB:
    """A table of LanceDB for each layer, filled at the first search and used by all later ones.

    Attributes:
        uri: where the tables are: a folder, `s3://bucket/path`, `gs://...`, `az://...`, or a
            service `db://name`; None, the folder "lancedb" in the index's own, which goes when
            photos are taken out of the index. Elsewhere old tables are yours to drop.
        index_from: photos from which a table gets an index (IVF_FLAT) and the search is
            approximate; below, LanceDB compares all.
        probes: cells of that index looked at; None, 1/8 of them.
    """

    uri: str | None = None
    index_from: int = 20_000
    probes: int | None = None

    def finder(self, collection: Collection, metric: Metric) -> Finder:
        """See `Backend`; the metric is one that ranks by products."""
        if not metric.by_products:
            expected = "cosine, correlation, euclidean or sqeuclidean for the back end 'lancedb'"
            raise argument_error("metric", expected, str(metric))
        try:
            import lancedb
            import pyarrow
        except ImportError as error:
            raise MissingExtraError("the back end 'lancedb'", "lancedb", "lancedb") from error
        uri = self.uri
        if uri is None:
            if collection.directory is None:
                expected = "an address for an index that lies in memory, LanceDB(uri=...)"
                raise argument_error("uri", expected, None)
            tables = OutputFolder(collection.directory / _FOLDER, "uri", by="an index", whole=True)
            tables.claim()
            uri = str(tables.path)
        matrix = collection.matrix
        # Vectors of cosine and correlation are stored at length 1: then all rank by l2.
        kind = metric.name if metric.is_angle else "plain"
        name = f"{collection.name}-{kind}-{collection.version}"
        connection = lancedb.connect(uri)
        cells = max(1, round(math.sqrt(len(matrix))))
        if not _has_table(connection, name, len(matrix)):
            schema = pyarrow.schema(
                [
                    pyarrow.field("id", pyarrow.int64()),
                    pyarrow.field("vector", pyarrow.list_(pyarrow.float32(), matrix.width)),
                ]
            )
            rows = _batches(pyarrow, schema, matrix, metric)
            connection.create_table(name, rows, schema=schema, mode="overwrite")
        table = connection.open_table(name)
        if len(matrix) >= self.index_from and not table.list_indices():
            from lancedb.index import IvfFlat

            cut = IvfFlat(distance_type="l2", num_partitions=cells)
            table.create_index("vector", config=cut)
        return _Finder(table, matrix, metric, self.probes or max(8, cells // 8))


def remove_tables(directory: Path) -> None:
    """Removes the tables in the folder of an index: they hold features of photos."""
    tables = directory / _FOLDER
    written = written_in(tables)
    if written is None or not written.whole:  # there are none, or they are not ours
        return
    for path in tables.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
    OutputFolder(tables, by="an index", whole=True).discard()


def _has_table(connection: Any, name: str, rows: int) -> bool:
    """Whether the table is there, with all rows: a run may have been stopped while it wrote."""
    try:
        return bool(connection.open_table(name).count_rows() == rows)
    except (ValueError, FileNotFoundError):  # what LanceDB raises for a table that is not there
        return False


def _batches(pyarrow: Any, schema: Any, matrix: Matrix, metric: Metric) -> Iterator[Any]:
    for first, block in matrix.blocks(_ROWS):
        vectors = prepared(block, metric) if metric.is_angle else block
        flat = pyarrow.array(vectors.contiguous().numpy().reshape(-1))
        ids = pyarrow.array(range(first, first + len(block)), pyarrow.int64())
        lists = pyarrow.FixedSizeListArray.from_arrays(flat, matrix.width)
        yield pyarrow.RecordBatch.from_arrays([ids, lists], schema=schema)


class _Finder:
    def __init__(self, table: Any, matrix: Matrix, metric: Metric, probes: int) -> None:
        self._table, self._matrix, self._metric, self._probes = table, matrix, metric, probes

    def __call__(self, queries: torch.Tensor, k: int) -> Candidates:
        check_queries(queries, self._matrix)
        ready = prepared(queries, self._metric) if self._metric.is_angle else queries.float()
        ids = torch.full((len(queries), k), -1, dtype=torch.int64, device="cpu")
        for place, vector in enumerate(ready.numpy()):
            search = self._table.search(vector, vector_column_name="vector")
            search = search.distance_type("l2").nprobes(self._probes).limit(k)
            search = search.select(["id", "_distance"])
            found = search.to_arrow()["id"].to_pylist()
            ids[place, : len(found)] = torch.tensor(found, dtype=torch.int64, device="cpu")
        return with_exact_distances(queries, self._matrix, ids, self._metric, k)
