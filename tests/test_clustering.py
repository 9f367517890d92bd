"""Ward's clustering: the tree of scikit-learn, faster, and what it does beyond an n × n matrix."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.cluster import AgglomerativeClustering
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import check_estimator

from pyxai.galleries import clustering
from pyxai.galleries.clustering import WardClustering


def features(kind, count, channels=64, seed=0):
    """Features with clusters, without any, and as ReLU and pooling leave them."""
    random = np.random.default_rng(seed)
    if kind == "blobs":
        return make_blobs(count, channels, centers=12, cluster_std=3.0, random_state=seed)[0]
    if kind == "noise":
        return random.standard_normal((count, channels)).astype(np.float32)
    if kind == "far from 0":
        return (1e3 + random.standard_normal((count, channels))).astype(np.float32)
    few = random.standard_normal((count, 10)) @ random.standard_normal((10, channels))
    return np.maximum(few - 2, 0).astype(np.float32)


@pytest.mark.parametrize("kind", ["blobs", "noise", "far from 0", "rectified"])
@pytest.mark.parametrize("count", [2, 3, 50, 1100])
def test_labels_and_heights_of_scikit_learn(kind, count):
    samples = features(kind, count)
    for clusters in {1, 2, min(9, count), count // 4 or 1, count}:
        expected = AgglomerativeClustering(clusters, compute_distances=True).fit(samples)
        found = WardClustering(clusters).fit(samples)
        assert adjusted_rand_score(expected.labels_, found.labels_) == 1
        assert found.n_clusters_ == clusters == len(set(found.labels_.tolist()))
    np.testing.assert_allclose(found.distances_, expected.distances_, rtol=1e-5, atol=1e-4)
    assert (found.n_leaves_, found.n_features_in_) == (count, 64)


@pytest.mark.parametrize("kind", ["blobs", "rectified"])
def test_threshold_of_scikit_learn(kind):
    samples = features(kind, 400)
    heights = WardClustering(1).fit(samples).distances_
    for threshold in (0.0, heights[100] * 1.0001, heights[-5] * 1.0001, 1e9):
        expected = AgglomerativeClustering(None, distance_threshold=threshold).fit(samples)
        found = WardClustering(distance_threshold=threshold).fit(samples)
        assert found.n_clusters_ == expected.n_clusters_
        assert adjusted_rand_score(expected.labels_, found.labels_) == 1


def test_a_tree_worked_out_by_hand():
    """On a line at 0, 1 and 10: 0 and 1 are 1 apart; their mean is 9.5 from 10, sizes 2 and 1."""
    found = WardClustering(2).fit([[10.0], [0.0], [1.0]])
    assert found.children_.tolist() == [[1, 2], [0, 3]]
    np.testing.assert_allclose(found.distances_, [1, 9.5 * (4 / 3) ** 0.5], rtol=1e-6)
    assert found.labels_.tolist() == [0, 1, 1]


def test_children_join_each_node_once_and_lower_nodes_first():
    children = WardClustering(1).fit(features("noise", 300)).children_
    assert sorted(children.ravel().tolist()) == list(range(2 * 300 - 2))
    assert (children.max(1) < np.arange(299) + 300).all()
    assert (children[:, 0] < children[:, 1]).all()


def test_equal_samples_merge_at_0():
    base = features("far from 0", 40)
    found = WardClustering(40).fit(np.repeat(base, 5, axis=0))
    assert (found.distances_[:160] == 0).all()
    assert found.distances_[160] > 0
    assert found.labels_.tolist() == np.repeat(np.arange(40), 5).tolist()
    assert WardClustering(2).fit(np.ones((9, 3))).n_clusters_ == 2


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_no_scale_is_too_small_or_large(scale):
    samples = features("blobs", 60)
    found = WardClustering(12).fit(samples * scale)
    plain = WardClustering(12).fit(samples)
    assert found.labels_.tolist() == plain.labels_.tolist()
    np.testing.assert_allclose(found.distances_, plain.distances_ * scale, rtol=1e-5)


def test_samples_stay_as_they_were():
    samples = features("noise", 50)
    before = samples.copy()
    WardClustering(3).fit(samples)
    assert np.array_equal(samples, before)


def test_one_sample():
    found = WardClustering(1).fit([[1.0, 2.0]])
    assert found.labels_.tolist() == [0]
    assert found.children_.shape == (0, 2)


# ---- groups in place of an n × n matrix ----


def test_groups_of_clear_clusters_give_their_labels():
    samples, truth = make_blobs(3000, 16, centers=20, random_state=1)
    found = WardClustering(20, max_exact=400).fit(samples)
    assert found.n_leaves_ <= 400
    assert found.leaves_.shape == found.labels_.shape == (3000,)
    assert adjusted_rand_score(truth, found.labels_) == 1


def test_groups_count_with_their_sizes():
    """As if each sample were there so many times: the upper part of the tree is the same."""
    samples = features("rectified", 60)
    sizes = np.random.default_rng(0).integers(1, 9, 60)
    children, heights = clustering._ward_tree(samples, sizes.astype(np.float64))
    repeated = AgglomerativeClustering(7, compute_distances=True)
    repeated.fit(np.repeat(samples, sizes, axis=0))
    np.testing.assert_allclose(heights, repeated.distances_[-59:], rtol=1e-5)
    labels = np.repeat(clustering._cut(children, 7), sizes)
    assert adjusted_rand_score(repeated.labels_, labels) == 1


def test_groups_are_close_to_the_exact_labels_and_repeatable():
    samples = features("blobs", 2500, channels=16)
    exact = WardClustering(12).fit(samples)
    grouped = WardClustering(12, max_exact=1000).fit(samples)
    assert adjusted_rand_score(exact.labels_, grouped.labels_) > 0.9
    again = WardClustering(12, max_exact=1000).fit(samples)
    assert np.array_equal(again.labels_, grouped.labels_)


# ---- conventions and errors ----


def test_scikit_learn_conventions():
    check_estimator(WardClustering(2), on_skip=None)
    estimator = WardClustering(distance_threshold=2.0, max_exact=50)
    assert clone(estimator).get_params() == {
        "n_clusters": None,
        "distance_threshold": 2.0,
        "max_exact": 50,
    }
    samples = features("noise", 40)
    assert (estimator.fit_predict(samples) == estimator.labels_).all()
    assert WardClustering(np.int64(3)).fit(samples).n_clusters_ == 3  # as in a grid of parameters


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "n_clusters, distance_threshold: expected exactly one, got None and None"),
        ({"n_clusters": 2, "distance_threshold": 1.0}, "expected exactly one, got 2 and 1.0"),
        ({"n_clusters": 9}, "n_clusters: expected at most the 8 samples, got 9"),
        ({"n_clusters": 0}, "n_clusters: expected an int of at least 1, got 0"),
        ({"n_clusters": 2.5}, "n_clusters: expected an int of at least 1, got 2.5"),
        ({"n_clusters": 2, "max_exact": 0}, "max_exact: expected an int of at least 1, got 0"),
        ({"n_clusters": 6, "max_exact": 5}, "n_clusters: expected at most max_exact, 5, for 8"),
        ({"distance_threshold": -1.0}, "distance_threshold: expected 0 or more, got -1.0"),
        ({"distance_threshold": float("nan")}, "distance_threshold: expected 0 or more, got nan"),
    ],
)
def test_bad_parameters(arguments, message):
    with pytest.raises(ValueError, match=f"{message}"):
        WardClustering(**arguments).fit(features("noise", 8))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_finite(bad):
    samples = features("noise", 8)
    samples[3, 2] = bad
    with pytest.raises(ValueError, match="contains"):
        WardClustering(2).fit(samples)
