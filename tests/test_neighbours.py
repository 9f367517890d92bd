"""Exact neighbours against SciPy, by hand and by properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from pyxai.neighbors import nearest as nearest_module
from pyxai.neighbors.distances import METRICS, as_metric
from pyxai.neighbors.nearest import Matrix, nearest
from pyxai.neighbors.products import products
from pyxai.neighbors.smallest import Smallest

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


# ---- the parts ----


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 900),
    wanted=st.integers(1, 40),
    queries=st.integers(0, 5),
    block=st.integers(1, 500),
    different=st.sampled_from([1, 3, 50, 10**6]),
    seed=st.integers(0, 99),
)
def test_smallest_of_blocks(count, wanted, queries, block, different, seed):
    """Any sizes, more wanted than there are groups or values, and ties."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(different, (queries, count), generator=generator).float()
    best = Smallest(queries, wanted)
    for first in range(0, count, block):
        some = values[:, first : first + block]
        for start in range(0, queries, 2):
            part = slice(start, start + 2)
            best.add(some[part], first, part)
    known = min(wanted, count)
    found, order = best.values.sort(dim=1)
    assert (found[:, :known] == values.sort(dim=1).values[:, :known]).all()
    assert (found[:, known:] == torch.inf).all()
    columns = best.columns.gather(1, order)[:, :known]
    if count:
        assert (values.gather(1, columns) == found[:, :known]).all()
    assert all(len(set(row)) == known for row in columns.tolist())


@pytest.mark.parametrize("shape", [(0, 5, 3), (1, 1, 1), (1, 900, 33), (300, 1, 7), (65, 130, 515)])
@pytest.mark.parametrize("grad", [False, True])
def test_products(shape, grad):
    queries, rows, width = shape
    a, b = torch.randn(queries, width), torch.randn(rows, width, requires_grad=grad)
    found = products(a, b)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    expected = (a.double() @ b.double().T).float()
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-4)


def test_products_without_onednn(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert products(torch.eye(2), torch.tensor([[1.0, 2.0]])).tolist() == [[1.0], [2.0]]


def test_no_queries_find_nothing():
    distances, found = nearest(torch.zeros(0, 4), Matrix([torch.randn(9, 4)]), 3, as_metric("l2"))
    assert distances.shape == found.shape == (0, 3)
