"""The detector: what it reads, how it fits, what it is bound to, and what it refuses."""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from networks import SmallNet
from PIL import Image
from safetensors.torch import save_file
from sklearn.base import clone, is_outlier_detector
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from torch import nn

import pyxai
from pyxai import Classifier, NoveltyDetector, Preprocessing
from pyxai.classifier import Examined, LinearHead
from pyxai.classifier.readout import find_readout
from pyxai.images import ImageError
from pyxai.novelty import KNN, Activations, Mahalanobis, OutlierEstimator
from pyxai.novelty.scores import score_for
from pyxai.novelty.thresholds import threshold_for

FEW = {"method": KNN(k=1), "holdout": 0}


class Hidden(nn.Module):
    """The head of the tutorial: Dropout, Linear, ELU, Dropout, Linear."""

    def __init__(self, classes=3):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(32, 20),
            nn.ELU(inplace=True),
            nn.Dropout(0.5, inplace=True),
            nn.Linear(20, classes),
        )

    def forward(self, x):
        return self.head(self.body(x))


class Squeezed(nn.Module):
    """As SqueezeNet ends: convolution, ReLU, mean."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU())
        self.last = nn.Conv2d(8, 5, 1)

    def forward(self, x):
        return torch.relu(self.last(self.body(x))).mean(dim=(2, 3))


class Averaged(nn.Module):
    """A convolution makes maps of logits, whose mean is the output."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU())
        self.last = nn.Conv2d(8, 5, 1)

    def forward(self, x):
        return self.last(self.body(x)).mean(dim=(2, 3))


def classifier_of(network, **options):
    return Classifier(
        network, preprocessing=Preprocessing((0.5,) * 3, (0.5,) * 3, resize=(32, 32)), **options
    )


@pytest.fixture
def images():
    return torch.randn(60, 3, 32, 32)


@pytest.fixture
def folder(tmp_path):
    """Twelve photos of several sizes in two folders, and files that are none."""
    random = np.random.default_rng(0)
    for number in range(12):
        place = tmp_path / "photos" / ("red", "blue")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (20 + number, 40 - number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number:02d}.png")
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    return tmp_path / "photos"


