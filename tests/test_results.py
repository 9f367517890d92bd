"""What every result of a public call can do: a walk through all of them."""

from __future__ import annotations

import importlib
import io
import json
import pickle
import sys
import typing
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from test_packaging import public_functions

import pyxai
from pyxai import PhotoFailure, feature_visualization, novelty
from pyxai._errors import MissingExtraError
from pyxai._results import Report, Result, Table, png_of
from pyxai.attribution.masks.settings import ExtremalSettings, MaskSettings, MeaningfulSettings
from pyxai.curate.duplicates.moving import Moves
from pyxai.playground import voting
from pyxai.playground.settings import SiteSettings

ODD = "<script>alert('é')&.png"
BROKEN = "<b>broken.jpg"
LOUD = "<img src=x>"  # a folder, and so a class
QUICK = {"samples": 4, "progress": False}
SITE = {
    "units": 1,
    "unit_steps": 1,
    "unit_size": 16,
    "crops": 1,
    "undesirable": 0,
    "layers": "stage4",
    "metrics": ("cosine",),
    "methods": ("cam",),
    "explained": 1,
    "windows": False,
    "galleries": False,
}


def draw_photos(root, taller=8):
    """Nine photos in two folders, two of which are copies; and one file that is none."""
    random = np.random.default_rng(0)
    for place, label in enumerate(("street", LOUD)):
        (root / label).mkdir(parents=True)
        for number in range(4):
            ground = random.integers(0, 256, (8, 8, 3), np.uint8)
            size = (72, 64 + taller * place)
            photo = Image.fromarray(ground).resize(size, Image.Resampling.BILINEAR)
            photo.save(root / label / (ODD if (place, number) == (1, 0) else f"{number}.png"))
    copy = (root / "street" / "0.png").read_bytes()
    (root / LOUD / "copy of 0.png").write_bytes(copy)
    (root / "street" / BROKEN).write_bytes(b"no photo")
    return root


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    return Subject(draw_photos(tmp_path_factory.mktemp("odd") / "photos"))


class Subject:
    """What the calls are about; each result is made once."""

    def __init__(self, folder):
        self.folder, self.out = folder, folder.parent
        self.clf = pyxai.load_classifier("demo")
        self.inputs = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        self.known = torch.randn(40, 6, generator=torch.Generator().manual_seed(1)).numpy()
        self._made = {}

    def __getitem__(self, name):
        if name not in self._made:
            self._made[name] = CALLS[name](self)
        return self._made[name]

    def photos(self):
        return sorted(path for path in self.folder.rglob("*.png"))


def gallery(subject):
    return pyxai.ClassGallery(subject.clf, crop=32, clusters=2, per_class=6).fit(
        subject.folder, progress=False
    )


def index(subject):
    return pyxai.ImageIndex.build(subject.clf, subject.folder, layers="stage4", progress=False)


def compared(subject):
    return novelty.compare(
        subject.clf, subject.inputs.repeat(4, 1, 1, 1), subject.folder, subject.inputs,
        methods=("knn", "msp", "logistic"), bootstrap=10, progress=False,
    )  # fmt: skip


def voted(subject):
    found = voting.compare([subject["gallery"], subject["gallery"].recluster(1)], subject.out / "v")
    return found


def counted(subject):
    asked = subject["compared galleries"]
    record = json.loads(asked.key.read_text())
    votes = {"comparison": record["comparison"], "ballot": "a", "votes": {"0": "left"}}
    (subject.out / "votes.json").write_text(json.dumps(votes))
    return voting.count_votes(subject.out / "v", subject.out / "votes.json")


def trained(subject):
    kept = draw_photos(subject.out / "training", taller=0)
    return pyxai.fine_tune(subject.clf, kept, valid=0.5, epochs=1, batch_size=4, progress=False)


