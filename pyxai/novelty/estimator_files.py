"""Outlier detectors of scikit-learn as bytes of skops, and what is checked when they come back.

skops makes objects of known types only, but does not look into them; and compiled code of
scikit-learn takes node numbers, sizes and indices as they are, wherever they point. So states of
compiled objects must have the length that their code reads; and after loading, every object must be
one of those that are known here, and what compiled code uses of it is checked or made anew.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pyxai._errors import MissingExtraError

_PLAIN = (str, int, float, complex, bool, bytes, type(None), type, np.generic, np.dtype, slice)
_RANDOM = (np.random.RandomState, np.random.Generator)
_NO_NODE = -1
_KERNELS = ("linear", "poly", "rbf", "sigmoid")


class UntrustedTypesError(ValueError):
    """Objects of other types; the message names them."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(
            f"path: expected an estimator of trusted types, got one with {', '.join(names)}; if "
            "you trust where the file comes from, pass these names as trusted="
        )


def estimator_bytes(fitted: Any) -> bytes:
    """A fitted estimator as bytes.

    Raises:
        MissingExtraError: skops is missing.
    """
    return bytes(_skops().dumps(fitted))


def estimator_from(data: bytes, features: int, trusted: Sequence[str]) -> Any:
    """The fitted estimator that `estimator_bytes` was given.

    Args:
        data: the bytes.
        features: how many numbers a row has.
        trusted: full names of types that it may be made of as well; objects of these are not
            looked into.

    Raises:
        MissingExtraError: skops is missing.
        UntrustedTypesError: it is made of other types.
        ValueError: it is damaged.
    """
    skops = _skops()
    known = {*_CHECKED, *_STATES, *trusted}
    try:
        asked = {*skops.get_untrusted_types(data=data)}
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            nodes = [*_nodes_in(json.loads(archive.read("schema.json")))]
        named = {name for name, _ in nodes if name.startswith("sklearn.")}
        if unknown := sorted((asked | named) - known):
            raise UntrustedTypesError(unknown)
        for name, node in nodes:
            _check_node(name, node)
        fitted = skops.loads(data, trusted=sorted(asked))
        objects = [*_objects_in(fitted)]
        if unknown := sorted({_name(each) for each in objects} - known):
            raise UntrustedTypesError(unknown)
        for each in objects:
            name = _name(each)
            if name in _CHECKED and name not in trusted:
                _CHECKED[name](each)
        if _name(fitted) in _CHECKED:
            _require(fitted.n_features_in_ == features, f"rows of {features} numbers")
        return fitted
    except (UntrustedTypesError, MemoryError):
        raise
    except Exception as error:  # of the zip reader, of JSON, of constructors that get nonsense
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"the estimator is damaged ({reason})") from error


def _skops() -> Any:
    try:
        from skops import io
    except ImportError as error:
        purpose = "Saving and loading detectors of scikit-learn"
        raise MissingExtraError(purpose, "skops", "novelty") from error
    return io


# ---- all objects of an estimator ----


def _nodes_in(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """What skops is about to make: full names of types, and how it describes objects of them."""
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "__class__" in value:
                yield f"{value['__module__']}.{value['__class__']}", value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _objects_in(root: Any) -> Iterator[Any]:
    """All that is neither a number, a text, an array of these nor a container, once each."""
    waiting, seen = [root], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, _PLAIN) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, np.ndarray):
            waiting += value.ravel().tolist() if value.dtype == object else ()
        elif isinstance(value, Mapping):
            waiting += (*value.keys(), *value.values())
        elif isinstance(value, (list, tuple, set)):
            waiting += value
        elif not isinstance(value, _RANDOM):
            yield value
            waiting += getattr(value, "__dict__", {}).values()


# ---- what compiled code reads ----


def _require(condition: Any, what: str) -> None:
    if not condition:
        raise ValueError(f"expected {what}")


def _check_node(name: str, node: dict[str, Any]) -> None:
    """Of compiled objects all that they read must be there, before any of them is made."""
    if name == _TREE:
        _require(node["__loader__"] == "TreeNode", "a tree as skops writes it")
    elif name in _STATES:
        state = node["content"]
        plain = node["__loader__"] == "ObjectNode" and state["__loader__"] == "TupleNode"
        _require(plain and len(state["content"]) == _STATES[name], f"all of a {name}")


def _check_tree(tree: Any) -> None:
    """The nodes of a decision tree: numbered from the root down, each with one parent."""
    _require(tree.node_count == tree.capacity > 0, "as many nodes as the tree says")
    nodes = tree.__getstate__()["nodes"]
    count, left, right = len(nodes), nodes["left_child"], nodes["right_child"]
    inner = np.flatnonzero(left != _NO_NODE)
    leaves = np.flatnonzero(left == _NO_NODE)
    _require((right[leaves] == _NO_NODE).all(), "leaves without children")
    children = np.concatenate([left[inner], right[inner]])
    parents = np.concatenate([inner, inner])
    _require(np.array_equal(np.sort(children), np.arange(1, count)), "one parent for each node")
    _require((children > parents).all(), "children that come after their parent")
    feature, samples = nodes["feature"][inner], nodes["n_node_samples"]
    _require(((feature >= 0) & (feature < tree.n_features)).all(), "features that rows have")
    _require((samples > 0).all(), "samples at each node")
    together = samples[left[inner]] + samples[right[inner]]
    _require((samples[inner] == together).all(), "the samples of a node at its children")
    depth, level = -1, np.zeros(1, np.intp)  # room for paths is taken by the depth
    while len(level):
        depth += 1
        level = level[left[level] != _NO_NODE]
        level = np.concatenate([left[level], right[level]])
    _require(tree.max_depth == depth, "the depth that the tree says")