# ---- what is read ----


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        (SmallNet(), "fc"),
        (SmallNet(head="mlp"), "fc.2"),
        (Hidden(), "head.5"),
        (Averaged(), "last"),
        (SmallNet(wrap=lambda logits: {"logits": logits}), "fc"),
    ],
    ids=["linear", "mlp", "tutorial", "averaged", "dictionary"],
)
def test_what_enters_the_last_linear_layer(network, layer, images):
    clf = classifier_of(network.train())
    readout = find_readout(Examined(clf, images))
    assert readout.layer == layer
    detector = NoveltyDetector(clf, **FEW).fit(images)
    assert detector.layer_ == f"{layer} (input)"
    (chunk,) = detector.activations(images[:5])
    again = chunk.features @ readout.head.weight.T + readout.head.bias
    torch.testing.assert_close(again, chunk.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(chunk.logits, clf(images[:5]), rtol=1e-4, atol=1e-5)
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


def test_the_hidden_layer_of_the_tutorial_is_its_elu(images):
    network = Hidden().eval()
    clf = classifier_of(network)
    by_default = NoveltyDetector(clf, **FEW).fit(images)
    named = NoveltyDetector(clf, "head.3", "vim").fit(images)  # it has the head, so vim can be had
    (one,), (other,) = (each.activations(images[:4]) for each in (by_default, named))
    torch.testing.assert_close(one.features, other.features)
    assert float(one.features.min()) < 0
    assert named.layer_ == "head.3"


def test_networks_without_a_last_linear_layer(images):
    clf = classifier_of(Squeezed())
    assert find_readout(Examined(clf, images)) is None
    detector = NoveltyDetector(clf, **FEW).fit(images)
    assert detector.layer_ == "relu before mean"
    assert np.isfinite(
        NoveltyDetector(clf, method="energy").fit(images).score_samples(images)
    ).all()
    for method in ("vim", "react", "ash", "scale", "fdbd"):
        with pytest.raises(ValueError, match="enter the last linear layer"):
            NoveltyDetector(clf, method=method).fit(images)
    # Nor can they be had with another layer than what enters it.
    with pytest.raises(ValueError, match="enter the last linear layer"):
        NoveltyDetector(classifier_of(SmallNet()), "stage2", "vim").fit(images)


def test_a_layer_with_positions_is_averaged(images):
    clf = classifier_of(SmallNet())
    detector = NoveltyDetector(clf, "stage2", **FEW).fit(images)
    (chunk,) = detector.activations(images[:3])
    expected = clf.activations(images[:3], "stage2")["stage2"].mean(dim=(2, 3))
    torch.testing.assert_close(chunk.features, expected)
    assert detector.n_features_in_ == 16


def test_everything_that_can_be_scored(images, folder):
    clf = classifier_of(SmallNet(), class_names=[*"abcdefg"])
    detector = NoveltyDetector(clf, **FEW).fit(images)
    expected = detector.score_samples(images)
    chunks = [*detector.activations(images)]
    ready = chunks[0]
    halves = [ready.rows(slice(0, 25)), ready.rows(slice(25, None))]
    for again in (
        ready,
        ready.features,
        ready.features.numpy(),
        ready.features.double().numpy(),
        halves,
        iter(halves),
        (each.features.numpy() for each in halves),
    ):
        np.testing.assert_allclose(detector.score_samples(again), expected, rtol=1e-5, atol=1e-6)
    photos = sorted(folder.rglob("*.png"))
    by_folder = detector.score_samples(folder)
    assert by_folder.shape == (12,)
    pictures = (Image.open(path) for path in photos)
    np.testing.assert_allclose(detector.score_samples(pictures), by_folder, rtol=1e-5)
    np.testing.assert_allclose(detector.score_samples(photos[3]), by_folder[3:4], rtol=1e-4)
    assert detector.score_samples(images[:0]).shape == (0,)


def test_logits_of_ready_activations_are_computed_from_the_head(images):
    clf = classifier_of(SmallNet())
    for method in ("energy", "vim", "mahalanobis", "msp", "fdbd"):
        detector = NoveltyDetector(clf, method=method, holdout=0).fit(images)
        (chunk,) = detector.activations(images)
        again = NoveltyDetector(clf, method=method, holdout=0).fit(chunk.features.numpy())
        np.testing.assert_allclose(
            again.score_samples(chunk.features),
            detector.score_samples(images),
            rtol=1e-3,
            atol=1e-4,
        )


def test_without_a_network():
    rows = np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)
    detector = NoveltyDetector(method="mahalanobis").fit(rows, labels=np.arange(100) % 3)
    assert detector.predict(rows + 50).tolist() == [-1] * 100
    head = LinearHead(torch.randn(3, 6), torch.zeros(3))
    assert NoveltyDetector(head, method="vim").fit(rows).layer_ is None
    with pytest.raises(ValueError, match="model: expected a classifier, to read photos"):
        detector.score_samples(torch.randn(1, 3, 8, 8))
    with pytest.raises(ValueError, match="energy needs"):
        NoveltyDetector(method="energy").fit(rows)


