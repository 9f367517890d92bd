"""Metrics against scikit-learn and small numbers; early stopping; class weights; the report."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from networks import SmallNet
from sklearn import metrics as oracle
from train_photos import COLORS, SQUARE, photo, quick, same_state, state_of

import pyxai
from pyxai.train import loop
from pyxai.train.evaluation import metrics_of

pytestmark = pytest.mark.usefixtures("one_thread")


def test_metrics_by_hand():
    """Classes 0, 0, 0, 1 taken for 0, 0, 1, 1."""
    logits = torch.tensor([[2.0, 0], [2, 0], [0, 2], [0, 2]])
    found = metrics_of(logits, torch.tensor([0, 0, 0, 1]))
    assert found.confusion.tolist() == [[2, 1], [0, 1]]
    assert found.accuracy == 0.75
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)
    first, second = found.classes
    assert (first.photos, first.precision, first.recall) == (3, 1, pytest.approx(2 / 3))
    assert (second.photos, second.precision, second.recall) == (1, 0.5, 1)
    assert (first.f1, second.f1) == (pytest.approx(0.8), pytest.approx(2 / 3))
    sure, wrong = np.log1p(np.exp(-2)), np.log1p(np.exp(2))
    assert found.log_loss == pytest.approx((3 * sure + wrong) / 4)


@pytest.mark.parametrize("classes", [2, 5])
def test_metrics_are_those_of_scikit_learn(classes):
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(classes, (60,), generator=generator)
    logits = torch.randn(60, classes, generator=generator)
    found, predicted = metrics_of(logits, labels), logits.argmax(1)
    assert found.accuracy == pytest.approx(oracle.accuracy_score(labels, predicted))
    balanced = oracle.balanced_accuracy_score(labels, predicted)
    assert found.balanced_accuracy == pytest.approx(balanced)
    assert found.log_loss == pytest.approx(oracle.log_loss(labels, logits.double().softmax(1)))
    table = np.array([(e.precision, e.recall, e.f1, e.photos) for e in found.classes])
    expected = oracle.precision_recall_fscore_support(labels, predicted)
    np.testing.assert_allclose(table.T, expected)


def test_a_class_that_is_never_there_and_never_found():
    found = metrics_of(torch.tensor([[1.0, 0, -9]] * 2), torch.tensor([0, 1]))
    assert (found.classes[2].precision, found.classes[2].recall, found.classes[2].f1) == (0, 0, 0)
    assert found.balanced_accuracy == 0.5


# ---- early stopping ----


def losses(monkeypatch, values):
    """Makes training report these validation losses, epoch by epoch."""
    given = iter(values)

    def judged(logits, labels):
        found = metrics_of(logits, labels)
        return type(found)(**{**vars(found), "log_loss": next(given)})

    monkeypatch.setattr(loop, "metrics_of", judged)


@pytest.mark.parametrize(
    ("values", "patience", "run", "kept"),
    [
        ([3, 2, 4, 5, 1, 1], 2, 4, 2),
        ([3, 2, 4, 5, 1, 1], 3, 6, 5),
        ([3, 3, 3, 3, 3, 3], 1, 2, 1),  # no better is not better
        ([6, 5, 4, 3, 2, 1], 1, 6, 6),
        ([1, 2, 3, 4, 5, 6], 9, 6, 1),
    ],
)
def test_it_stops_early_and_keeps_the_best(squares, monkeypatch, values, patience, run, kept):
    losses(monkeypatch, values)
    found = quick(SmallNet(), squares, epochs=6, early_stopping=patience)
    assert (len(found.history), found.epoch) == (run, kept)


def test_the_weights_kept_are_those_of_that_epoch(squares, monkeypatch):
    """Batch norm statistics too: `unfreeze` is "all"."""
    model, weights = SmallNet(), []
    plain = loop.Training.epoch

    def watched(self):
        plain(self)
        weights.append({name: value.clone() for name, value in self.network.state_dict().items()})

    monkeypatch.setattr(loop.Training, "epoch", watched)
    losses(monkeypatch, [3, 2, 4, 5])
    found = quick(model, squares, epochs=6, early_stopping=2)
    state = found.classifier.model.state_dict()
    assert all(torch.equal(state[name], weights[1][name]) for name in state)
    assert not all(torch.equal(state[name], weights[3][name]) for name in state)


def test_validation_loss_is_that_of_the_result(squares):
    found = quick(SmallNet(), squares, epochs=2)
    assert found.epoch == 2
    kept = quick(pyxai.Classifier(SmallNet(), preprocessing=SQUARE), squares, crop=None, epochs=2)
    assert kept.history[-1].valid_loss == pytest.approx(kept.metrics.log_loss)


# ---- class weights ----


def test_balanced_weights(squares, tmp_path):
    """Six blue and two red photos: weights 8 / (2 · 6) and 8 / (2 · 2)."""
    seen = []
    plain = torch.nn.functional.cross_entropy

    def watched(logits, labels, weight=None, **options):
        seen.append(weight)
        return plain(logits, labels, weight, **options)

    random = np.random.default_rng(0)
    for name, count in (("blue", 8), ("red", 3)):
        (tmp_path / name).mkdir()
        for number in range(count):
            photo(COLORS[name], (32, 32), random).save(tmp_path / name / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.functional, "cross_entropy", watched)
        options = {"valid": 0.25, "crop": None}
        quick(SmallNet(), tmp_path, class_weight="balanced", **options)
        weights = next(each for each in seen if each is not None)
        torch.testing.assert_close(weights, torch.tensor([8 / 12, 2.0]))
        seen.clear()
        quick(SmallNet(), tmp_path, **options)
        assert all(each is None for each in seen)


def test_equal_classes_weigh_the_same(squares):
    model = SmallNet()
    first, second = (quick(model, squares, class_weight=each) for each in (None, "balanced"))
    assert same_state(state_of(first.classifier.model), state_of(second.classifier.model))


# ---- the report ----


def test_report_and_summary(squares):
    found = quick(SmallNet(), squares, epochs=2)
    report = json.loads(json.dumps(found.to_dict()))
    assert report["class_names"] == ["blue", "green", "red"]
    assert report["confusion"] == found.confusion.tolist()
    assert [each["number"] for each in report["history"]] == [1, 2]
    assert [each["photos"] for each in report["classes"]] == [4, 4, 4]
    text = str(found)
    for expected in ("precision", "taken for", "judged on          whole photos", "log loss"):
        assert expected in text
    assert f"accuracy           {found.accuracy:.4f}" in text
    assert f"accuracy on crops  {found.crop_accuracy:.4f}" in text
    assert "weights of epoch   2, of 2" in text
