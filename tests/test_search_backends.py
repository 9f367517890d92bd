"""faiss and LanceDB behind the same call as the exact search."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from gallery_photos import PLAIN, color_classifier, folder_of_photos
from PIL import Image

from pyxai import ImageIndex
from pyxai._errors import MissingExtraError
from pyxai.neighbors.distances import METRICS, as_metric
from pyxai.neighbors.nearest import Matrix, nearest
from pyxai.search.backends import Collection, Exact
from pyxai.search.backends.faiss import Faiss
from pyxai.search.backends.lancedb import LanceDB

BY_PRODUCTS = ["cosine", "correlation", "euclidean", "sqeuclidean"]


def blobs(count, width=16):
    random = np.random.default_rng(0)
    centers = random.standard_normal((40, width)) * 3
    rows = centers[random.integers(0, 40, count)] + random.standard_normal((count, width))
    return torch.from_numpy(rows.astype(np.float32))


def recall(found, expected):
    pairs = zip(found.tolist(), expected.tolist(), strict=True)
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs])


def collection(rows, directory=None):
    return Collection(Matrix(list(rows.tensor_split(3))), "layer-0-0", "v1", directory)


def compare(backend, rows, metric, directory=None, k=10):
    queries = rows[:50] + 0.1
    measure = as_metric(metric)
    distances, ids = backend.finder(collection(rows, directory), measure)(queries, k)
    exact, expected = nearest(queries, Matrix([rows]), k, measure)
    return distances, ids, exact, expected


@pytest.mark.parametrize("metric", METRICS)
def test_faiss_flat_is_exact(metric):
    pytest.importorskip("faiss")
    distances, ids, exact, expected = compare(Faiss("Flat"), blobs(800), metric)
    assert recall(ids, expected) > 0.998  # float32 and ties at the last place
    torch.testing.assert_close(distances[:, 0], exact[:, 0])


@pytest.mark.parametrize("metric", METRICS)
def test_faiss_finds_nearly_all(metric):
    pytest.importorskip("faiss")
    distances, ids, exact, expected = compare(Faiss(), blobs(3000), metric)
    assert recall(ids, expected) > 0.9
    assert (distances >= exact - 1e-9).all()


def test_faiss_breadth():
    pytest.importorskip("faiss")
    rows = blobs(3000)
    _, narrow, _, expected = compare(Faiss(probes=1), rows, "euclidean")
    wide = compare(Faiss(probes=200), rows, "euclidean")[1]
    assert recall(narrow, expected) < recall(wide, expected) == pytest.approx(1, abs=0.002)
    with pytest.raises(ValueError, match="factory: expected a string that faiss knows"):
        compare(Faiss("Nonsense"), rows, "euclidean")


@pytest.mark.parametrize("metric", BY_PRODUCTS)
@pytest.mark.parametrize("index_from", [10**6, 100])
def test_lancedb(tmp_path, metric, index_from):
    pytest.importorskip("lancedb")
    backend = LanceDB(index_from=index_from, probes=12)
    distances, ids, exact, expected = compare(backend, blobs(900), metric, tmp_path)
    if index_from > 900:
        assert recall(ids, expected) > 0.998
        torch.testing.assert_close(distances, exact)
    else:
        assert recall(ids, expected) > 0.9
    assert (tmp_path / "lancedb").is_dir()


def test_lancedb_table_is_used_again(tmp_path):
    lancedb = pytest.importorskip("lancedb")
    uri = str(tmp_path / "tables")
    compare(LanceDB(uri), blobs(60), "euclidean", k=3)
    table = lancedb.connect(uri).open_table("layer-0-0-plain-v1")
    before = table.version
    _, ids, _, expected = compare(LanceDB(uri), blobs(60), "sqeuclidean", k=3)
    assert ids.tolist() == expected.tolist()
    assert lancedb.connect(uri).open_table("layer-0-0-plain-v1").version == before


def test_lancedb_refusals(tmp_path):
    with pytest.raises(ValueError, match="metric: expected cosine, correlation, euclidean or"):
        compare(LanceDB(), blobs(20), "manhattan", tmp_path, k=3)
    pytest.importorskip("lancedb")
    with pytest.raises(ValueError, match="uri: expected an address"):
        compare(LanceDB(), blobs(20), "cosine", None, k=3)


@pytest.mark.parametrize(
    ("module", "backend", "extra"), [("faiss", Faiss(), "faiss"), ("lancedb", LanceDB(), "lancedb")]
)
def test_what_is_missing_is_named(monkeypatch, module, backend, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"pyxai-vision\[{extra}\]"):
        compare(backend, blobs(20), "cosine", k=3)


@pytest.mark.parametrize("backend", ["exact", "faiss", "lancedb"])
def test_the_same_call(tmp_path, backend):
    if backend != "exact":
        pytest.importorskip(backend)
    photos = folder_of_photos(tmp_path / "photos", count=3)
    classifier = color_classifier()
    assert classifier.preprocessing == PLAIN
    index = ImageIndex.build(
        classifier, photos, layers="relu", directory=tmp_path / "index", progress=False
    )
    found = index.search([0, index.photos[4].path], 2, backend=backend)
    assert [each.ids.tolist() for each in found] == [
        each.ids.tolist() for each in index.search([0, index.photos[4].path], 2)
    ]
    extra = folder_of_photos(tmp_path / "more", count=4)
    index.add(extra, progress=False)
    assert len(index.search(0, 20, backend=backend)) == 20


def test_tables_go_when_photos_are_taken_out(tmp_path):
    pytest.importorskip("lancedb")
    photos = folder_of_photos(tmp_path / "photos", count=3)
    index = ImageIndex.build(
        color_classifier(), photos, layers="relu", directory=tmp_path / "index", progress=False
    )
    tables = tmp_path / "index" / "lancedb"
    index.search(0, 2, backend="lancedb")
    assert tables.is_dir()
    index.add(photos / "red", progress=False)
    assert tables.is_dir()
    index.remove(photos / "red" / "0.png")
    assert not tables.exists()
    index.search(0, 2, backend="lancedb")
    Image.new("RGB", (96, 96), "white").save(photos / "red" / "1.png")
    again = ImageIndex.build(
        color_classifier(), photos, layers="relu", directory=tmp_path / "index", progress=False
    )
    assert not tables.exists()
    expected = again.search(0, 4).ids.tolist()
    assert again.search(0, 4, backend="lancedb").ids.tolist() == expected
    (tables / "mine.txt").write_text("mine")
    again.remove(photos / "green" / "0.png")
    assert [path.name for path in tables.iterdir()] == ["mine.txt"]


def test_a_backend_of_ones_own(tmp_path):
    class Backwards:
        def finder(self, collection, metric):
            def find(queries, k):
                ids = torch.arange(len(collection.matrix) - 1, -1, -1)[:k].expand(len(queries), -1)
                return torch.zeros(ids.shape, dtype=torch.float64), ids

            return find

    photos = folder_of_photos(tmp_path / "photos", count=2)
    index = ImageIndex.build(color_classifier(), photos, layers="relu", progress=False)
    assert index.search(0, 2, backend=Backwards()).ids.tolist() == [5, 4]
    assert index.search(0, 2, backend=Exact()).metric == "cosine"