def test_a_file_of_activations_is_not_read_at_once(tmp_path):
    rows = np.random.default_rng(0).normal(size=(9000, 4)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    detector = NoveltyDetector(method="knn").fit(mapped)
    assert [len(chunk) for chunk in detector.activations(mapped)] == [4096, 4096, 808]
    assert detector.n_known_ + detector.n_threshold_ == 9000


# ---- conventions ----


def test_scores_threshold_and_predictions(images):
    detector = NoveltyDetector(classifier_of(SmallNet()), method="energy", holdout=0).fit(images)
    scores = detector.score_samples(images)
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(detector.decision_function(images), scores - detector.threshold_)
    predicted = detector.predict(images)
    np.testing.assert_array_equal(predicted, np.where(scores < detector.threshold_, -1, 1))
    # Three of 60 + 1 may fall below: 5 %.
    assert (predicted == -1).sum() == 2
    assert detector.n_known_ == detector.n_threshold_ == 60


def test_the_threshold_keeps_its_promise():
    """Over many samples the share of others that fall below it is the rate, not more."""
    random = np.random.default_rng(0)
    below = [
        (random.normal(size=1000) < threshold_for(random.normal(size=39), 0.1)).mean()
        for _ in range(400)
    ]
    assert np.mean(below) == pytest.approx(4 / 40, abs=0.01)
    assert threshold_for(np.array([3.0, 1.0, 2.0]), 0.05) == 1.0  # too few for the rate


def test_held_out_images_set_the_threshold():
    random = np.random.default_rng(0)
    rows = random.normal(size=(600, 200)).astype(np.float32)
    others = random.normal(size=(2000, 200)).astype(np.float32)
    labels = np.zeros(600, int)
    rates = {}
    for holdout in (0, 0.3):
        detector = NoveltyDetector(method="mahalanobis", holdout=holdout, false_alarm_rate=0.1)
        detector.fit(rows, labels=labels)
        rates[holdout] = (detector.predict(others) == -1).mean()
    assert rates[0.3] == pytest.approx(0.1, abs=0.05)
    assert rates[0] > 0.5  # what it was fitted on looks far too familiar
    detector = NoveltyDetector(method="mahalanobis", false_alarm_rate=0.1)
    detector.fit(rows, labels=labels, validation=others[:1000])
    assert (detector.n_known_, detector.n_threshold_) == (600, 1000)
    assert (detector.predict(others[1000:]) == -1).mean() == pytest.approx(0.1, abs=0.03)


def test_logistic_is_chosen_by_novel_examples(images):
    clf = classifier_of(SmallNet())
    novel = images[:20] * 3 + 2
    detector = NoveltyDetector(clf).fit(images, novel)
    assert detector.method_.name == "logistic"
    assert detector.threshold_ == 0
    assert detector.n_known_ == 60
    assert detector.predict(novel).tolist() == [-1] * 20
    assert (detector.predict(images) == 1).all()
    rated = NoveltyDetector(clf, false_alarm_rate=0.2).fit(images, novel)
    assert rated.n_threshold_ > 0
    assert NoveltyDetector(clf).fit(images).method_.name == "knn"


def test_contract_of_scikit_learn(images):
    clf = classifier_of(SmallNet())
    detector = NoveltyDetector(clf, method=KNN(k=3), seed=4)
    with pytest.raises(NotFittedError):
        detector.predict(images)
    with pytest.raises(NotFittedError):
        check_is_fitted(detector)
    assert is_outlier_detector(detector)
    assert detector.get_params()["method__k"] == 3
    detector.set_params(method__k=5, false_alarm_rate=0.1)
    assert (detector.method.k, detector.false_alarm_rate) == (5, 0.1)
    with pytest.raises(ValueError, match="params"):
        detector.set_params(nonsense=1)
    before = detector.get_params(deep=False)
    assert detector.fit(images) is detector
    check_is_fitted(detector)
    assert detector.get_params(deep=False) == before  # fit changes no parameter
    copy = clone(detector)
    assert not copy.__sklearn_is_fitted__()
    assert copy.model is clf  # borrowed, not copied
    assert copy.method is not detector.method
    assert copy.method.k == 5
    np.testing.assert_array_equal(
        copy.fit(images).score_samples(images), detector.score_samples(images)
    )


def test_at_the_end_of_a_pipeline():
    from sklearn.neighbors import LocalOutlierFactor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = np.random.default_rng(0).normal(size=(100, 5)) * [1, 10, 100, 1, 1]
    detector = NoveltyDetector(method=LocalOutlierFactor(novelty=True))
    pipeline = make_pipeline(StandardScaler(), detector).fit(rows)
    far = rows + np.array([20, 0, 0, 0, 0])
    assert (pipeline.predict(far) == -1).mean() > 0.9
    assert (pipeline.predict(rows) == 1).mean() > 0.8
    clone(pipeline).fit(rows)


def test_several_threads_at_once(images):
    clf = classifier_of(SmallNet())
    detector = NoveltyDetector(clf, method="vim", holdout=0, progress=False).fit(images)
    expected = [detector.score_samples(images[start : start + 10]) for start in range(0, 60, 10)]
    with ThreadPoolExecutor(4) as pool:
        found = [
            *pool.map(lambda i: detector.score_samples(images[10 * (i % 6) :][:10]), range(24))
        ]
    for i, scores in enumerate(found):
        np.testing.assert_allclose(scores, expected[i % 6], rtol=1e-5)
    assert not any(module._forward_hooks for module in clf.network.modules())


def test_on_each_device(device, images):
    clf = classifier_of(SmallNet().to(device))
    labels = np.arange(60) % 7
    for method in ("knn", "mahalanobis", "vim", "react", "fdbd", "gen"):
        detector = NoveltyDetector(clf, method=method).fit(images, labels=labels)
        (chunk,) = detector.activations(images)
        assert chunk.features.device.type == device.type
        on_cpu = Activations(chunk.features.cpu(), chunk.logits.cpu())
        np.testing.assert_allclose(
            detector.score_samples(images), detector.score_samples(on_cpu), rtol=1e-3, atol=1e-3
        )


def test_an_accelerated_copy_gives_the_same_scores(images, tmp_path):
    clf = classifier_of(SmallNet().eval())
    detector = NoveltyDetector(clf, method="mahalanobis").fit(images, labels=np.arange(60) % 7)
    detector.save(tmp_path / "head")
    fast = pyxai.accelerate(clf)
    with pytest.raises(ValueError, match="weights"):
        NoveltyDetector.load(tmp_path / "head", fast)
    again = NoveltyDetector.load(tmp_path / "head", fast, other_network=True)
    np.testing.assert_allclose(
        again.score_samples(images), detector.score_samples(images), rtol=1e-2, atol=1e-3
    )


def test_any_outlier_detector_of_scikit_learn(images):
    from sklearn.covariance import EllipticEnvelope

    rows = torch.randn(200, 5)
    forest = IsolationForest(n_estimators=20)
    detector = NoveltyDetector(method=forest).fit(rows)
    assert not hasattr(forest, "estimators_")
    again = clone(detector).fit(rows)
    np.testing.assert_array_equal(again.score_samples(rows), detector.score_samples(rows))
    assert detector.method_.fitted.random_state == 0
    assert detector.get_params()["method__n_estimators"] == 20
    envelope = NoveltyDetector(method=EllipticEnvelope()).fit(rows)
    assert (envelope.predict(rows + 30) == -1).all()


def test_same_seed_same_result_and_no_global_state(images):
    clf = classifier_of(SmallNet())
    before = torch.get_rng_state()
    one, two = (NoveltyDetector(clf, method="iforest", seed=1).fit(images) for _ in range(2))
    assert one.threshold_ == two.threshold_
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluate(images):
    detector = NoveltyDetector(classifier_of(SmallNet()), method="mahalanobis", holdout=0)
    found = detector.fit(images).evaluate(images, images * 4 + 3, bootstrap=50)
    assert found.auroc.value > 0.95
    assert found.auroc.low <= found.auroc.value <= found.auroc.high


# ---- labels ----


def test_labels(images, folder):
    clf = classifier_of(SmallNet(classes=2), class_names=["blue", "red"])
    options = {"method": "mahalanobis", "holdout": 0}
    by_folder = NoveltyDetector(clf, **options).fit(folder, labels="folder")
    photos = sorted(folder.rglob("*.png"))
    names = [path.parent.name for path in photos]
    by_name = NoveltyDetector(clf, **options).fit(photos, labels=names)
    by_index = NoveltyDetector(clf, **options).fit(
        photos, labels=torch.tensor([["blue", "red"].index(name) for name in names])
    )
    expected = by_folder.score_samples(folder)
    for other in (by_name, by_index):
        np.testing.assert_allclose(other.score_samples(folder), expected)
    by_network = NoveltyDetector(clf, **options).fit(folder)
    assert not np.allclose(by_network.score_samples(folder), expected)
    for labels, words in (
        (["blue"] * 11, "only 11"),
        (["blue"] * 13, "one class for each of 12 known images"),
        (["green"] * 12, "labels: expected a class name, got 'green'"),
        ([2] * 12, "below 2"),
        ([-1] * 12, "below 2"),
        ("file", "'folder'"),
    ):
        with pytest.raises(ValueError, match=words):
            NoveltyDetector(clf, **options).fit(photos, labels=labels)
    other = classifier_of(SmallNet(classes=2), class_names=["blues", "jazz"])
    with pytest.raises(ValueError, match="closest: 'blues'"):
        NoveltyDetector(other, **options).fit(folder, labels="folder")


def test_one_class_only(images):
    clf = classifier_of(SmallNet(classes=2))
    labels = [0] * 60
    assert NoveltyDetector(clf, method="mahalanobis").fit(images, labels=labels).n_known_ < 60
    with pytest.raises(ValueError, match="two classes or more"):
        NoveltyDetector(clf, method="relative_mahalanobis").fit(images, labels=labels)
    single = classifier_of(SmallNet(classes=1))
    for method in ("msp", "energy", "vim", "fdbd"):
        with pytest.raises(ValueError, match="two logits or more"):
            NoveltyDetector(single, method=method).fit(images)
    assert NoveltyDetector(single, method="mahalanobis").fit(images).threshold_ < 0


# ---- bad input ----


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "nearest"}, "method: expected one of auto"),
        ({"method": "knnn"}, "closest: 'knn'"),
        ({"method": 7}, "method"),
        ({"method": "logistic"}, "novel: expected novel examples"),
        ({"false_alarm_rate": 0}, "false_alarm_rate"),
        ({"false_alarm_rate": 1.0}, "false_alarm_rate"),
        ({"false_alarm_rate": True}, "false_alarm_rate"),
        ({"holdout": 1}, "holdout"),
        ({"layer": "stage9"}, "closest: 'stage"),
        ({"layer": "unused"}, "did not run"),
        ({"layer": 5}, "layer: expected the name"),
        ({"seed": -1}, "seed"),
        ({"seed": None}, "seed"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_arguments(images, options, words):
    network = SmallNet()
    network.unused = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=words):
        NoveltyDetector(classifier_of(network), **options).fit(images)


