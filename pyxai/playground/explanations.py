"""What speaks for the classes of each photo: maps to lay over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from tqdm import tqdm

from pyxai._errors import REFUSALS, passes_through
from pyxai._sealed import digest
from pyxai.attribution.cam import cam
from pyxai.attribution.masks import undesirable_pixels
from pyxai.attribution.masks.settings import MaskSettings
from pyxai.attribution.windows.search import sliding_window
from pyxai.classifier import Classifier, typical_input
from pyxai.classifier.fingerprint import identity
from pyxai.engines.torch import accelerate
from pyxai.images import ImageError, open_photo
from pyxai.playground.earlier import EarlierExplanations
from pyxai.playground.photo_files import PhotoSet
from pyxai.playground.writing import SiteFolder, packed
from pyxai.search.contents import Photo

PHOTOS_PER_FILE = 20
TITLES = {
    "cam": "CAM",
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "eigencam": "EigenCAM",
    "xgradcam": "XGrad-CAM",
}
_TOP = 5  # classes that are listed
_EXPLAINED = 2  # of these, and the class of the photo's folder
_CELLS = 32  # a side of a map of windows, at most
_MASK = 28  # a side of a mask, at most


@dataclass(frozen=True, kw_only=True)
class Explaining:
    """Which explanations photos get.

    Attributes:
        photos: how many photos of each set get any, spread over it; None, all.
        methods: of class activation maps.
        windows: whether windows slide over each.
        undesirable: how many photos, spread over the set, get a map of undesirable pixels.
        steps: of learning these.
        seed: of their first mask.
    """

    photos: int | None = None
    methods: tuple[str, ...]
    windows: bool = False
    undesirable: int = 0
    steps: int = 200
    seed: int = 0


def write_explanations(
    site: SiteFolder,
    photos: PhotoSet,
    number: int,
    classifier: Classifier,
    settings: Explaining,
    *,
    progress: bool,
) -> int:
    """Writes the explanations of a set by one network; returns how many photos have any.

    Raises:
        pyxai.images.ImageError: a photo cannot be read any more.
    """
    step = f"{photos.address}/networks/{number}/explained-"
    of = identity(classifier)
    site.begin(step, photos=photos.key, of=of, settings=settings)
    whole = len(photos.photos)
    count = whole if settings.photos is None else min(settings.photos, whole)
    chosen, learned = _spread(whole, count), _spread(whole, min(settings.undesirable, count))
    explainer = Explainer(classifier, settings)
    earlier = EarlierExplanations(site.earlier(step))
    bar = tqdm(total=whole, desc="explanations", unit="photo", disable=None if progress else True)
    for first in range(0, whole, PHOTOS_PER_FILE):
        some = range(first, min(first + PHOTOS_PER_FILE, whole))
        address = f"{step}{first // PHOTOS_PER_FILE}"
        if not site.has(address):
            marks: list[str | None] = []
            found: list[dict[str, Any] | None] = []
            for each in some:
                photo, is_learned = photos.photos[each], each in learned
                wanted = each in chosen or is_learned
                mark = _mark(photo, of, settings, is_learned) if wanted else None
                marks.append(mark)
                known = None if mark is None else earlier.get(mark)
                if mark is not None and known is None:
                    known = _explained(explainer, photo, is_learned)
                found.append(known)
            site.write(address, {"first": first, "photos": found, "of": marks})
        bar.update(len(some))
    bar.close()
    return len(chosen | learned)


def _mark(photo: Photo, of: str, settings: Explaining, undesirable: bool) -> str:
    """What the explanation of a photo depends on."""
    learning = (settings.steps, settings.seed) if undesirable else None
    said = (photo.content, photo.label, of, settings.methods, settings.windows, learning)
    return digest([repr(said).encode("utf-8", "backslashreplace")])


def _explained(explainer: Explainer, photo: Photo, undesirable: bool) -> dict[str, Any]:
    try:
        return explainer(open_photo(photo.path), label=photo.label, undesirable=undesirable)
    except ImageError as error:
        raise ImageError(photo.path, error.reason) from error


def _spread(whole: int, count: int) -> set[int]:
    """So many numbers below `whole`, evenly: photos lie class by class."""
    return {place * whole // count for place in range(count)}


class Explainer:
    """Explains one photo after the other; several threads may."""

    def __init__(self, classifier: Classifier, settings: Explaining) -> None:
        """Finds out, by running the network, which explanations it can have."""
        self._classifier = classifier
        self._settings = settings
        self._fast = _faster(classifier) if settings.windows or settings.undesirable else classifier
        probe = typical_input(classifier)
        # "auto" first: its map is then the first, and so is the name of what it stands for.
        self._methods = sorted(settings.methods, key=lambda each: each != "auto")
        if not _works(lambda: classifier.last_spatial_layer(probe)):
            self._methods = []  # no layer has positions
        height, width = probe.shape[2:]
        side = _window(width, height)
        small = _works(lambda: classifier(probe[:, :, :side, :side]))
        self._resize = None if small else (height, width)

    def __call__(
        self, photo: Image.Image, *, label: str | None = None, undesirable: bool = False
    ) -> dict[str, Any]:
        """The top classes of a photo, and maps of what speaks for them and for its own class.

        Args:
            photo: upright RGB, as `open_photo` gives it.
            label: its class, whether the network knows that or not.
            undesirable: whether to look for undesirable pixels, which takes longest.

        Raises:
            pyxai.images.ImageError: it does not become the network's input.
        """
        preprocessing = self._classifier.preprocessing
        view = preprocessing.view(photo) if self._settings.windows else None
        inputs = self._classifier.to_input(photo)
        return self.of_input(inputs, photo.size, view=view, label=label, undesirable=undesirable)

    def of_input(
        self,
        inputs: torch.Tensor,
        size: tuple[int, int],
        *,
        view: Image.Image | None = None,
        label: str | None = None,
        undesirable: bool = False,
    ) -> dict[str, Any]:
        """The same for a photo that has become the network's input, and need not be kept.

        Args:
            inputs: `[1, C, H, W]`.
            size: (width, height) of the photo.
            view: what the network sees of it, for windows; None, without these.
            label: as for a call.
            undesirable: as for a call.
        """
        classifier = self._classifier
        region = [round(edge, 2) for edge in classifier.preprocessing.region(size)]
        probabilities = classifier.probabilities(classifier(inputs).float())[0]
        best = probabilities.topk(min(_TOP, len(probabilities))).indices.tolist()
        own = _class_named(classifier, label)
        classes = best[:_EXPLAINED]
        if own is not None and own not in classes:
            classes.append(own)
        chances = {each: float(probabilities[each]) for each in {*best, *classes}}
        maps = self._activation_maps(inputs, classes, chances) if self._methods else []
        if view is not None:
            maps.append(self._windows(view, classes[0], chances))
        is_plain = bool((inputs.amax((2, 3)) == inputs.amin((2, 3))).all())
        if undesirable and not is_plain:  # a picture of one colour equals its blurred one
            maps.append(self._undesirable(inputs, classes[0] if own is None else own))
        for each in maps:
            each["region"] = region
        return {"top": [[each, round(chances[each], 5)] for each in best], "maps": maps}

    def _activation_maps(
        self, inputs: torch.Tensor, classes: list[int], chances: dict[int, float]
    ) -> list[dict[str, Any]]:
        found, report = cam(
            self._classifier,
            inputs,
            [classes],
            method=self._methods,
            size=None,
            normalize=None,
            return_report=True,
        )
        maps = []
        for label, several in found.items():
            method = next(iter(report)) if label == "auto" else label
            if method != label and method in found:
                continue
            title = TITLES.get(method, method)
            for row, target in enumerate(classes):
                facts = [["probability", _percent(chances[target])]]
                for layer, told in report[method].items():
                    facts.append(["layer", layer])
                    if "gap" in told:
                        facts.append(["off the logit by", f"{float(told['gap'][0, row]):.1e}"])
                maps.append(_map("cam", method, title, target, several[0, row], facts))
        return maps

    def _windows(self, view: Image.Image, target: int, chances: dict[int, float]) -> dict[str, Any]:
        """Windows of half a side slide over what the network sees of the photo."""
        side = _window(*view.size)
        found = sliding_window(
            self._fast,
            view,
            window=side,
            stride=max(1, side // 4),
            target=target,
            resize=self._resize,
        )
        heatmap = found.heatmap()
        cells = min(_CELLS, heatmap.shape[0]), min(_CELLS, heatmap.shape[1])
        values = functional.adaptive_avg_pool2d(heatmap[None, None], cells)[0, 0]
        best = found.top(1)[0]
        facts = [
            ["probability", _percent(chances[target])],
            ["in the best window", _percent(best.probability)],
            ["windows", f"{len(found.boxes)} of {side} × {side} pixels"],
        ]
        return _map("windows", found.mode, "Sliding windows", target, values, facts)

    def _undesirable(self, inputs: torch.Tensor, target: int) -> dict[str, Any]:
        settings = self._settings
        size = min(_MASK, inputs.shape[2]), min(_MASK, inputs.shape[3])
        found = undesirable_pixels(
            self._fast,
            inputs,
            target,
            seed=settings.seed,
            settings=MaskSettings(steps=settings.steps, mask_size=size),
        )
        facts = [
            ["probability before", _percent(float(found.before[0]))],
            ["with these pixels blurred", _percent(float(found.after[0]))],
            ["area", _percent(float(found.area()[0]))],
        ]
        hidden = 1 - found.mask[0]
        title = "Undesirable pixels"
        return _map("undesirable", "target", title, target, hidden, facts, scale=(0, 1))


def _faster(classifier: Classifier) -> Classifier:
    """An accelerated copy, for what takes hundreds of passes; itself where there cannot be one."""
    try:
        return accelerate(classifier)
    except (ValueError, RuntimeError):
        return classifier


def _window(width: int, height: int) -> int:
    return max(1, min(width, height) // 2)


def _works(call: Callable[[], object]) -> bool:
    """Whether a network allows a call; they refuse in every way there is."""
    try:
        call()
    except REFUSALS as error:
        if passes_through(error):
            raise
        return False
    return True


def _class_named(classifier: Classifier, label: str | None) -> int | None:
    """The class of a folder's name, if the network knows it."""
    names = classifier.class_names or ()
    return names.index(label) if label in names and names.count(label) == 1 else None


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _map(
    kind: str,
    method: str,
    title: str,
    target: int,
    values: torch.Tensor,
    facts: Sequence[Sequence[str]],
    scale: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """A map as the pages read it, but for its region."""
    numbers = values.detach().double().cpu().numpy()
    low, high = scale or (float(numbers.min()), float(numbers.max()))
    shares = (numbers - low) / ((high - low) or 1.0)
    return {
        "kind": kind,
        "method": method,
        "title": title,
        "target": target,
        "values": packed(np.rint(255 * shares.clip(0, 1)).astype(np.uint8), "uint8"),
        "low": round(low, 6),
        "high": round(high, 6),
        "facts": facts,
    }
