"""Exact neighbours, retrieval measures and maps against plain computation and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from pyxai._errors import MissingExtraError
from pyxai.neighbours import nearest as nearest_module
from pyxai.neighbours.distances import METRICS, as_metric
from pyxai.neighbours.nearest import Matrix, nearest
from pyxai.search.projection import principal_components, umap_points
from pyxai.search.retrieval import (
    choose_queries,
    estimates,
    evaluate_layer,
    measures_of,
    relevance_in_order,
)

EVERY = [(name, None) for name in METRICS]
EVERY += [("minkowski", p) for p in (1, 1.5, 2, 4, 5, 6, 7, 9, math.inf)]
SCIPY = {"manhattan": "cityblock"}


def oracle(queries, rows, name, p):
    a, b = queries.double().numpy(), rows.double().numpy()
    if name == "minkowski":
        order = 3 if p is None else p
        return cdist(a, b, "chebyshev") if order == math.inf else cdist(a, b, "minkowski", p=order)
    return cdist(a, b, SCIPY.get(name, name))


@pytest.mark.parametrize(("name", "p"), EVERY)
@pytest.mark.parametrize("pieces", [1, 3])
def test_neighbours_are_those_of_scipy(monkeypatch, name, p, pieces):
    monkeypatch.setattr(nearest_module, "_MOST_ROWS", 640)  # several blocks, and a rest
    monkeypatch.setattr(nearest_module, "_QUERIES", 8)
    rows, queries = torch.randn(1501, 17) + 1, torch.randn(19, 17) + 1
    matrix = Matrix(list(rows.tensor_split(pieces)))
    distances, found = nearest(queries, matrix, 5, as_metric(name, p))
    expected = oracle(queries, rows, name, p)
    order = expected.argsort(axis=1, kind="stable")[:, :5]
    assert found.tolist() == order.tolist()
    np.testing.assert_allclose(distances, np.take_along_axis(expected, order, 1), rtol=1e-9)


@pytest.mark.parametrize("name", METRICS)
def test_half_precision_rows(name):
    rows = torch.rand(300, 24).half()
    distances, found = nearest(rows[:4].float(), Matrix([rows]), 3, as_metric(name))
    assert found[:, 0].tolist() == [0, 1, 2, 3]
    assert distances[:, 0].abs().max() < 1e-12
    assert distances[:, 1].tolist() == pytest.approx(
        np.sort(oracle(rows[:4], rows, name, None), axis=1)[:, 1].tolist()
    )


def test_by_hand():
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 2.0], [6.0, 8.0]])
    query = torch.tensor([[3.0, 4.0]])
    expected = {
        "euclidean": ([0, math.sqrt(13), 5, 5], [1, 2, 0, 3]),
        "sqeuclidean": ([0, 13, 25, 25], [1, 2, 0, 3]),
        "manhattan": ([0, 5, 7, 7], [1, 2, 0, 3]),
        "chebyshev": ([0, 3, 4, 4], [1, 2, 0, 3]),
        "cosine": ([0, 0, 0.2, 1], [1, 3, 2, 0]),  # a zero vector is at 1
    }
    for name, (values, order) in expected.items():
        distances, found = nearest(query, Matrix([rows]), 4, as_metric(name))
        assert found[0].tolist() == order, name
        assert distances[0].tolist() == pytest.approx(values, abs=1e-12)


def test_large_offsets_do_not_hide_small_distances():
    """‖a‖² + ‖b‖² − 2 a·b loses the distance to rounding; differences do not."""
    rows = 1000 + torch.rand(40, 8)
    distances, found = nearest(rows[:1], Matrix([rows]), 10, as_metric("euclidean"))
    expected = cdist(rows[:1].double(), rows.double())[0]
    assert found[0].tolist() == expected.argsort()[:10].tolist()
    np.testing.assert_allclose(distances[0], np.sort(expected)[:10], rtol=1e-9)


def test_equal_rows_come_in_order():
    rows = torch.ones(500, 3)
    rows[7] = 2
    distances, found = nearest(torch.ones(1, 3), Matrix([rows]), 6, as_metric("euclidean"))
    assert distances[0].tolist() == [0] * 6
    assert len(set(found[0].tolist())) == 6
    assert found[0].tolist() == sorted(found[0].tolist())
    assert 7 not in found[0]


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 400),
    width=st.integers(1, 9),
    k=st.integers(1, 20),
    seed=st.integers(0, 99),
    name=st.sampled_from(METRICS),
)
def test_any_size(count, width, k, seed, name):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn((count, width), generator=generator)
    queries = torch.randn((3, width), generator=generator)
    k = min(k, count)
    distances, found = nearest(queries, Matrix([rows]), k, as_metric(name))
    own = as_metric(name).distances(queries, rows.expand(3, -1, -1))
    torch.testing.assert_close(distances, own.sort(dim=1).values[:, :k], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(distances, own.gather(1, found))
    assert all(len(set(row)) == k for row in found.tolist())


def test_memory_is_that_of_a_block(monkeypatch):
    """Nothing as large as queries x rows is ever made."""
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    monkeypatch.setattr(nearest_module, "_MOST_ROWS", 256)
    monkeypatch.setattr(nearest_module, "_QUERIES", 16)
    matrix, queries = Matrix([torch.randn(20_000, 4)]), torch.randn(300, 4)
    with Watch():
        nearest(queries, matrix, 5, as_metric("cosine"))
    assert largest <= 20_000 * 4  # the rows themselves, and nothing of 300 x 20,000


@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (
            torch.zeros(2, 3),
            1,
            r"queries: expected vectors \[q, 4\], got a float32 tensor \[2, 3\]",
        ),
        (torch.zeros(4), 1, "queries: expected vectors"),
        (torch.full((1, 4), torch.nan), 1, "queries: expected finite numbers"),
        (torch.zeros(1, 4), 11, "k: expected at most 10, the number of rows, got 11"),
        (torch.zeros(1, 4), 0, "k: expected an int of at least 1"),
    ],
)
def test_bad_input(queries, k, message):
    with pytest.raises(ValueError, match=message):
        nearest(queries, Matrix([torch.randn(10, 4)]), k, as_metric("cosine"))


def test_bad_matrices():
    with pytest.raises(ValueError, match="matrix: expected pieces of one width"):
        Matrix([torch.zeros(2, 3), torch.zeros(2, 4)])
    with pytest.raises(ValueError, match="matrix: expected tensors"):
        Matrix([])


# ---- retrieval ----


def test_measures_by_hand():
    relevant = np.array([[True, False, True, False, False, True]])
    found = {name: values[0] for name, values in measures_of(relevant, (1, 2, 5)).items()}
    assert found["P@1"] == 1
    assert found["P@2"] == 0.5
    assert found["P@5"] == 0.4
    assert found["mAP"] == pytest.approx((1 + 2 / 3 + 3 / 6) / 3)
    assert found["R-precision"] == pytest.approx(2 / 3)
    gains = [1 / math.log2(1 + place) for place in range(1, 6)]
    assert found["nDCG@5"] == pytest.approx((gains[0] + gains[2]) / sum(gains[:3]))
    # ConvNet Playground: places weigh 15/15, 14/15, ..., over their sum, 8.
    assert found["score"] == pytest.approx((15 + 13 + 10) / 15 / 8)


def test_perfect_and_worst_rankings():
    best = np.zeros((1, 40), bool)
    best[0, :19] = True
    for name, value in measures_of(best, (5, 15)).items():
        assert value[0] == pytest.approx(1), name
    worst = best[:, ::-1]
    values = measures_of(worst, (5, 15))
    assert values["P@15"] == values["score"] == values["R-precision"] == 0
    assert 0 < values["mAP"][0] < 0.5


def test_the_query_is_left_out_and_others_are_ranked():
    matrix = Matrix([torch.tensor([[0.0], [1.0], [3.0], [10.0], [11.5]])])
    codes = torch.tensor([0, 1, 0, 1, 1])
    (found,) = relevance_in_order(matrix, codes, torch.tensor([0, 3]), as_metric("euclidean"))
    assert found.tolist() == [[False, True, False, False], [True, False, True, False]]


def test_equal_distances_do_not_favour_a_class():
    """Photos come in folders; constant features must not look better than chance."""
    matrix = Matrix([torch.ones(400, 3)])
    queries = choose_queries(["a"] * 200 + ["b"] * 200, None, 0)
    rows = evaluate_layer(
        matrix, queries, as_metric("cosine"), (10,), bootstrap=0, confidence=0.9, seed=0
    )
    # A fixed order is good for one class and bad for the other, by as much.
    assert rows[0][2]["mAP"].value == pytest.approx(0.5, abs=0.03)


def test_intervals():
    values = {"x": np.random.default_rng(0).random(400), "one": np.ones(400)}
    found = estimates(values, 2000, 0.95, np.random.default_rng(1))
    mean, error = values["x"].mean(), values["x"].std() / 20
    assert found["x"].value == pytest.approx(mean)
    assert found["x"].low == pytest.approx(mean - 1.96 * error, abs=0.1 * error)
    assert found["x"].high == pytest.approx(mean + 1.96 * error, abs=0.1 * error)
    assert (found["one"].low, found["one"].high) == (1, 1)
    assert np.isnan(estimates(values, 0, 0.95, np.random.default_rng(1))["x"].low)


def test_queries_are_photos_whose_class_others_have():
    chosen = choose_queries(["a", "a", "b", None, "c", "c", "c"], None, 0)
    assert chosen.ids.tolist() == [0, 1, 4, 5, 6]
    assert chosen.skipped == 2
    assert chosen.chance == pytest.approx((2 * 1 / 6 + 3 * 2 / 6) / 5)
    some = choose_queries(["a"] * 50, 7, 3)
    assert len(some.ids) == 7
    assert some.ids.tolist() == choose_queries(["a"] * 50, 7, 3).ids.tolist()
    for labels in (["a", "b"], [None, None]):
        with pytest.raises(ValueError, match="labels: expected photos in a folder for each class"):
            choose_queries(labels, None, 0)


# ---- maps ----


@pytest.mark.parametrize("shape", [(200, 30), (20, 90), (5, 2), (3, 1)])
def test_principal_components(shape):
    rows = torch.randn(shape) * torch.linspace(3, 1, shape[1]) + 5
    points, shares = principal_components(Matrix(list(rows.tensor_split(2))))
    centred = (rows - rows.mean(dim=0)).double().numpy()
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    count = min(2, *shape)
    signs = np.sign(vt[np.arange(count), np.abs(vt[:count]).argmax(axis=1)])
    expected = (u[:, :count] * s[:count]) * signs
    np.testing.assert_allclose(points[:, :count], expected, atol=1e-4)
    assert shares[:count] == pytest.approx((s**2 / (s**2).sum())[:count])


def test_randomised_components(monkeypatch):
    from pyxai.search import projection

    rows = torch.randn(120, 6) @ torch.randn(6, 80) * 3 + torch.randn(120, 80) * 0.1
    exact, _ = principal_components(Matrix([rows]))
    monkeypatch.setattr(projection, "_MOST_EXACT", 50)
    found, _ = principal_components(Matrix([rows]))
    again, _ = principal_components(Matrix([rows]))
    np.testing.assert_allclose(found, exact, atol=1e-3)
    assert (found == again).all()


def test_umap_says_what_is_missing(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r"pyxai-vision\[umap\]"):
        umap_points(Matrix([torch.randn(10, 3)]), as_metric("cosine"), 5, 0)


@pytest.mark.slow
def test_umap_keeps_groups_together():
    pytest.importorskip("umap")
    centres = torch.randn(3, 8) * 20
    rows = torch.cat([centre + torch.randn(12, 8) for centre in centres])
    points = umap_points(Matrix([rows]), as_metric("euclidean"), 6, 0)
    groups = points.reshape(3, 12, 2)
    within = np.linalg.norm(groups - groups.mean(axis=1, keepdims=True), axis=2).max()
    means = groups.mean(axis=1)
    between = min(np.linalg.norm(means[i] - means[j]) for i in range(3) for j in range(i))
    assert between > within
    assert (points == umap_points(Matrix([rows]), as_metric("euclidean"), 6, 0)).all()