CALLS = {
    "windows": lambda s: pyxai.sliding_window(s.clf, s.photos()[0], window=32),
    "windows of a function": lambda s: pyxai.sliding_window(
        lambda images: images.mean((2, 3)), torch.rand(4, 30, 50), window=16
    ),
    "undesirable pixels": lambda s: pyxai.undesirable_pixels(
        s.clf, s.inputs, settings=MaskSettings(steps=2)
    ),
    "masks of two classes": lambda s: pyxai.undesirable_pixels(
        s.clf, s.photos()[:2], [[0, 1]], settings=MaskSettings(steps=2)
    ),
    "meaningful": lambda s: pyxai.meaningful_perturbation(
        s.clf, s.inputs, settings=MeaningfulSettings(steps=2)
    ),
    "extremal": lambda s: pyxai.extremal_perturbation(
        s.clf, s.inputs, settings=ExtremalSettings(steps=2)
    ),
    "SHAP values": lambda s: pyxai.shap_values(s.clf, s.inputs, samples=4),
    "SHAP values of all": lambda s: pyxai.shap_values(
        s.clf, s.inputs[:1], target="all", method="kernel", regions=4, output="probability"
    ),
    "SHAP summary": lambda s: pyxai.shap_summary(
        s.clf, s.folder, target="predicted", grid=4, samples=4, progress=False
    ),
    "features": lambda s: pyxai.visualize_features(s.clf, "stage3", [0, 5], size=16, steps=2),
    "features with variants": lambda s: pyxai.visualize_features(
        s.clf, None, ["street"], size=16, steps=2, variants=2
    ),
    "caricatures": lambda s: feature_visualization.caricatures(
        s.clf, s.inputs[:1], "stage3", size=16, steps=2
    ),
    "exciting crops": lambda s: feature_visualization.exciting_crops(
        s.clf, s.folder, "stage3", [0, 1], per_channel=2
    ),
    "active share": lambda s: pyxai.active_share(s.clf, {"known": s.folder, LOUD: s.inputs}),
    "scores": lambda s: novelty.evaluate_scores(s.known[:, 0], s.known[:, 1], bootstrap=10),
    "a detector's evaluation": lambda s: pyxai.NoveltyDetector(
        s.clf, method="knn", progress=False
    ).fit(s.inputs.repeat(2, 1, 1, 1)).evaluate(s.folder, s.inputs, bootstrap=5),
    "methods of novelty": compared,
    "hold-outs": lambda s: novelty.holdout(
        None, s.known, s.known + 2, splits=2, progress=False,
        method=novelty.Logistic(C=(1.0,), tol=(1e-3,), folds=2),
    ),
    "search": lambda s: index(s).search(s.photos()[1], 5),
    "retrieval": lambda s: index(s).evaluate(k=1, bootstrap=5),
    "map": lambda s: index(s).project(),
    "duplicates": lambda s: pyxai.find_duplicates(s.folder, progress=False),
    "no duplicates": lambda s: pyxai.find_duplicates(s.photos()[:2], progress=False),
    "moved copies": lambda s: Moves((ODD,), (PhotoFailure(ODD, "is a link"),)),
    "audit": lambda s: pyxai.audit(s.clf, s.folder, progress=False),
    "gallery": gallery,
    "compared galleries": voted,
    "votes": counted,
    "training": trained,
    "site": lambda s: pyxai.playground.build(
        s.clf, s.folder, s.out / "site", settings=SiteSettings(**SITE), progress=False
    ),
}  # fmt: skip

# What a public call is said to return that is no result, and why.
OTHERS = {
    "CamMethod": "a setting",
    "Classifier": "a model",
    "ImageIndex": "a store, which is searched",
    "LinearHead": "a part of a model",
    "NoveltyDetector": "an estimator of scikit-learn's kind",
    "Preprocessing": "a setting",
    "Reading": "a setting",
    "ResolvedTarget": "tensors, between two calls",
    "Activations": "tensors, batch by batch",
    "Drawing": "a setting",
    "Explaining": "a setting",
    "Examined": "what is known of a model",
    "Layout": "what is known of a model",
    "Output": "what is known of a model",
    "Point": "what is known of a model",
    "Recording": "tensors, between two calls",
    "Part": "a piece of a run",
    "Run": "a run, which results are read from",
    "RunState": "a run, which results are read from",
    "ImageError": "an error",
    "TopWindow": "a row of a result",
    "Agreement": "a row of a result",
    "RetrievalRow": "a row of a result",
}
MANY = {  # what leaves out photos that cannot be used
    *("SHAP summary", "exciting crops", "active share", "a detector's evaluation"),
    *("methods of novelty", "duplicates", "audit", "gallery", "training", "site"),
}


@pytest.mark.parametrize("name", CALLS)
def test_it_is_frozen_and_itself(subject, name):
    found = subject[name]
    assert isinstance(found, Result)
    if name == "gallery":  # an estimator: fitted, not made
        return
    assert is_dataclass(found)
    assert found.__dataclass_params__.frozen
    assert not found.__dataclass_params__.eq
    assert found == found and found != object()  # noqa: PT018
    with pytest.raises(AttributeError):
        setattr(found, fields(found)[0].name, None)


@pytest.mark.parametrize("name", CALLS)
def test_one_line(subject, name):
    line = repr(subject[name])
    assert line.startswith(f"{type(subject[name]).__name__}(")
    assert line.isprintable()
    assert len(line) <= 200


@pytest.mark.parametrize("name", CALLS)
def test_data(subject, name):
    told = subject[name].to_dict()
    assert told
    assert json.loads(json.dumps(told, allow_nan=False)) == told