def test_bad_images(images, tmp_path, folder):
    clf = classifier_of(SmallNet())
    detector = NoveltyDetector(clf, **FEW)
    with pytest.raises(ValueError, match="model: expected a torch"):
        NoveltyDetector("resnet").fit(images)
    for bad in (images[:0], iter([]), torch.randn(3), np.zeros((2, 3, 8, 8)), [], 5):
        with pytest.raises(ValueError, match=r"images|known"):
            NoveltyDetector(clf, **FEW).fit(bad)
    with pytest.raises(ValueError, match="novel: expected None"):
        NoveltyDetector(clf, method="knn").fit(images, images)
    rows = torch.randn(9, 24)
    rows[3, 2] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity in the features of row 3"):
        detector.fit(rows)
    broken = SmallNet()
    broken.fc.weight.data[0, 0] = float("inf")
    with pytest.raises(ValueError, match=r"images\[0\]"):
        NoveltyDetector(classifier_of(broken), **FEW).fit(images)
    detector.fit(images)
    with pytest.raises(ValueError, match=r"as the last linear layer takes them|24 numbers"):
        detector.score_samples(np.zeros((4, 23), np.float32))
    with pytest.raises(ValueError, match="rows of 24"):
        detector.score_samples([np.zeros((4, 24), np.float32), np.zeros((4, 23), np.float32)])
    with pytest.raises(ValueError, match="enough images to hold some out"):
        NoveltyDetector(clf, method="knn", holdout=0.01).fit(images[:2])
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("")
    with pytest.raises(ValueError, match="expected a folder with photos"):
        NoveltyDetector(clf, **FEW).fit(empty)


