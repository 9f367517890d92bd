"""What pyxai does with a network, as functions that give numbers to be compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import pyxai
from networks.habits import CLASSES
from pyxai.attribution.cam.methods import METHODS
from pyxai.classifier import Examined, anatomy, as_classifier
from pyxai.classifier.features import pooled_features

NAMES = tuple("abcd")
PHOTOS = 6


@dataclass(frozen=True)
class Subject:
    """A network with what it is tried on.

    Attributes:
        model: the network, as a user would pass it.
        images: its input, `[3, C, H, W]`.
        folder: photos in folders named after two classes.
        target: of the explanations.
    """

    model: nn.Module | pyxai.Classifier
    images: torch.Tensor
    folder: Path
    target: Any = None

    @property
    def classifier(self) -> pyxai.Classifier:
        """With preprocessing for the photos."""
        side = self.images.shape[-1]
        names, model = None, self.model
        if isinstance(model, pyxai.Classifier):
            names, model = model.class_names, model.model
        plain = pyxai.Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3, resize=(side, side))
        return pyxai.Classifier(model, class_names=names, preprocessing=plain)

    @property
    def noisy_photo(self) -> torch.Tensor:
        """Model input one and a half times as large."""
        side = self.images.shape[-1] * 3 // 2
        generator = torch.Generator().manual_seed(3)
        photo = torch.randn(self.images.shape[1], side, side, generator=generator)
        return photo.to(self.images.dtype)


Result = dict[str, Any]
CAPABILITIES: dict[str, Callable[[Subject], Result]] = {}
PHOTO_CAPABILITIES = ("gallery", "index", "duplicates", "audit", "novelty of photos")
"""Those that look at photos, which have three channels."""


def capability(name: str) -> Callable[[Any], Any]:
    def note(function: Callable[[Subject], Result]) -> Callable[[Subject], Result]:
        CAPABILITIES[name] = function
        return function

    return note


@capability("logits")
def logits(subject: Subject) -> Result:
    clf = subject.classifier
    found = clf(subject.images)
    return {"logits": relative(found), "probabilities": clf.probabilities(found)}


def cam_by(method: str) -> Callable[[Subject], Result]:
    options = {"sscam": {"samples": 2}, "iscam": {"samples": 2}}.get(method, {})

    def run(subject: Subject) -> Result:
        chosen = pyxai.cam_method(method, **options)
        layer = None
        if method == "refinecam":
            layer = [
                first_convolution(subject),
                subject.classifier.last_spatial_layer(subject.images),
            ]
        maps = pyxai.cam(subject.model, subject.images, subject.target, method=chosen, layer=layer)
        signed = pyxai.cam(
            subject.model,
            subject.images,
            subject.target,
            method=chosen,
            layer=layer,
            size=None,
            normalize=None,
            relu=False,
        )
        return {"maps": maps, "signed": relative(signed)}

    return run


def first_convolution(subject: Subject) -> str:
    """An early layer that a network and its twin have in common."""
    clf = subject.classifier
    return anatomy.examine(clf, subject.images).candidates()[0].point.name


for _name in ("auto", *METHODS):
    CAPABILITIES[f"cam: {_name}"] = cam_by(_name)


@capability("all classes, exact")
def exact(subject: Subject) -> Result:
    """The claim of CAM itself, for every class."""
    maps, logits, report = pyxai.cam(
        subject.model,
        subject.images,
        "all",
        method="cam",
        size=None,
        normalize=None,
        return_logits=True,
        return_report=True,
    )
    ((_, said),) = report["cam"].items()
    largest = float(logits.abs().max())
    allowed = 1e-3 if subject.images.dtype in (torch.float32, torch.float64) else 0.1
    assert float(said["gap"].max()) <= allowed * largest
    return {"maps": relative(maps)}


@capability("CamModel")
def cam_model(subject: Subject) -> Result:
    served = pyxai.CamModel(subject.model, method="cam", example=subject.images[:1])
    found, maps = served(subject.images)
    return {"logits": relative(found), "maps": maps}


@capability("CamModel, exported")
def exported(subject: Subject) -> Result:
    served = pyxai.CamModel(subject.model, method="cam", example=subject.images[:1])
    try:
        program = torch.export.export(served, (subject.images,)).module()
    except RuntimeError as error:
        raise ValueError(f"torch.export: {error}") from error
    found, maps = program(subject.images)
    return {"logits": relative(found), "maps": maps}


@capability("accelerate")
def accelerated(subject: Subject) -> Result:
    fast = pyxai.accelerate(subject.model, probe=subject.images[:2])
    maps = pyxai.cam(fast, subject.images, subject.target)
    return {"logits": relative(as_classifier(fast)(subject.images)), "maps": maps}


@capability("features")
def features(subject: Subject) -> Result:
    clf = subject.classifier
    layer = clf.last_spatial_layer(subject.images)
    found = {"raw": clf.activations(subject.images, layer)[layer].float()}
    for pooling in ("average", "max"):
        found[pooling] = pooled_features(Examined(clf, subject.images), layer, pooling)[layer]
    return {name: relative(each) for name, each in found.items() if name != "raw"}


def windows_by(mode: str) -> Callable[[Subject], Result]:
    def run(subject: Subject) -> Result:
        side = subject.images.shape[-1]
        found = pyxai.sliding_window(
            subject.classifier, subject.noisy_photo, window=side, stride=side // 4, mode=mode
        )
        return {
            "boxes": found.boxes,
            "logits": relative(found.logits),
            "probabilities": found.probabilities,
            "heatmap": found.heatmap(),
        }

    return run


for _mode in ("exhaustive", "shared", "dense"):
    CAPABILITIES[f"windows: {_mode}"] = windows_by(_mode)


@capability("gallery")
def gallery(subject: Subject) -> Result:
    side = subject.images.shape[-1]
    found = pyxai.ClassGallery(subject.classifier, crop=side, clusters=2).fit(subject.folder)
    classes = {}
    for name in range(CLASSES):
        try:
            crops = found[name]
        except ValueError:  # networks of fewer outputs
            break
        classes[f"{name}: crops"] = [(each.name, each.box, each.representative) for each in crops]
        classes[f"{name}: scores"] = torch.tensor([each.score for each in crops])
    return classes


@capability("index")
def index(subject: Subject) -> Result:
    found = pyxai.ImageIndex.build(subject.classifier, subject.folder, progress=False)
    (network,) = found.networks
    widths = [layer.width for layer in network.layers]
    photos = sorted(subject.folder.rglob("*.png"))
    results = [found.search(photo) for photo in photos[:2]]
    near = [
        {path: round(float(far), 3) for path, far in zip(one.paths, one.distances, strict=True)}
        for one in results
    ]
    ordered = [sorted(each.values()) for each in near]  # of equals, rounding decides
    return {
        "widths": widths,
        "near": torch.tensor([[each[str(photo)] for photo in photos] for each in near]),
        "ordered": torch.tensor(ordered),
    }


@capability("duplicates")
def duplicates(subject: Subject) -> Result:
    found = pyxai.find_duplicates(
        subject.folder,
        subject.classifier,
        methods=["features"],
        min_cosine=0.98,
        progress=False,
    )
    return {"groups": [(each.keep, tuple(c.path for c in each.copies)) for each in found.groups]}


@capability("audit")
def audit(subject: Subject) -> Result:
    found = pyxai.audit(subject.classifier, subject.folder, folds=2, n_neighbors=2, progress=False)
    # Sorted: where two are equally unusual, rounding decides on their order.
    listed = {name: sorted(each.path for each in rows) for name, rows in found.findings.items()}
    return {"listed": listed, "margins": torch.from_numpy(found.measures["label_margin"])}


@capability("novelty")
def novelty(subject: Subject) -> Result:
    return _novelty(subject, subject.images.repeat(4, 1, 1, 1), subject.images)


@capability("novelty of photos")
def novelty_of_photos(subject: Subject) -> Result:
    photos = sorted(subject.folder.rglob("*.png"))
    return _novelty(subject, photos * 3, photos)


def _novelty(subject: Subject, known: Any, images: Any) -> Result:
    found = {}
    for method in ("knn", "msp"):
        detector = pyxai.NoveltyDetector(subject.classifier, method=method)
        found[method] = relative(torch.from_numpy(detector.fit(known).score_samples(images)))
    return found


@capability("SHAP")
def shap(subject: Subject) -> Result:
    found = {}
    for method, samples in (("gradient", 8), ("partition", 16), ("kernel", 40)):
        options = {"regions": 9} if method == "kernel" else {}
        values = pyxai.shap_values(
            subject.model,
            subject.images[:1],
            target=subject.target,
            method=method,
            samples=samples,
            **options,
        )
        found[method] = relative(values.values)
    return found


@capability("learned masks")
def learned_masks(subject: Subject) -> Result:
    settings = pyxai.MaskSettings(mask_size=8, steps=4, blur_kernel=5)
    learned = pyxai.undesirable_pixels(
        subject.model, subject.images[:2], subject.target, settings=settings
    )
    return {"mask": learned.mask, "before": learned.before, "after": learned.after}


def relative(values: torch.Tensor) -> torch.Tensor:
    """Values by the largest of them, so that one tolerance fits all."""
    values = values.detach().float()
    largest = values.abs().amax() if values.numel() else values.new_tensor(1.0)
    return values / largest.clamp(min=1e-12)


def photos_in(root: Path) -> Path:
    """Photos of two classes: colored squares on noise, two of them alike."""
    random = np.random.default_rng(0)
    for number in range(PHOTOS):
        name = "a" if number % 2 else "b"
        (root / name).mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 90, (80, 72, 3))
        top, left = random.integers(0, 30, 2)
        pixels[top : top + 40, left : left + 36, number % 3] += 150
        Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number}.png")
    twin = Image.open(root / "b" / "0.png")
    twin.save(root / "b" / "9.png")
    return root


def differences(one: Result, other: Result, tolerance: float) -> list[str]:
    """Where two results differ, in words."""
    found = []
    if one.keys() != other.keys():
        return [f"{sorted(one)} is not {sorted(other)}"]
    for name, mine in one.items():
        theirs = other[name]
        if isinstance(mine, torch.Tensor):
            mine, theirs = mine.detach().double(), theirs.detach().double()
            if mine.shape != theirs.shape:
                found.append(f"{name}: {[*mine.shape]} is not {[*theirs.shape]}")
            elif mine.numel():
                gap = (torch.nan_to_num(mine) - torch.nan_to_num(theirs)).abs().max()
                if not float(gap) <= tolerance:
                    found.append(f"{name}: {float(gap):.1e} apart")
        elif mine != theirs:
            found.append(f"{name}: {str(mine)[:80]} is not {str(theirs)[:80]}")
    return found
