"""Retrieval measures and maps against plain computation and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pyxai._errors import MissingExtraError
from pyxai.neighbors.distances import as_metric
from pyxai.neighbors.nearest import Matrix
from pyxai.search.projection import principal_components, umap_points
from pyxai.search.retrieval import (
    choose_queries,
    estimates,
    evaluate_layer,
    measures_of,
    relevance_in_order,
)

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


@pytest.mark.parametrize("shape", [(200, 30), (900, 40), (20, 90), (5, 2), (3, 1)])
def test_principal_components(shape):
    rows = torch.randn(shape) * torch.linspace(3, 1, shape[1]) + 5
    points, shares = principal_components(Matrix(list(rows.tensor_split(2))))
    centered = (rows - rows.mean(dim=0)).double().numpy()
    u, s, vt = np.linalg.svd(centered, full_matrices=False)
    count = min(2, *shape)
    signs = np.sign(vt[np.arange(count), np.abs(vt[:count]).argmax(axis=1)])
    expected = (u[:, :count] * s[:count]) * signs
    np.testing.assert_allclose(points[:, :count], expected, atol=1e-4)
    assert shares[:count] == pytest.approx((s**2 / (s**2).sum())[:count])


def test_components_of_many_wide_rows():
    rows = torch.randn(700, 6) @ torch.randn(6, 600) * 3 + torch.randn(700, 600) * 0.3 + 4
    points, shares = principal_components(Matrix([rows]))
    centered = (rows - rows.mean(dim=0)).double().numpy()
    u, s, vt = np.linalg.svd(centered, full_matrices=False)
    expected = u[:, :2] * s[:2] * np.sign(vt[[0, 1], np.abs(vt[:2]).argmax(axis=1)])
    np.testing.assert_allclose(points, expected, atol=1e-4 * float(expected.std()))
    assert shares == pytest.approx((s**2 / (s**2).sum())[:2])


def test_components_in_batches(monkeypatch):
    """Rows come folder by folder: the first batches say little about the last ones."""
    from pyxai.search import projection

    rows = torch.randn(500, 6) @ torch.randn(6, 80) * 3 + torch.randn(500, 80) * 0.3 + 4
    matrix = Matrix(list(rows[rows[:, 0].argsort()].split(130)))
    exact, of_exact = principal_components(matrix)
    monkeypatch.setattr(projection, "_AT_ONCE", 0)
    monkeypatch.setattr(projection, "_BATCH", 0)
    found, shares = principal_components(matrix)
    again, _ = principal_components(matrix)
    np.testing.assert_allclose(found, exact, atol=1e-3 * float(exact.std()))
    assert shares == pytest.approx(of_exact, rel=1e-3)
    assert (found == again).all()


@pytest.mark.parametrize("at_once", [True, False])
def test_components_of_nothing(monkeypatch, at_once):
    """One photo, and photos that are all alike: one point, and no variance to share."""
    from pyxai.search import projection

    if not at_once:
        monkeypatch.setattr(projection, "_AT_ONCE", 0)
    for rows in (torch.rand(1, 3), torch.ones(7, 3), torch.ones(4, 1), torch.ones(200, 90)):
        points, shares = principal_components(Matrix([rows]))
        assert points.shape == (len(rows), 2)
        assert not points.any()
        assert shares == (0, 0)


def test_umap_says_what_is_missing(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r"pyxai-vision\[umap\]"):
        umap_points(Matrix([torch.randn(10, 3)]), as_metric("cosine"), 5, 0)


@pytest.mark.slow
def test_umap_keeps_groups_together():
    pytest.importorskip("umap")
    centers = torch.randn(3, 8) * 20
    rows = torch.cat([center + torch.randn(12, 8) for center in centers])
    points = umap_points(Matrix([rows]), as_metric("euclidean"), 6, 0)
    groups = points.reshape(3, 12, 2)
    within = np.linalg.norm(groups - groups.mean(axis=1, keepdims=True), axis=2).max()
    means = groups.mean(axis=1)
    between = min(np.linalg.norm(means[i] - means[j]) for i in range(3) for j in range(i))
    assert between > within
    assert (points == umap_points(Matrix([rows]), as_metric("euclidean"), 6, 0)).all()