def test_photos_that_cannot_be_read_are_left_out_of_the_fit(folder):
    (folder / "red" / "broken.png").write_bytes(b"not a photo")
    detector = NoveltyDetector(classifier_of(SmallNet()), **FEW).fit(folder)
    assert detector.n_known_ == 12
    assert [failure.path for failure in detector.failures_] == [str(folder / "red" / "broken.png")]
    with pytest.raises(ImageError, match=r"broken\.png"):  # here rows would no longer be photos
        detector.score_samples(folder)
    with pytest.raises(ImageError, match=r"broken\.png"):
        [*detector.activations(folder)]
    chunks = [*detector.activations(folder, skip_failures=True)]
    assert sum(map(len, chunks)) == 12
    assert [each.path for chunk in chunks for each in chunk.failures] == [
        str(folder / "red" / "broken.png")
    ]
    assert detector.evaluate(folder, folder, bootstrap=0).failures == detector.failures_ * 2
    with pytest.raises(ImageError, match=r"broken\.png"):  # none is left
        [*detector.activations([folder / "red" / "broken.png"], skip_failures=True)]
    with pytest.raises(ImageError, match=r"broken\.png"):
        NoveltyDetector(classifier_of(SmallNet()), **FEW).fit(folder, labels=[0] * 12)


def test_photos_of_different_sizes_without_resize(folder):
    clf = Classifier(SmallNet(), preprocessing=Preprocessing((0.5,) * 3, (0.5,) * 3))
    assert NoveltyDetector(clf, **FEW).fit(folder).n_known_ == 12


