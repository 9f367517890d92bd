"""Window search: what a classifier says of each piece of a photo, seen alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, overload

import torch
from PIL import Image
from torch import nn

from pyxai._errors import argument_error, check_count
from pyxai._precision import full_precision
from pyxai.attribution.windows.dense import DenseMode
from pyxai.attribution.windows.exhaustive import ExhaustiveMode
from pyxai.attribution.windows.grid import Grid, make_grid
from pyxai.attribution.windows.pixels import open_pixels
from pyxai.attribution.windows.result import WindowScores
from pyxai.attribution.windows.shared import SharedMode
from pyxai.classifier import Classifier, Examined
from pyxai.classifier.memory_format import best_format
from pyxai.classifier.odd_models import check_model, check_numbers
from pyxai.draw.inputs import shown_pictures
from pyxai.images import PhotoSource, Preprocessing

if TYPE_CHECKING:
    from typing_extensions import Unpack

Mode: TypeAlias = Literal["exhaustive", "shared", "dense"]
Lengths: TypeAlias = "int | tuple[int, int]"
Model: TypeAlias = "nn.Module | Classifier | Callable[[torch.Tensor], Any]"

_MODES = ("exhaustive", "shared", "dense")


class _Options(TypedDict, total=False):
    stride: Lengths | None
    mode: Mode
    resize: Lengths | None
    cover: bool
    shared_layer: str | None
    batch_size: int | None


@overload
def sliding_window(
    model: Model,
    photo: PhotoSource,
    target: int | str | None = None,
    *,
    window: Lengths | None = None,
    **options: Unpack[_Options],
) -> WindowScores: ...


@overload
def sliding_window(
    model: Model,
    photo: PhotoSource,
    target: int | str | None = None,
    *,
    window: list[Lengths],
    **options: Unpack[_Options],
) -> dict[Lengths, WindowScores]: ...


def sliding_window(
    model: Model,
    photo: PhotoSource,
    target: int | str | None = None,
    *,
    window: Lengths | list[Lengths] | None = None,
    stride: Lengths | None = None,
    mode: Mode = "exhaustive",
    resize: Lengths | None = None,
    cover: bool = True,
    shared_layer: str | None = None,
    batch_size: int | None = None,
) -> WindowScores | dict[Lengths, WindowScores]:
    """Logits of overlapping windows of one photo, for all classes at once.

    Memory does not grow with the number of windows, but for their logits. docs/sliding_window.md
    says what each mode computes, what it costs, and when to trust it.

    Args:
        model: an `nn.Module`, a `Classifier`, or (mode "exhaustive" only) any function images
            `[m, C, h, w]` -> logits `[m, K]`. It is left exactly as it was.
        photo: one photo: a path, PIL image, or uint8 array or tensor. Windows are cut from it
            upright and as large as it is; of the classifier's preprocessing, mean and deviation
            are applied, resize and crop are not. Or a float tensor `[C, H, W]` or `[1, C, H, W]`,
            the model's input as it is.
        target: the class that `scores` and `heatmap()` are about, by index or name; None, that with
            the highest mean probability over the windows. All classes are kept in any case.
        window: pixels of the photo: an int, or a pair (height, width). None, 160, or half the
            shorter side where that is less than 320. A list of sizes gives a dict of results; in
            "dense" mode all windows share one forward pass.
        stride: an int, or a pair (down, across); None, a quarter of the window.
        mode: "exhaustive" cuts every window out and runs it. "shared" runs the first stages of the
            network once on the whole photo, and the rest on the part of the features under each
            window. "dense" runs the whole network once; a window's logits are the mean of the
            class maps over it (heads of global average pooling and one linear layer only).
        resize: what each window becomes before the network, an int or a pair (height, width), for
            networks of a fixed input size; bilinear, without antialiasing. In "shared" and "dense"
            mode the photo is resized once by the same factor.
        cover: whether the last row and column of windows lie flush with the border, so that every
            pixel is covered; else only the regular grid.
        shared_layer: the layer up to which windows share the network in "shared" mode; None
            chooses one.
        batch_size: windows of one forward pass; None, as many as suit cache and memory.

    Returns:
        A `WindowScores`; for a list of windows, a dict of these: `found[160]`.

    Raises:
        ValueError: an argument does not fit (its name, what was expected, what was got), the
            network cannot work in this mode, or its logits are not finite.
        pyxai.images.ImageError: the photo cannot be read.
    """
    if mode not in _MODES:
        raise argument_error("mode", "'exhaustive', 'shared' or 'dense'", mode)
    if batch_size is not None:
        batch_size = check_count("batch_size", batch_size, or_none=True)
    if shared_layer is not None and (mode != "shared" or not isinstance(shared_layer, str)):
        raise argument_error("shared_layer", "None, or a name in mode 'shared'", shared_layer)
    classifier = _as_classifier(model, mode)
    check_numbers(classifier.network)
    wanted = None if target is None else classifier.class_index(target)
    # Whatever mode the caller is in: inference tensors could not be written to later.
    with torch.inference_mode(False), torch.no_grad(), full_precision():
        pixels = open_pixels(classifier, photo, move=not isinstance(classifier.model, _Function))
        grids = {
            key: make_grid(pixels.size, key, stride, resize, cover=cover) for key in _keys(window)
        }
        first = next(iter(grids.values()))
        sample = pixels.cut(first.boxes[:1], pixels.buffer(1, first.input_size))
        windows = Examined(classifier, sample)
        pixels = replace(pixels, memory_format=best_format(windows))
        exhaustive = ExhaustiveMode(classifier, pixels, batch_size)
        search: Callable[[Grid], tuple[torch.Tensor, str | None]] = exhaustive
        if mode == "dense":
            search = DenseMode(windows, pixels)
        elif mode == "shared":
            search = SharedMode(windows, pixels, shared_layer, batch_size)
        found = {}
        for key, grid in grids.items():
            logits, layer = search(grid)
            found[key] = WindowScores(
                boxes=grid.boxes,
                logits=logits,
                size=grid.size,
                rows=len(grid.tops),
                columns=len(grid.lefts),
                target=_target(classifier, wanted, logits),
                class_names=classifier.class_names,
                mode=mode,
                layer=layer,
                exhaustive=partial(exhaustive.logits, input_size=grid.input_size),
                photo=partial(_picture, pixels.values, classifier.preprocessing),
                reading=classifier.last_reading,
            )
    return found if isinstance(window, list) else next(iter(found.values()))


class _Function(nn.Module):
    """Any function images -> logits as a module, for those that want one."""

    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, images: torch.Tensor) -> Any:
        return self._function(images)


def _as_classifier(model: Any, mode: str) -> Classifier:
    """The classifier, a module or a function wrapped.

    Raises:
        ValueError: it is none of these, or a function in a mode that needs layers.
    """
    if isinstance(model, Classifier):
        return model
    other = isinstance(model, (type, torch.export.ExportedProgram))  # called, they give no logits
    if isinstance(model, nn.Module) or other or not callable(model):
        return Classifier(check_model(model, or_else="function images -> logits"))
    if mode != "exhaustive":
        raise argument_error("mode", "'exhaustive' for a function, which has no layers", mode)
    return Classifier(_Function(model), name=getattr(model, "__name__", "function"))


def _picture(values: torch.Tensor, preprocessing: Preprocessing) -> Image.Image:
    """A photo's pixels, or the network's input, `[C, H, W]`, as a picture."""
    if values.is_floating_point():
        return shown_pictures(values[None], preprocessing.mean, preprocessing.std)[0]
    return Image.fromarray(values.permute(1, 2, 0).cpu().numpy()).convert("RGB")


def _keys(window: Any) -> list[Any]:
    """The window sizes, each once, as they are called in the result."""
    if not isinstance(window, list):
        return [window]
    if not window:
        raise argument_error("window", "an int, (height, width), or a list of at least one", window)
    return list(dict.fromkeys(tuple(each) if isinstance(each, list) else each for each in window))


def _target(classifier: Classifier, wanted: int | None, logits: torch.Tensor) -> int:
    """The target, or the class with the highest mean probability."""
    if wanted is None:
        return int(classifier.probabilities(logits).mean(dim=0).argmax())
    return int(classifier.resolve_target(wanted, logits).index[0, 0])
