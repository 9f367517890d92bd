"""Measures of scores: worked numbers, scikit-learn's, and the properties of intervals."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from pyxai.novelty import evaluate_scores


def test_a_worked_example():
    # From the most familiar on: known, known, novel, known, novel.
    found = evaluate_scores(np.array([5.0, 4.0, 2.0]), np.array([3.0, 1.0]), bootstrap=0)
    assert found.auroc.value == pytest.approx(5 / 6)
    assert found.aupr_known.value == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert found.aupr_novel.value == pytest.approx((1 + 2 / 3) / 2)
    # All known are accepted down to 2, and one of two novel with them.
    assert found.fpr95_known.value == pytest.approx(1 / 2)
    # All novel are rejected up to 3, and one of three known with them.
    assert found.fpr95_novel.value == pytest.approx(1 / 3)
    assert (found.known, found.novel) == (3, 2)
    assert np.isnan(found.auroc.low)
    assert found.to_dict()["auroc"] == {"value": found.auroc.value, "low": None, "high": None}
    assert "novel accepted when 95 % of known are accepted  0.5000" in str(found)


@pytest.mark.parametrize("ties", [False, True])
def test_scikit_learn_agrees(ties):
    random = np.random.default_rng(0)
    known, novel = random.normal(1, 1, 230), random.normal(0, 2, 170)
    if ties:
        known, novel = known.round(0), novel.round(0)
    found = evaluate_scores(known, novel, bootstrap=0)
    scores, truth = np.concatenate([known, novel]), np.repeat([1, 0], [230, 170])
    assert found.auroc.value == pytest.approx(roc_auc_score(truth, scores))
    assert found.aupr_known.value == pytest.approx(average_precision_score(truth, scores))
    assert found.aupr_novel.value == pytest.approx(average_precision_score(1 - truth, -scores))
    for value, labels, values in (
        (found.fpr95_known.value, truth, scores),
        (found.fpr95_novel.value, 1 - truth, -scores),
    ):
        false, true, _ = roc_curve(labels, values, drop_intermediate=False)
        assert value == pytest.approx(false[np.argmax(true >= 0.95)])


def test_both_ways_are_mirror_images():
    random = np.random.default_rng(1)
    known, novel = random.normal(1, 1, 40), random.normal(0, 1, 60)
    one, other = evaluate_scores(known, novel), evaluate_scores(-novel, -known)
    assert one.auroc.value == pytest.approx(other.auroc.value)
    assert one.aupr_known.value == pytest.approx(other.aupr_novel.value)
    assert one.fpr95_known.value == pytest.approx(other.fpr95_novel.value)


def test_useless_and_perfect_scores():
    useless = evaluate_scores(np.ones(5), np.ones(15))
    assert useless.auroc.value == useless.auroc.low == useless.auroc.high == 0.5
    assert useless.aupr_known.value == pytest.approx(0.25)
    assert useless.fpr95_known.value == useless.fpr95_novel.value == 1
    perfect = evaluate_scores(np.arange(5.0) + 9, np.arange(5.0))
    assert perfect.auroc.low == perfect.auroc.value == 1
    assert perfect.fpr95_known.high == perfect.fpr95_novel.high == 0


def test_intervals_repeat_and_behave():
    random = np.random.default_rng(2)
    known, novel = random.normal(1, 1, 300), random.normal(0, 1, 200)
    one, again = (evaluate_scores(known, novel, seed=5) for _ in range(2))
    other = evaluate_scores(known, novel, seed=6)
    assert one.to_dict() == again.to_dict() != other.to_dict()
    narrow = evaluate_scores(known, novel, confidence=0.5)
    for name in ("auroc", "aupr_known", "aupr_novel", "fpr95_known", "fpr95_novel"):
        wide, less = getattr(one, name), getattr(narrow, name)
        assert wide.low <= wide.value <= wide.high
        assert wide.low < less.low < less.high < wide.high
    # The usual error of an AUROC, by Hanley and McNeil (1982).
    a, n, m = one.auroc.value, 300, 200
    extra = (n - 1) * (a / (2 - a) - a * a) + (m - 1) * (2 * a * a / (1 + a) - a * a)
    error = ((a * (1 - a) + extra) / (n * m)) ** 0.5
    assert one.auroc.high - one.auroc.low == pytest.approx(2 * 1.96 * error, rel=0.15)


@pytest.mark.parametrize(
    ("known", "novel", "options", "words"),
    [
        ([], [1.0], {}, "known: expected at least one finite score"),
        ([1.0], [], {}, "novel"),
        ([1.0], [np.nan], {}, "novel"),
        ([[1.0]], [1.0], {}, "known"),
        ([1.0], [1.0], {"bootstrap": -1}, "bootstrap"),
        ([1.0], [1.0], {"confidence": 1.0}, "confidence"),
    ],
)
def test_bad_input(known, novel, options, words):
    with pytest.raises(ValueError, match=words):
        evaluate_scores(np.array(known), np.array(novel), **options)