# ---- the network that it is bound to ----


def test_a_network_that_has_changed_is_refused(images):
    network = SmallNet().eval()
    state = {name: each.clone() for name, each in network.state_dict().items()}
    detector = NoveltyDetector(classifier_of(network), **FEW).fit(images)
    expected = detector.score_samples(images)
    with torch.no_grad():
        network.stage1.conv1.weight[0, 0, 0, 0] += 0.01
    for _ in range(2):
        with pytest.raises(ValueError, match="the network has changed, so fit again"):
            detector.score_samples(images)
    network.load_state_dict(state)  # the same numbers, written anew
    np.testing.assert_array_equal(detector.score_samples(images), expected)


@pytest.mark.parametrize(
    "method", ["knn", "mahalanobis", "vim", "react", "fdbd", "gen", "logistic"]
)
def test_save_and_load(images, tmp_path, method):
    clf = classifier_of(SmallNet(), class_names=[*"abcdefg"])
    novel = images[:9] * 3 if method == "logistic" else None
    detector = NoveltyDetector(clf, method=method, seed=2).fit(images, novel)
    path = tmp_path / "head.safetensors"
    detector.save(path)
    again = NoveltyDetector.load(path, clf)
    np.testing.assert_allclose(again.score_samples(images), detector.score_samples(images))
    for name in ("threshold_", "layer_", "n_features_in_", "n_known_", "n_threshold_", "identity_"):
        assert getattr(again, name) == getattr(detector, name)
    assert again.seed == 2
    assert again.method.name == method
    again.save(path)  # what was loaded can be saved
    assert [each.name for each in tmp_path.iterdir()] == ["head.safetensors"]


def test_loading_with_another_network_is_refused(images, tmp_path):
    network = SmallNet().eval()
    detector = NoveltyDetector(classifier_of(network), method="mahalanobis").fit(images)
    detector.save(tmp_path / "head")
    torch.manual_seed(9)
    others = {
        "weights": classifier_of(SmallNet()),
        "preprocessing": Classifier(network),
        "class_names": classifier_of(network, class_names=[*"abcdefg"]),
    }
    for word, other in others.items():
        with pytest.raises(ValueError, match=f"got another one: {word}"):
            NoveltyDetector.load(tmp_path / "head", other)
        taken = NoveltyDetector.load(tmp_path / "head", other, other_network=True)
        assert np.isfinite(taken.score_samples(images)).all()
    with pytest.raises(ValueError, match="weights"):
        NoveltyDetector.load(tmp_path / "head")


@pytest.mark.parametrize("method", ["iforest", "ocsvm", "lof"])
def test_estimators_are_saved_by_skops(tmp_path, method):
    pytest.importorskip("skops")
    if method == "iforest":  # the same with fewer trees
        method = score_for(method).set_params(estimator=IsolationForest(n_estimators=5))
    rows = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    detector = NoveltyDetector(method=method).fit(rows)
    detector.save(tmp_path / "head")
    again = NoveltyDetector.load(tmp_path / "head")
    np.testing.assert_allclose(again.score_samples(rows), detector.score_samples(rows))
    clone(again).fit(rows)


def test_estimators_of_other_types_must_be_trusted(tmp_path):
    pytest.importorskip("skops")
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    detector = NoveltyDetector(method=OutlierEstimator(Distance())).fit(rows)
    detector.save(tmp_path / "head")
    name = f"{__name__}.Distance"
    with pytest.raises(ValueError, match=f"trusted types, got one with .*{name}"):
        NoveltyDetector.load(tmp_path / "head")
    again = NoveltyDetector.load(tmp_path / "head", trusted=[name])
    np.testing.assert_allclose(again.score_samples(rows), detector.score_samples(rows))


class Distance:
    """The least that an outlier detector must have."""

    def get_params(self, deep=True):
        return {}

    def fit(self, rows):
        self.mean_ = rows.mean(axis=0)
        return self

    def decision_function(self, rows):
        return -np.linalg.norm(rows - self.mean_, axis=1)