def _check_tree_estimator(estimator: Any) -> None:
    if hasattr(estimator, "tree_"):  # else it has not been fitted
        _require(_name(estimator.tree_) == _TREE, "a tree")
        _require(estimator.n_features_in_ == estimator.tree_.n_features, "a tree for its rows")


def _check_forest(forest: Any) -> None:
    """Each tree fits the features that are chosen for it; there is no check later."""
    width, chosen = int(forest.n_features_in_), forest.estimators_features_
    _require(len(chosen) == len(forest.estimators_) > 0, "features for each tree")
    for member, features in zip(forest.estimators_, chosen, strict=True):
        _require(_name(member) in _TREE_ESTIMATORS, "trees")
        used = width if forest._max_features == width else len(features)
        _require(member.tree_.n_features == used, "trees for rows as wide")


def _check_support_vectors(machine: Any) -> None:
    vectors = machine.support_vectors_
    count, width = vectors.shape
    _require(machine._sparse is False and machine.kernel in _KERNELS, "vectors with a kernel")
    _require(width == machine.n_features_in_, "vectors as wide as rows")
    _require(machine.support_.shape == (count,), "a number for each vector")
    for name in ("_dual_coef_", "dual_coef_"):
        _require(getattr(machine, name).shape == (1, count), "a weight for each vector")
    for name in ("_intercept_", "intercept_"):
        _require(getattr(machine, name).shape == (1,), "one intercept")
    _require(machine._n_support.shape == (2,), "two counts of vectors")
    _require(machine._probA.size == machine._probB.size == 0, "no probabilities")


def _check_neighbors(estimator: Any) -> None:
    """Rows that were fitted, and the tree that finds them."""
    rows, tree = estimator._fit_X, estimator._tree
    _require(isinstance(rows, np.ndarray) and rows.ndim == 2, "rows")
    _require(rows.dtype in (np.float32, np.float64) and rows.flags.c_contiguous, "rows of floats")
    _require(rows.shape[1] == estimator.n_features_in_, "rows as wide as those to come")
    _require(estimator.n_samples_fit_ == len(rows), "as many rows as there were")
    _require(estimator._fit_method in ("brute", "kd_tree", "ball_tree"), "a known search")
    for metric in (estimator.metric, estimator.effective_metric_):
        _require(isinstance(metric, str) and metric != "precomputed", "a metric of rows")
    for name in ("_lrd", "_distances_fit_X_"):
        _require(len(getattr(estimator, name)) == len(rows), "a value for each row")
    if estimator._fit_method != "brute":
        _require(np.asarray(tree.data).shape == rows.shape, "a tree of the rows")


def _check_density(estimator: Any) -> None:
    _require(_name(estimator.tree_) in _SEARCH_TREES, "a tree of rows")
    width = np.asarray(estimator.tree_.data).shape[1]
    _require(width == estimator.n_features_in_, "rows as wide as those to come")


def _make_anew(tree: Any) -> None:
    """A tree of rows is made anew of its rows: the same one, whatever the file says."""
    state = tree.__getstate__()
    data, leaf_size, metric, weights = state[0], state[4], state[11], state[12]
    _require(metric is not None, "a metric")
    _require(weights is None or weights.shape == data.shape[:1], "a weight for each row")
    tree.__init__(data, leaf_size=leaf_size, metric=metric, sample_weight=weights)


def _nothing(estimator: Any) -> None:
    """All that it computes is done by functions that check."""


_TREE = "sklearn.tree._tree.Tree"
_TREE_ESTIMATORS = (
    "sklearn.tree._classes.ExtraTreeRegressor",
    "sklearn.tree._classes.DecisionTreeRegressor",
)
_SEARCH_TREES = (
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neighbors._ball_tree.BallTree",
)
_STATES = {  # compiled objects, and how long the tuples are that they are made of
    **dict.fromkeys(_SEARCH_TREES, 13),
    "sklearn.metrics._dist_metrics.EuclideanDistance64": 3,
}
_CHECKED: dict[str, Callable[[Any], None]] = {
    _TREE: _check_tree,
    **dict.fromkeys(_TREE_ESTIMATORS, _check_tree_estimator),
    **dict.fromkeys(_SEARCH_TREES, _make_anew),
    "sklearn.ensemble._iforest.IsolationForest": _check_forest,
    "sklearn.svm._classes.OneClassSVM": _check_support_vectors,
    "sklearn.neighbors._lof.LocalOutlierFactor": _check_neighbors,
    "sklearn.neighbors._kde.KernelDensity": _check_density,
    "sklearn.covariance._elliptic_envelope.EllipticEnvelope": _nothing,
    "sklearn.mixture._gaussian_mixture.GaussianMixture": _nothing,
    "sklearn.mixture._bayesian_mixture.BayesianGaussianMixture": _nothing,
    "sklearn.decomposition._pca.PCA": _nothing,
    "sklearn.preprocessing._data.StandardScaler": _nothing,
    "sklearn.pipeline.Pipeline": _nothing,
}
