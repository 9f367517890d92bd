"""Scores of familiarity: worked numbers, and the formulas written out again as oracles."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from sklearn.covariance import EmpiricalCovariance
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from pyxai.classifier import LinearHead
from pyxai.novelty import (
    ASH,
    FDBD,
    GEN,
    KNN,
    MSP,
    SCALE,
    Activations,
    Energy,
    Logistic,
    Mahalanobis,
    MaxLogit,
    OutlierEstimator,
    ReAct,
    RelativeMahalanobis,
    ViM,
)
from pyxai.novelty.moments import Moments, Reservoir
from pyxai.novelty.scores import METHODS, Setting, score_for

CLASSES, WIDTH = 6, 40


def chunks_of(features, logits, size=37):
    for start in range(0, len(features), size):
        some = slice(start, start + size)
        yield Activations(torch.from_numpy(features[some]), torch.from_numpy(logits[some]))


def fitted(score, features, logits, head=None, labels=None, seed=0):
    score.begin(Setting(features.shape[1], logits.shape[1], logits.shape[1], head, seed))
    done = 0
    for chunk in chunks_of(features, logits):
        classes = chunk.logits.argmax(1).numpy()
        if labels is not None:
            classes = labels[done : done + len(chunk)]
        score.update(chunk, classes)
        done += len(chunk)
    score.finish()
    return score


def score_of(score, features, logits=None):
    logits = None if logits is None else torch.as_tensor(logits)
    return score(Activations(torch.as_tensor(features), logits)).numpy()


@pytest.fixture(scope="module")
def world():
    """A linear head, activations as a ReLU gives them, some of which it does not know."""
    random = np.random.default_rng(0)
    centers = random.normal(size=(CLASSES, WIDTH))
    weight = (0.2 * centers).astype(np.float32)
    bias = random.normal(size=CLASSES).astype(np.float32)

    def known(count):
        labels = random.integers(CLASSES, size=count)
        rows = centers[labels] + random.normal(size=(count, WIDTH))
        return np.maximum(rows, 0).astype(np.float32), labels

    (train, labels), (test, _) = known(700), known(300)
    novel = np.maximum(random.normal(size=(250, WIDTH)) * 1.2, 0).astype(np.float32)
    head = LinearHead(torch.from_numpy(weight), torch.from_numpy(bias))
    return {
        "head": head,
        "weight": weight.astype(np.float64),
        "bias": bias.astype(np.float64),
        "labels": labels,
        **{
            name: (rows, (rows @ weight.T + bias).astype(np.float32))
            for name, rows in (("train", train), ("test", test), ("novel", novel))
        },
    }


def auroc(known, novel):
    return roc_auc_score(
        np.repeat([1, 0], [len(known), len(novel)]), np.concatenate([known, novel])
    )


# ---- numbers worked by hand ----


def test_scores_of_logits():
    logits = [[0.0, math.log(3.0)]]  # probabilities 1/4 and 3/4
    features = [[0.0]]
    assert score_of(MSP(), features, logits) == pytest.approx([0.75])
    assert score_of(MaxLogit(), features, logits) == pytest.approx([math.log(3)])
    assert score_of(Energy(), features, logits) == pytest.approx([math.log(4)])
    # 2 log(1 + sqrt 3)
    assert score_of(Energy(2.0), features, logits) == pytest.approx([2 * math.log(1 + 3**0.5)])
    # p (1 - p) is 3/16 for both
    assert score_of(GEN(0.5), features, logits) == pytest.approx([-2 * (3 / 16) ** 0.5])
    assert score_of(GEN(0.5, top=1), features, logits) == pytest.approx([-((3 / 16) ** 0.5)])


def test_very_sure_logits_stay_finite_and_ordered():
    logits = [[60.0, 0.0], [90.0, 0.0], [1000.0, 0.0]]
    features = np.zeros((3, 1))
    for score in (GEN(), Energy(), MaxLogit()):
        found = score_of(score, features, logits)
        assert np.isfinite(found).all()
        assert found[0] < found[1] < found[2] or score.name == "gen"
    assert (np.diff(score_of(GEN(), features, logits)) >= 0).all()


def test_knn_on_a_circle():
    known = np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]], np.float32)
    logits = np.zeros((3, 2), np.float32)
    query = [[5.0, 0.0]]  # at distances 0, sqrt 2 and 2 once all have length 1
    for k, distance in ((1, 0.0), (2, 2**0.5), (3, 2.0), (50, 2.0)):
        assert score_of(fitted(KNN(k), known, logits), query) == pytest.approx(
            [-distance], abs=1e-6
        )


def test_mahalanobis_of_two_classes_on_a_line():
    features = np.array([[0.0], [2.0], [10.0], [12.0]])
    logits = np.array([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 2)
    # Means 1 and 11, variance within classes 1; over all mean 6, variance 26.
    score = fitted(Mahalanobis(), features, logits)
    assert score_of(score, [[4.0], [11.5]]) == pytest.approx([-9.0, -0.25])
    score = fitted(RelativeMahalanobis(), features, logits)
    assert score_of(score, [[4.0]]) == pytest.approx([-(9 - 4 / 26)])
    # Halfway to a multiple of the identity, in one dimension the same.
    score = fitted(Mahalanobis(shrinkage=0.5), features, logits)
    assert score_of(score, [[4.0]]) == pytest.approx([-9.0])


def test_directions_without_variance_count_for_nothing_unless_shrunk():
    features = np.array([[0.0, 5.0], [2.0, 5.0]])
    logits = np.array([[1.0, 0.0]] * 2)
    assert score_of(fitted(Mahalanobis(), features, logits), [[1.0, 9.0]]) == pytest.approx([0.0])
    # Covariance diag(1, 0), shrunk by half: diag(3/4, 1/4).
    shrunk = fitted(Mahalanobis(shrinkage=0.5), features, logits)
    assert score_of(shrunk, [[1.0, 9.0]]) == pytest.approx([-16 / 0.25])


def test_vim_in_the_plane():
    head = LinearHead(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.zeros(2))
    features = np.array([[3.0, 1.0], [-3.0, 1.0], [3.0, -1.0], [-3.0, -1.0]])
    logits = features[:, :1] * np.array([[1.0, -1.0]])
    # The first axis is the principal space; the residual is |y|, 1; largest logits are 3.
    score = fitted(ViM(dim=1), features, logits, head)
    found = score_of(score, [[2.0, -4.0]], [[2.0, -2.0]])
    assert found == pytest.approx([math.log(math.exp(2) + math.exp(-2)) - 3 * 4])


def test_shaped_activations():
    head = LinearHead(torch.eye(4)[:2], torch.tensor([0.5, 0.0]))
    features = np.array([[1.0, 2.0, 3.0, 4.0]])
    logits = features[:, :2] + np.array([[0.5, 0.0]])

    def energy(*values):
        return pytest.approx([logsumexp(values)], rel=1e-6)

    half = {"percentile": 50.0}  # keeps 3 and 4 of 10
    react = fitted(ReAct(**half), features, logits, head)  # the median is 2.5
    assert score_of(react, [[9.0, 1.0, 0.0, 0.0]], logits) == energy(3.0, 1.0)
    rows = [[4.0, 3.0, 2.0, 1.0]]
    grown = math.exp(10 / 7)
    for score, values in (
        (ASH(**half, variant="p"), (4.5, 3.0)),
        (ASH(**half, variant="b"), (5.5, 5.0)),
        (ASH(**half, variant="s"), (4 * grown + 0.5, 3 * grown)),
        (SCALE(**half), (4 * grown + 0.5, 3 * grown)),
    ):
        assert score_of(fitted(score, features, logits, head), rows, logits) == energy(*values)
    rows = [[2.0, 1.0, 4.0, 3.0]]  # the head sees what ASH prunes and SCALE does not
    assert score_of(fitted(ASH(**half), features, logits, head), rows, logits) == energy(0.5, 0)
    scaled = score_of(fitted(SCALE(**half), features, logits, head), rows, logits)
    assert scaled == energy(2 * grown + 0.5, grown)


def test_fdbd_of_two_classes():
    head = LinearHead(torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.zeros(2))
    features = np.array([[0.0, 0.0], [2.0, 0.0]])  # mean (1, 0)
    score = fitted(FDBD(), features, np.zeros((2, 2)), head)
    # Logits 12 and 4 differ by 8, weights by 5; (4, 1) lies sqrt 10 from the mean.
    found = score_of(score, [[4.0, 1.0]], [[12.0, 4.0]])
    assert found == pytest.approx([8 / 5 / 10**0.5])


def test_an_image_without_activations_has_a_score(world):
    rows = np.zeros((2, WIDTH), np.float32)
    logits = np.repeat(world["bias"][None].astype(np.float32), 2, axis=0)
    for method in METHODS:
        if method != "logistic":
            score = fitted(score_for(method), *world["train"], world["head"])
            assert np.isfinite(score_of(score, rows, logits)).all(), method


# ---- the same formulas written out for all rows at once ----


def plain_knn(world, rows, logits):
    unit = [
        each / np.linalg.norm(each, axis=1, keepdims=True) for each in (world["train"][0], rows)
    ]
    return -NearestNeighbors(n_neighbors=50).fit(unit[0]).kneighbors(unit[1])[0][:, -1]


def plain_mahalanobis(world, rows, logits):
    train = world["train"][0].astype(np.float64)
    means = np.stack([train[world["labels"] == each].mean(axis=0) for each in range(CLASSES)])
    centered = EmpiricalCovariance(assume_centered=True).fit(train - means[world["labels"]])
    return -np.stack([centered.mahalanobis(rows - mean) for mean in means]).min(axis=0)


def plain_relative_mahalanobis(world, rows, logits):
    background = EmpiricalCovariance().fit(world["train"][0].astype(np.float64))
    return plain_mahalanobis(world, rows, logits) + background.mahalanobis(rows)


def plain_vim(world, rows, logits):
    train, train_logits = (each.astype(np.float64) for each in world["train"])
    origin = -np.linalg.pinv(world["weight"]) @ world["bias"]
    second = EmpiricalCovariance(assume_centered=True).fit(train - origin).covariance_
    values, vectors = np.linalg.eigh(second)
    residual = vectors[:, np.argsort(-values)[WIDTH // 2 :]]
    norms = np.linalg.norm((train - origin) @ residual, axis=1)
    scale = train_logits.max(axis=1).mean() / norms.mean()
    return logsumexp(logits, axis=1) - scale * np.linalg.norm((rows - origin) @ residual, axis=1)


def plain_react(world, rows, logits):
    cut = np.percentile(world["train"][0], 90)
    return logsumexp(np.minimum(rows, cut) @ world["weight"].T + world["bias"], axis=1)


def plain_fdbd(world, rows, logits):
    apart = np.linalg.norm(world["weight"][:, None] - world["weight"], axis=2) + np.eye(CLASSES)
    top = logits.argmax(axis=1)
    gaps = np.abs(logits - logits.max(axis=1, keepdims=True)) / apart[top]
    far = np.linalg.norm(rows - world["train"][0].mean(axis=0), axis=1)
    return gaps.sum(axis=1) / (CLASSES - 1) / far


def plain_gen(world, rows, logits):
    p = softmax(logits.astype(np.float64), axis=1)
    return -((p * (1 - p)) ** 0.1).sum(axis=1)


ORACLES = {
    "knn": plain_knn,
    "mahalanobis": plain_mahalanobis,
    "relative_mahalanobis": plain_relative_mahalanobis,
    "vim": plain_vim,
    "energy": lambda world, rows, logits: logsumexp(logits, axis=1),
    "msp": lambda world, rows, logits: softmax(logits.astype(np.float64), axis=1).max(axis=1),
    "max_logit": lambda world, rows, logits: logits.max(axis=1),
    "gen": plain_gen,
    "react": plain_react,
    "fdbd": plain_fdbd,
}


@pytest.mark.parametrize("method", ORACLES)
def test_scores_are_the_formulas(world, method):
    score = fitted(score_for(method), *world["train"], world["head"], world["labels"])
    found, expected = (
        [call(*world[side]) for side in ("test", "novel")]
        for call in (
            lambda rows, logits: score_of(score, rows, logits),
            lambda rows, logits: ORACLES[method](world, rows, logits),
        )
    )
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=2e-4, atol=1e-5)
    assert auroc(*found) == pytest.approx(auroc(*expected), abs=1e-3)
    assert auroc(*found) > 0.6


@pytest.mark.parametrize("method", ["knn", "mahalanobis", "vim", "energy", "msp", "ash", "react"])
def test_auroc_agrees_with_pytorch_ood(world, method):
    ood = pytest.importorskip("pytorch_ood.detector")
    head, (train, _) = world["head"], world["train"]
    train, labels = torch.from_numpy(train), torch.from_numpy(world["labels"])

    def linear(rows):
        return rows.flatten(1) @ head.weight.T + head.bias

    def nothing(rows):
        return rows

    make = {
        "knn": lambda: ood.KNN(nothing, k=50),
        "mahalanobis": lambda: ood.Mahalanobis(nothing),
        "vim": lambda: ood.ViM(nothing, WIDTH // 2, head.weight, head.bias),
        "energy": lambda: ood.EnergyBased(linear),
        "msp": lambda: ood.MaxSoftmax(linear),
        "ash": lambda: ood.ASH(nothing, linear, percentile=0.9),
        "react": lambda: ood.ReAct(nothing, linear, float(np.percentile(train.numpy(), 90))),
    }
    other = make[method]()
    if method == "knn":  # it takes activations as they are
        unit = torch.nn.functional.normalize(train, dim=1)
        other = other.fit_features(unit, labels)
    elif method == "mahalanobis":
        other = other.fit_features(train, labels)
    elif method == "vim":
        other = other.fit([(train, labels)])
    sides = []
    for side in ("test", "novel"):
        rows = torch.from_numpy(world[side][0])
        rows = torch.nn.functional.normalize(rows, dim=1) if method == "knn" else rows
        rows = rows[:, :, None, None] if method == "ash" else rows  # it takes maps
        sides.append(-np.asarray(other.predict(rows)))
    score = score_for(method)
    score = ASH(variant="s") if method == "ash" else score
    score = fitted(score, *world["train"], head, world["labels"])
    mine = [score_of(score, *world[side]) for side in ("test", "novel")]
    assert auroc(*mine) == pytest.approx(auroc(*sides), abs=1e-3)


# ---- statistics of streams ----


def test_moments_do_not_depend_on_how_rows_are_cut():
    random = np.random.default_rng(1)
    rows = random.normal(size=(200, 5)) + 1000.0  # far from 0: sums of squares would lose digits
    labels = random.integers(3, size=200)
    whole, cut = Moments(4, 5), Moments(4, 5)
    whole.add(torch.from_numpy(rows), labels)
    for start in range(0, 200, 7):
        some = slice(start, start + 7)
        cut.add(torch.from_numpy(rows[some]), labels[some])
    centered = rows - np.stack([rows[labels == each].mean(axis=0) for each in range(3)])[labels]
    for found in (whole, cut):
        assert found.counts.tolist() == [*np.bincount(labels, minlength=3), 0]
        np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(found.within(), centered.T @ centered / 200, rtol=1e-8)
        total = np.cov(rows.T, bias=True)
        np.testing.assert_allclose(found.about(found.mean), total, rtol=1e-8, atol=1e-9)


def test_a_reservoir_is_a_sample_that_depends_on_the_seed_alone():
    rows = torch.arange(20_000.0)[:, None]
    samples = []
    for size, seed in ((20_000, 0), (333, 0), (333, 1)):
        kept = Reservoir(5000, seed)
        for part in rows.split(size):
            kept.add(part)
        assert len(kept) == 5000
        assert [len(part) for part in kept.parts()] == [4096, 904]
        samples.append(set(kept.rows()[:, 0].tolist()))
        assert len(samples[-1]) == 5000
        assert abs(np.mean([*samples[-1]]) - 9999.5) < 4 * 20_000 / 12**0.5 / 5000**0.5
    assert samples[0] == samples[1] != samples[2]
    few = Reservoir(5000, 0)
    few.add(rows[:10])
    assert few.rows()[:, 0].tolist() == [*range(10)]


def test_knn_keeps_no_more_than_asked_for(world):
    score = fitted(KNN(k=1, max_samples=100), *world["train"])
    assert sum(map(len, score.state.values())) == 100


def test_scores_do_not_depend_on_batches(world):
    rows, logits = world["test"]
    for method in METHODS:
        if method in ("logistic", "iforest", "ocsvm", "lof"):
            continue
        score = fitted(score_for(method), *world["train"], world["head"])
        one_by_one = [score_of(score, rows[i : i + 1], logits[i : i + 1])[0] for i in range(20)]
        together = score_of(score, rows[:20], logits[:20])
        np.testing.assert_allclose(one_by_one, together, rtol=1e-4, atol=1e-5)


# ---- the head that learns from novel examples ----


def test_logistic_is_the_grid_search_of_the_tutorial(world):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    known, novel = world["test"][0][:90, :8], world["novel"][0][:60, :8]
    score = Logistic()
    score.begin(Setting(8, CLASSES, CLASSES, None, 3))
    score.update(Activations(torch.from_numpy(known)), None)
    score.update_novel(Activations(torch.from_numpy(novel)))
    score.finish()
    rows = np.concatenate([novel, known]).astype(np.float64)
    order = np.random.default_rng(3).permutation(150)
    search = GridSearchCV(
        LogisticRegression(class_weight="balanced", max_iter=1000),
        {"C": [10, 2, 0.9, 0.4, 0.1], "tol": [1e-4, 1e-3]},
        scoring="neg_log_loss",
        cv=3,
    ).fit(rows[order], np.repeat([0, 1], [60, 90])[order])
    assert score.report["C"] == search.best_params_["C"]
    assert score.report["neg_log_loss"] == pytest.approx(search.best_score_)
    assert score.report["converged"]
    rows = world["test"][0][:, :8].astype(np.float64)
    np.testing.assert_allclose(score_of(score, rows), search.decision_function(rows), rtol=1e-6)


def test_logistic_folds_its_scaler_in(world):
    known, novel = (world[side][0][:, :8] * 100 + 7 for side in ("test", "novel"))
    found = []
    for factor in (1.0, 0.001):
        score = Logistic(scale=True, tol=(1e-9,), C=(1,))
        score.begin(Setting(8, None, None, None, 0))
        score.update(Activations(torch.from_numpy(known * factor)), None)
        score.update_novel(Activations(torch.from_numpy(novel * factor)))
        score.finish()
        found.append(score_of(score, known * factor))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("known", "novel"), [(2, 10), (10, 2), (10, 0)])
def test_logistic_needs_an_example_of_each_kind_for_each_fold(world, known, novel):
    score = Logistic()
    score.begin(Setting(WIDTH, None, None, None, 0))
    score.update(Activations(torch.from_numpy(world["test"][0][:known])), None)
    if novel:
        score.update_novel(Activations(torch.from_numpy(world["novel"][0][:novel])))
    with pytest.raises(ValueError, match="at least 3 examples, one for each fold"):
        score.finish()


# ---- bad parameters ----


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (KNN(k=0), "k: expected an int of at least 1"),
        (KNN(max_samples=0), "max_samples"),
        (Mahalanobis(shrinkage=2), "shrinkage: expected a number from 0 to 1"),
        (ViM(dim=WIDTH), "dim: expected fewer than the layer's 40"),
        (Energy(0.0), "temperature"),
        (GEN(gamma=-1), "gamma"),
        (GEN(top=0), "top"),
        (ReAct(percentile=100), "percentile"),
        (ASH(variant="x"), "variant"),
        (Logistic(folds=1), "folds"),
        (OutlierEstimator(object()), "an outlier detector of scikit-learn"),
    ],
)
def test_bad_parameters(world, score, words):
    with pytest.raises(ValueError, match=words):
        score.begin(Setting(WIDTH, CLASSES, CLASSES, world["head"], 0))


def test_methods_say_what_they_lack():
    for method in ("vim", "react", "ash", "scale", "fdbd"):
        with pytest.raises(ValueError, match=f"last linear layer.*{method} computes|{method}"):
            score_for(method).begin(Setting(4, 3, 3, None, 0))
    for method in ("msp", "energy", "max_logit", "gen"):
        with pytest.raises(ValueError, match=f"with logits, which {method} needs"):
            score_for(method).begin(Setting(4, None, None, None, 0))
        with pytest.raises(ValueError, match="two logits or more"):
            score_for(method).begin(Setting(4, 1, 1, None, 0))
    with pytest.raises(ValueError, match="with logits, or labels"):
        score_for("mahalanobis").begin(Setting(4, None, None, None, 0))
    with pytest.raises(ValueError, match="closest: 'mahalanobis'"):
        score_for("mahalanobi")
    with pytest.raises(ValueError, match="method: expected a name"):
        score_for(3)