def test_every_byte_of_a_saved_detector_counts(images, tmp_path):
    """A file in which a byte differs is an error that names it, or has the same contents."""
    clf = classifier_of(SmallNet())
    detector = NoveltyDetector(clf, method="knn").fit(images)
    detector.save(tmp_path / "head")
    content, expected = (tmp_path / "head").read_bytes(), detector.score_samples(images)
    draw = np.random.default_rng(0)
    refused = []
    places = [*range(0, 2000, 41), *draw.integers(2000, len(content), 20)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(draw.integers(8))
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            again = NoveltyDetector.load(tmp_path / "damaged", clf)
        except ValueError as error:
            refused.append(str(error))
        else:
            np.testing.assert_array_equal(again.score_samples(images), expected)
    assert len(refused) > 0.95 * len(places)
    assert all("damaged' " in each for each in refused)


def test_a_detector_of_an_older_version(images, tmp_path):
    clf = classifier_of(SmallNet())
    NoveltyDetector(clf, method="energy").fit(images).save(tmp_path / "head")
    record = json.dumps({"format": "pyxai novelty 1"})
    save_file({"x": torch.ones(1)}, tmp_path / "older", metadata={"pyxai": record})
    with pytest.raises(ValueError, match="older version, without digests: fit again"):
        NoveltyDetector.load(tmp_path / "older", clf)
    NoveltyDetector(clf, method="energy").fit(images).save(tmp_path / "older")  # is replaced
    NoveltyDetector.load(tmp_path / "older", clf)


def test_other_files_are_not_written_over(images, tmp_path):
    detector = NoveltyDetector(classifier_of(SmallNet()), method="energy").fit(images)
    (tmp_path / "photo").write_bytes(b"\xff\xd8\xff\xe0photo")
    save_file({"x": torch.ones(1)}, tmp_path / "weights")
    for name in ("photo", "weights"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(ValueError, match="path: expected a new path, or that of a detector"):
            detector.save(tmp_path / name)
        assert (tmp_path / name).read_bytes() == before


def test_a_network_of_one_input_size(tmp_path):
    """It is examined with an input that it takes, also when it is loaded."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 9), nn.ReLU(), nn.Linear(9, 4))
    images = torch.randn(40, 3, 12, 12)
    detector = NoveltyDetector(network, method="vim").fit(images)
    assert detector.input_shape_ == (3, 12, 12)
    detector.save(tmp_path / "head")
    again = NoveltyDetector.load(tmp_path / "head", network)
    np.testing.assert_allclose(again.score_samples(images), detector.score_samples(images))


def test_files_that_are_no_detectors(tmp_path, images):
    clf = classifier_of(SmallNet())
    NoveltyDetector(clf, method="energy").fit(images).save(tmp_path / "good")
    (tmp_path / "text").write_text("hello")
    save_file({"x": torch.ones(1)}, tmp_path / "other")
    record = {"format": "pyxai novelty 99"}
    save_file({"x": torch.ones(1)}, tmp_path / "later", metadata={"pyxai": json.dumps(record)})
    (tmp_path / "pickled").write_bytes(pickle.dumps({"x": 1}))
    for name in ("missing", "text", "other", "later", "pickled"):
        with pytest.raises(
            ValueError, match=r"path: expected a file saved by NoveltyDetector.save"
        ):
            NoveltyDetector.load(tmp_path / name, clf)
    with pytest.raises(NotFittedError):
        NoveltyDetector(clf).save(tmp_path / "never")
    with pytest.raises(ValueError, match="path: expected a file in a folder that exists"):
        NoveltyDetector.load(tmp_path / "good", clf).save(tmp_path / "no" / "folder")


def test_pickling_in_a_users_own_process_works(images):
    detector = NoveltyDetector(classifier_of(Hidden()), **FEW).fit(images)
    again = pickle.loads(pickle.dumps(detector))
    np.testing.assert_allclose(again.score_samples(images), detector.score_samples(images))


def test_public_names():
    assert pyxai.NoveltyDetector is NoveltyDetector
    assert callable(pyxai.active_share)
    activations = Activations(torch.zeros(2, 3))
    assert len(activations) == 2
    for bad in (torch.zeros(3), torch.zeros(2, 3, dtype=torch.int64)):
        with pytest.raises(ValueError, match="features"):
            Activations(bad)
    with pytest.raises(ValueError, match="as many rows"):
        Activations(torch.zeros(2, 3), torch.zeros(3, 3))
    assert "Mahalanobis" in repr(NoveltyDetector(method=Mahalanobis()))
