"""What pyxai offers, as functions that give numbers to be compared.

`networks.capabilities` has what is tried on every kind of network; this joins what lies around a
network: files, pictures, training, and the operators by themselves.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks.capabilities import CAPABILITIES, Result, Subject, relative
from PIL import Image

import pyxai
from pyxai import draw, feature_visualization, images, novelty, ops, zoo
from pyxai.playground import voting

SIDE = 32


@dataclass(frozen=True)
class Prepared(Subject):
    """A subject whose photo is made beforehand, without any setting.

    Attributes:
        photo: one and a half times as large as the images.
        known: enough images for a covariance of features.
        transformer: for the method that wants one.
    """

    photo: torch.Tensor | None = None
    known: torch.Tensor | None = None
    transformer: torch.nn.Module | None = None

    @property
    def noisy_photo(self) -> torch.Tensor:
        return self.photo

    @property
    def photos(self) -> list[Path]:
        return sorted(self.folder.rglob("*.png"))


CALLS: dict[str, Callable[[Prepared], Result]] = {}


def call(name: str) -> Callable[[Any], Any]:
    def note(function: Callable[[Prepared], Result]) -> Callable[[Prepared], Result]:
        CALLS[name] = function
        return function

    return note


def numbers(values: Any) -> torch.Tensor:
    """On the CPU, whatever the default device is; of pictures their bytes."""
    if isinstance(values, torch.Tensor):
        return values
    if isinstance(values, Image.Image):
        return torch.from_numpy(np.array(values))
    return torch.from_numpy(np.array(values, dtype=np.float64))


# Those that make tensors of their own by torch's defaults are written again below.
CALLS.update({name: run for name, run in CAPABILITIES.items() if name not in ("gallery", "index")})


@call("cam: legrad")
def legrad(subject: Prepared) -> Result:
    return {"maps": pyxai.cam(subject.transformer, subject.images, method="legrad")}


@call("gallery")
def gallery(subject: Prepared) -> Result:
    found = pyxai.ClassGallery(subject.classifier, crop=SIDE, clusters=2).fit(subject.folder)
    with tempfile.TemporaryDirectory() as name:
        found.save(Path(name) / "gallery")
        kept = pyxai.ClassGallery.load(Path(name) / "gallery")
    crops = [crop for one in (found, kept) for crop in one[0]]
    again = found.recluster(clusters=3)[0]
    return {
        "crops": [(crop.name, crop.box, bool(crop.representative)) for crop in crops],
        "again": [(crop.name, crop.box, bool(crop.representative)) for crop in again],
        "scores": numbers([crop.score for crop in crops]),
        "features": numbers(kept.features(0)),
        "sheet": numbers(found.figure(0)),
    }


@call("galleries side by side")
def galleries(subject: Prepared) -> Result:
    pair = [
        pyxai.ClassGallery(subject.classifier, crop=SIDE, clusters=k).fit(subject.folder)
        for k in (1, 2)
    ]
    with tempfile.TemporaryDirectory() as name:
        compared = voting.compare(pair, Path(name) / "both")
    numeric = [v for row in compared.rows for v in row.values() if isinstance(v, float)]
    return {"questions": compared.questions, "rows": numbers(numeric)}


@call("index")
def index(subject: Prepared) -> Result:
    report: Result = {}
    photos = subject.photos
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "index"
        found = pyxai.ImageIndex.build(
            subject.classifier, photos[:-2], directory=folder, progress=False
        )
        found.add(photos[-2:], progress=False)
        kept = pyxai.ImageIndex.load(folder, subject.classifier)
        for metric in ("cosine", "euclidean", "correlation"):
            one = kept.search(photos[0], metric=metric)
            report[f"{metric}: near"] = numbers(sorted(one.distances))
            report[f"{metric}: typical"] = numbers([kept.typical_distance(metric=metric)])
            among = kept.search(range(3), 2, metric=metric)
            report[f"{metric}: among"] = numbers([each.distances for each in among])
        piece = kept.search(photos[1], box=(0, 0, 40, 40))
        report["piece"] = numbers(sorted(piece.distances))
        rows = kept.evaluate(k=1, bootstrap=10).rows
        report["measures"] = numbers([each.value for row in rows for each in row.measures.values()])
        report["features"] = relative(kept.features())
        projected = kept.project()
        report["points"] = numbers(np.abs(projected.points))
        report["explained"] = numbers(projected.explained)
    return report


@call("duplicates by all means")
def duplicates(subject: Prepared) -> Result:
    with tempfile.TemporaryDirectory() as name:
        found = pyxai.find_duplicates(
            subject.folder, subject.classifier, progress=False, store=Path(name) / "kept"
        )
    return {"groups": [(each.keep, tuple(c.path for c in each.copies)) for each in found.groups]}


def novelty_by(method: str) -> Callable[[Prepared], Result]:
    def run(subject: Prepared) -> Result:
        labels = [number % 3 for number in range(len(subject.known))]
        options = {"novel": -subject.known[:20]} if method == "logistic" else {}
        exact = novelty.Logistic(C=(1.0,), tol=(1e-9,), folds=2)
        chosen = exact if method == "logistic" else method
        detector = pyxai.NoveltyDetector(subject.classifier, method=chosen)
        detector.fit(subject.known, labels=labels, **options)
        found = {"scores": numbers(detector.score_samples(subject.images))}
        if method in novelty.scores.SCORES:
            with tempfile.TemporaryDirectory() as name:
                file = Path(name) / "detector.safetensors"
                detector.save(file)
                kept = pyxai.NoveltyDetector.load(file, subject.classifier)
            found["kept"] = numbers(kept.score_samples(subject.images))
        found["decisions"] = numbers(detector.decision_function(subject.images))
        found["predicted"] = len(detector.predict(subject.images))  # signs of the decisions
        return found

    return run


for _method in novelty.METHODS:
    CALLS[f"novelty: {_method}"] = novelty_by(_method)


@call("novelty side by side")
def novelty_compared(subject: Prepared) -> Result:
    clf, known = subject.classifier, subject.known
    novel = known.flip(-1) * 2
    methods = ("knn", "msp")
    compared = novelty.compare(
        clf, known, known, novel, methods=methods, bootstrap=5, progress=False
    )
    quick = novelty.Logistic(C=(1.0,), tol=(1e-4,), folds=2)
    held = novelty.holdout(clf, known, novel, method=quick, splits=2, progress=False)
    judged = novelty.evaluate_scores(*compared.scores["knn"], bootstrap=5)
    return {
        **{name: numbers(each[0]) for name, each in compared.scores.items()},
        "auroc": numbers([judged.auroc.value]),
        "held out": numbers(held.accuracies),
    }


@call("active share")
def active(subject: Prepared) -> Result:
    share = pyxai.active_share(subject.classifier, subject.images, first_layer(subject))
    return {"shares": numbers(share.shares["images"])}


def first_layer(subject: Prepared) -> str:
    return next(
        name
        for name, module in subject.classifier.network.named_modules()
        if isinstance(module, torch.nn.Conv2d)
    )


@call("windows, more of them")
def windows(subject: Prepared) -> Result:
    found = pyxai.sliding_window(
        subject.classifier, subject.photos[0], window=SIDE, stride=8, mode="shared"
    )
    agreement = found.agreement(4)
    return {
        "heatmap": found.heatmap(),
        "top": [entry.box for entry in found.top(3)],
        "agreement": numbers([agreement.difference, agreement.difference_all]),
        "sheet": numbers(draw.window_sheet(subject.photos[0], found.boxes, found.scores)),
    }


@call("learned masks of all kinds")
def masks(subject: Prepared) -> Result:
    options = {"mask_size": 8, "steps": 3, "blur_kernel": 5}
    model, images = subject.model, subject.images[:2]
    one = pyxai.meaningful_perturbation(model, images, settings=pyxai.MeaningfulSettings(**options))
    two = pyxai.extremal_perturbation(model, images, settings=pyxai.ExtremalSettings(**options))
    both = pyxai.undesirable_pixels(model, images, [[0, 1]], settings=pyxai.MaskSettings(**options))
    (left,) = draw.to_pictures(subject.images[:1], (0.5,) * 3, (0.25,) * 3)
    (right,) = draw.to_pictures(one.perturbed(subject.images[:2])[:1], (0.5,) * 3, (0.25,) * 3)
    figure = draw.mask_figure([(left, [(one.heatmap[0], right)])], [["seen", "hidden", "masked"]])
    return {
        "meaningful": one.mask,
        "extremal": two.mask,
        "of two classes": both.mask,
        "losses": relative(one.losses),
        "improvement": one.improvement() / 100,
        "area": two.area(),
        "figure": numbers(figure),
    }


@call("feature visualization")
def visualized(subject: Prepared) -> Result:
    layer = first_layer(subject)
    options = {"size": 24, "steps": 3}
    with_variants = pyxai.visualize_features(subject.model, layer, [0, 1], variants=2, **options)
    logits = pyxai.visualize_features(subject.model, None, [1], network_size=SIDE, **options)
    whole = pyxai.visualize_features(subject.model, layer, **options)
    drawn = feature_visualization.caricatures(subject.model, subject.images[:1], layer, **options)
    (picture,) = draw.to_pictures(whole.pictures, (0,) * 3, (1,) * 3)
    return {
        "variants": with_variants.pictures,
        "responses": relative(with_variants.responses),
        "logits": logits.pictures,
        "layer": whole.pictures,
        "caricature": drawn.pictures,
        "sheet": numbers(draw.feature_sheet([picture])),
    }


@call("exciting crops")
def exciting(subject: Prepared) -> Result:
    found = feature_visualization.exciting_crops(
        subject.classifier, subject.photos, first_layer(subject), [0, 1], per_channel=2
    )
    crops = [crop for row in found for crop in row]
    return {
        "crops": [(crop.name, crop.box) for crop in crops],
        "responses": numbers([crop.response for crop in crops]),
    }


@call("SHAP in short")
def shap_summary(subject: Prepared) -> Result:
    found = pyxai.shap_summary(
        subject.classifier, subject.folder, target="predicted", grid=4, samples=16, progress=False
    )
    regions = torch.from_numpy(np.arange(SIDE * SIDE).reshape(SIDE, SIDE) // 300)
    values = pyxai.shap_values(
        subject.model, subject.images[:1], method="kernel", regions=regions, samples=20
    ).values
    photo = Image.new("RGB", (SIDE, SIDE))
    panel = draw.shap_panel(photo, relative(values)[0].reshape(-1, SIDE, SIDE)[0], 1.0)
    return {
        **{str(each.name): numbers(each.mean) for each in found.classes},
        "agreement": numbers([each.agreement for each in found.classes]),
        "regions": relative(values),
        "panel": numbers(panel),
        "figure": numbers(draw.shap_figure([photo], [[np.ones((SIDE, SIDE))]], [["all"]])),
    }


def trained_with(**options: Any) -> Callable[[Prepared], Result]:
    def run(subject: Prepared) -> Result:
        tuned = pyxai.fine_tune(
            subject.classifier,
            subject.folder,
            valid=subject.folder,
            batch_size=4,
            progress=False,
            **options,
        )
        with tempfile.TemporaryDirectory() as name:
            zoo.save_classifier(tuned.classifier, Path(name) / "tuned.safetensors")
            file = Path(name) / "tuned.safetensors"
            plain = subject.model if "head" in options else tuned.classifier.network
            empty = copy.deepcopy(plain)
            kept = pyxai.load_classifier(file, architecture=empty)
        return {
            "logits": relative(tuned.classifier(subject.images.float())),
            "kept": relative(kept(subject.images.to(kept.dtype))),
            "losses": numbers([epoch.loss for epoch in tuned.history]),
            "log loss": numbers([tuned.metrics.log_loss]),
        }

    return run


CALLS["training: head"] = trained_with(epochs=2, augment="none")
CALLS["training: hidden layer"] = trained_with(epochs=1, head="mlp", hidden=8)
CALLS["training: all"] = trained_with(epochs=1, unfreeze="all", augment="affine", crop=24)


@call("preprocessing and a small network")
def demo(subject: Prepared) -> Result:
    clf = pyxai.load_classifier("demo")
    batch = images.to_batch(subject.photos[:2], pyxai.Preprocessing(resize=64, crop=48))
    read = images.as_preprocessing(pyxai.Preprocessing(resize=40))
    one = images.to_batch(images.open_photo(subject.photos[0]), read)
    many = [photo.size for _, photo in images.iterate_photos(subject.folder)]
    maps = pyxai.cam(clf, subject.photos[:1])
    view = clf.preprocessing.view(Image.open(subject.photos[0]))
    return {
        "batch": batch,
        "one": one,
        "sizes": many,
        "found": len(list(images.find_photos(subject.folder))),
        "logits": relative(clf(subject.photos[:2])),
        "dtypes": (str(batch.dtype), str(clf.dtype), str(clf.device)),
        "overlay": numbers(draw.overlay(view, maps[0])),
    }


@call("pictures of numbers")
def pictures(subject: Prepared) -> Result:
    heat = subject.images[0, 0]
    photo = Image.fromarray(np.full((SIDE, SIDE, 3), 90, np.uint8))
    return {
        "overlay": numbers(draw.overlay(photo, heat)),
        "histogram": numbers(draw.histogram({"a": heat.flatten().cpu().numpy()})),
        "sheet": numbers(draw.sheet([[photo]], cell=40)),
        "colors": numbers(draw.color_table("ember")),
    }


@call("operators")
def operators(subject: Prepared) -> Result:
    features = subject.images
    weights = features.flatten(2)[:, :2, :3].contiguous()
    maps = ops.cam_project(features, weights)
    masks = features[:, 0].float().sigmoid().contiguous()
    boxes = torch.from_numpy(np.array([[0, 0, 16, 16], [8, 8, 24, 24]]))
    photo = torch.from_numpy(np.full((3, SIDE, SIDE), 90, np.uint8))
    stepped = [torch.from_numpy(np.full((3, 4, 4), value, np.float32)) for value in (1, 2, 0, 0)]
    penalized = [each.clone() for each in stepped]
    ops.mask_step_(*stepped, 1)
    ops.mask_penalized_step_(*penalized, 1, tv_weight=1.0, l1_weight=1.0)
    pixels = torch.from_numpy(np.full((len(maps), SIDE, SIDE, 3), 90, np.uint8))
    return {
        "maps": relative(maps),
        "rendered": ops.cam_render(maps, (8, 8)),
        "both": ops.cam_project_render(features, weights, (8, 8))[0],
        "overlay": ops.cam_overlay(
            pixels, maps[:, 0].float().contiguous(), draw.color_table("ember")
        ),
        "blend": relative(ops.mask_blend(features, masks, features.flip(-1).contiguous())),
        "penalty": relative(ops.mask_penalty(masks, tv_weight=1.0, l1_weight=1.0)),
        "steps": stepped[0],
        "penalized steps": penalized[0],
        "cut": ops.crop_windows(photo, boxes, 16, mean=(0.5,) * 3, std=(0.25,) * 3),
        "heat": ops.window_heatmap(masks[0, :2, 0].contiguous(), boxes, (SIDE, SIDE)),
    }
