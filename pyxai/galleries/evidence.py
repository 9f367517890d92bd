"""What the windows of one photo say: which class each speaks for most, and how strongly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pyxai._errors import REFUSALS, passes_through
from pyxai._precision import full_precision
from pyxai.attribution.cam import cam
from pyxai.attribution.windows.dense import coverage
from pyxai.attribution.windows.grid import make_grid
from pyxai.attribution.windows.search import Mode, sliding_window
from pyxai.classifier import Classifier, Examined, typical_input_shape
from pyxai.classifier.borrow import borrowed, call
from pyxai.galleries.contents import Settings

_TOP_CLASSES = 3  # of a photo, for which Grad-CAM is computed


@dataclass(frozen=True)
class WindowEvidence:
    """The windows of one photo.

    Attributes:
        boxes: `[n, 4]` int64: x0, y0, x1, y1 in pixels of the photo, row by row.
        classes: `[n]` int64, the class that each window speaks for most.
        scores: `[n]` float64, the logarithm of that class's probability, which tells apart
            probabilities that round to 1.
        class_count: K.
    """

    boxes: NDArray[np.int64]
    classes: NDArray[np.int64]
    scores: NDArray[np.float64]
    class_count: int


Evidence: TypeAlias = Callable[[Image.Image], WindowEvidence]


def choose_evidence(classifier: Classifier, settings: Settings) -> Evidence:
    """The way from a photo to the evidence of its windows.

    For evidence="cam", window means of the class maps of one forward pass where the network has a
    linear head and takes photos of any size, else Grad-CAM.
    """
    if settings.evidence == "sliding_window":
        return _search(classifier, settings, cast(Mode, settings.mode))
    if _has_class_maps(classifier):
        return _search(classifier, settings, "dense")
    return _grad_cam(classifier, settings)


def _search(classifier: Classifier, settings: Settings, mode: Mode) -> Evidence:
    """Each window's probabilities by `pyxai.sliding_window`."""

    def look(photo: Image.Image) -> WindowEvidence:
        found = sliding_window(
            classifier,
            photo,
            window=settings.crop,
            stride=settings.stride,
            mode=mode,
            resize=settings.resize,
        )
        scores, classes = found.log_probabilities.cpu().max(dim=1)
        boxes, class_count = found.boxes.numpy(), found.logits.shape[1]
        return WindowEvidence(boxes, classes.numpy(), scores.numpy(), class_count)

    return look


def _grad_cam(classifier: Classifier, settings: Settings) -> Evidence:
    """Window means of Grad-CAM of the photo's top classes, times their probabilities.

    The network sees the photo as the classifier's preprocessing makes it; what that cuts off
    counts as 0.
    """

    @full_precision()
    def look(photo: Image.Image) -> WindowEvidence:
        inputs = classifier.to_input(photo)
        probabilities = classifier.probabilities(classifier(inputs).double())[0].cpu()
        some = probabilities.topk(min(_TOP_CLASSES, len(probabilities)))
        maps = cam(classifier, inputs, some.indices[None], size=None, method="gradcam")[0].cpu()
        size = (photo.height, photo.width)
        grid = make_grid(size, settings.crop, settings.stride, settings.resize, cover=True)
        x0, y0, x1, y1 = map(round, classifier.preprocessing.region(photo.size))
        tops = tuple(top - y0 for top in grid.tops)
        lefts = tuple(left - x0 for left in grid.lefts)
        down = coverage(tops, settings.crop, y1 - y0, maps.shape[1])
        across = coverage(lefts, settings.crop, x1 - x0, maps.shape[2])
        means = (down @ maps @ across.T).flatten(1).double().clamp(min=0)
        scores, best = (means * some.values[:, None]).max(dim=0)
        classes = some.indices[best].numpy()
        boxes = grid.boxes.numpy()
        return WindowEvidence(boxes, classes, scores.log().numpy(), len(probabilities))

    return look


def _has_class_maps(classifier: Classifier) -> bool:
    """Whether the head is linear and the network takes photos of other sizes than the usual one."""
    channels, height, width = typical_input_shape(classifier.network, classifier.preprocessing)
    probe = torch.zeros(1, channels, height, width, dtype=torch.float32, device="cpu").to(
        classifier.device, classifier.dtype
    )
    examined = Examined(classifier, probe)
    if examined.linear_head(examined.layer()) is None:
        return False
    other = probe.new_zeros(1, channels, height + 32, width + 64)
    try:
        with borrowed(classifier.network):
            call(classifier.network, other)
    except REFUSALS as error:  # networks refuse sizes in every way there is
        if passes_through(error):
            raise
        return False
    return True