@pytest.mark.parametrize("name", CALLS)
def test_picture(subject, name):
    picture = subject[name].figure()
    assert isinstance(picture, Image.Image)
    assert 40 <= min(picture.size) <= max(picture.size) <= 4000
    assert np.asarray(picture.convert("L")).std() > 1  # something is on it


@pytest.mark.parametrize("name", CALLS)
def test_notebook(subject, name):
    found = subject[name]
    data = found._repr_png_()
    assert len(data) < 200_000
    assert Image.open(io.BytesIO(data)).format == "PNG"
    if isinstance(found, Report):
        page = found._repr_html_()
        assert len(page.encode()) < 200_000
        for loud in ("<script", "<b>", LOUD):
            assert loud not in page


@pytest.mark.parametrize("name", CALLS)
def test_table(subject, name):
    found = subject[name]
    if not isinstance(found, Table):
        assert not hasattr(found, "to_pandas")
        return
    columns, rows = found._table()
    assert len({*columns}) == len(columns)
    assert all(len(row) == len(columns) for row in rows)
    if importlib.util.find_spec("pandas") is None:
        with pytest.raises(MissingExtraError, match=r"pip install 'pyxai-vision\[pandas\]'"):
            found.to_pandas()
        return
    frame = found.to_pandas()
    assert [*frame.columns] == [*columns]
    assert len(frame) == len(rows)


@pytest.mark.parametrize("name", CALLS)
def test_files(subject, name, tmp_path):
    found = subject[name]
    if type(found).save is not Result.save:  # a folder of ours
        path = found.save(tmp_path / "folder")
        assert path.exists()
        return
    for suffix in found._writers():
        path = tmp_path / f"result{suffix}"
        assert found.save(path) == path
        assert found.save(str(path)) == path  # ours is replaced
        path.write_bytes(b"a note")
        with pytest.raises(ValueError, match="something else"):
            found.save(path)
        assert path.read_bytes() == b"a note"
    with pytest.raises(ValueError, match=r"^path: expected a file of \.png or \.json"):
        found.save(tmp_path / "result.txt")


@pytest.mark.parametrize("name", CALLS)
def test_tensors_in_files(subject, name, tmp_path):
    found = subject[name]
    tensors = found._tensors()
    if tensors:
        with safe_open(found.save(tmp_path / "all.safetensors"), "pt") as file:
            assert {*file.keys()} == {*tensors}
            for key, tensor in tensors.items():
                kept = file.get_tensor(key)
                assert torch.equal(kept.nan_to_num(), tensor.cpu().nan_to_num())
    if name != "gallery" and "windows" not in name and name != "training":  # these hold a model
        again = pickle.loads(pickle.dumps(found))
        assert again.to_dict() == found.to_dict()


@pytest.mark.parametrize("name", CALLS)
def test_what_could_not_be_used(subject, name):
    found = subject[name]
    if name not in MANY:
        return
    assert isinstance(found.failures, tuple)
    assert all(isinstance(each, PhotoFailure) for each in found.failures)
    assert [Path(each.path).name for each in found.failures] == [BROKEN]
    assert found.to_dict()["failures"] == [each._asdict() for each in found.failures]


@pytest.mark.parametrize("name", CALLS)
def test_a_sequence_has_its_length(subject, name):
    found = subject[name]
    if hasattr(type(found), "__iter__"):
        assert len([*found]) == (len(found) if hasattr(found, "__len__") else len([*found]))


def returned_by(function):
    """The classes of pyxai that a function is said to return."""
    said = getattr(function, "__annotations__", {}).get("return")
    if not isinstance(said, str):
        return set()
    try:
        hint = eval(said, {**vars(typing), **vars(sys.modules[function.__module__])})
    except NameError:  # known to type checkers only
        return set()
    found, waiting = set(), [hint]
    while waiting:
        each = waiting.pop()
        waiting += typing.get_args(each)
        if isinstance(each, type) and each.__module__.startswith("pyxai"):
            found.add(each)
    return found


def test_all_results_are_in_the_walk(subject):
    walked = {type(subject[name]) for name in CALLS}
    said = set().union(*(returned_by(function) for _, function in public_functions()))
    for kind in walked:
        methods = (each for name, each in vars(kind).items() if name[0] != "_" and callable(each))
        said |= set().union(*map(returned_by, methods))
    assert {kind.__name__ for kind in said - walked} == OTHERS.keys()


def test_large_pictures_are_made_small():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8))
    data = png_of(noise, 50_000)
    assert len(data) < 50_000
    assert Image.open(io.BytesIO(data)).width > 100
