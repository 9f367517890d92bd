"""Pictures that excite parts of a network: channels, neurons, classes, layers, directions."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from pyxai._errors import REFUSALS, argument_error, check_count, check_lengths, passes_through
from pyxai.classifier import Classifier, Examined, as_classifier, typical_input_shape
from pyxai.classifier.borrow import borrowed
from pyxai.classifier.memory_format import best_format
from pyxai.classifier.points import check_layer, check_name
from pyxai.feature_visualization import fourier
from pyxai.feature_visualization.feature_optimization import (
    Looking,
    Optimization,
    Optimized,
    See,
    optimize,
)
from pyxai.feature_visualization.movements import make_movements
from pyxai.feature_visualization.result import FeaturePictures
from pyxai.feature_visualization.units import Channels, Layer, find_units, look_at_layer
from pyxai.images import Images

_LEAST_COSINE = 0.1  # so that a caricature that points elsewhere has a slope, as in lucid
_NAMED = 8


def visualize_features(
    model: nn.Module | Classifier,
    layer: str | None,
    channels: Channels = None,
    *,
    size: int = 128,
    steps: int = 512,
    seed: int = 0,
    neuron: tuple[int, int] | Literal["center"] | None = None,
    negative: bool = False,
    variants: int | None = None,
    diversity: float = 1.0,
    network_size: int | None = None,
    robustness: float = 1.0,
    learning_rate: float = 0.05,
    decay: float = 1.0,
    batch_size: int | None = None,
) -> FeaturePictures:
    """Makes pictures that excite units of a network, by optimisation.

    Pictures are sums of waves with independent colours, moved, scaled and turned a little at
    random before each look, and changed by Adam so that the unit's mean activation rises (Olah,
    Mordvintsev and Schubert, "Feature Visualization", Distill 2017, with the defaults of lucid;
    docs/feature_visualization.md). Many are made at once; each is the same, but for rounding,
    whatever else is made with it.

    Args:
        model: an `nn.Module` or a `Classifier`; it is left exactly as it was.
        layer: a name as in `model.named_modules()`; None for the logits.
        channels: channels by index; classes by index or name where `layer` is None; directions in
            the space of channels as a float tensor `[n, C]` (scaled to length 1); or None for the
            layer as a whole, the mean of its squared activations (DeepDream).
        size: side of the pictures in pixels.
        steps: of the optimisation.
        seed: of everything random. The random numbers of a picture depend on the seed, on its
            channel, class or direction, and on its variant only.
        neuron: (row, column) of a single position of the layer's output, or "center"; None for the
            mean over all positions.
        negative: make what the units respond to least. Where activations end in a ReLU, there is
            nothing below 0: take the layer before it.
        variants: pictures of each unit that differ from each other; None for one, without an axis.
        diversity: what it costs that variants are alike: this share of the response, times the mean
            cosine of their Gram matrices in this layer.
        network_size: side of the network's input. By default what is in view is shown pixel by
            pixel, and only a network that does not run at that size gets it resampled to its
            usual size (the preprocessing's, else 224).
        robustness: strength of the random movements: 1, those of lucid for pictures of 128 pixels
            or more (in pixels, less for smaller ones); 0, none.
        learning_rate: of Adam.
        decay: power of the frequency that the waves are divided by; more gives smoother pictures.
        batch_size: pictures at once; None, as many as suit cache and memory.

    Returns:
        The pictures, `[n, 3, size, size]` float32 in [0, 1] on the model's device, with what the
        units said of them in each step; with variants `[n, variants, 3, size, size]`. Units that
        responded to nothing in any step are named by a warning.

    Raises:
        ValueError: an argument does not fit; the layer does not exist (with the closest names), has
            no channels, or cannot be differentiated; a channel or class does not exist; the network
            does not take pictures of that size.
    """
    classifier = as_classifier(model)
    many = _check(
        variants,
        diversity,
        steps,
        learning_rate=learning_rate,
        decay=decay,
        seed=seed,
        batch_size=batch_size,
    )
    with borrowed(classifier.network):
        looking = _looking(classifier, layer, size, robustness, network_size)
        units = find_units(classifier, looking.layer, channels, _position(neuron, looking.layer))

        def responses(features: torch.Tensor, rows: torch.Tensor, see: See) -> torch.Tensor:
            return units.responses(features, rows)

        what = Optimization(
            responses=responses,
            keys=units.keys,
            variants=many,
            negative=negative,
            diversity=diversity,
            steps=steps,
            learning_rate=learning_rate,
            decay=decay,
            seed=seed,
            batch_size=batch_size,
        )
        found = optimize(looking, what)
        return _finish(found, looking, units.names, variants)


def caricatures(
    model: nn.Module | Classifier,
    images: Images,
    layer: str,
    *,
    size: int = 128,
    steps: int = 512,
    seed: int = 0,
    network_size: int | None = None,
    robustness: float = 1.0,
    learning_rate: float = 0.05,
    decay: float = 1.0,
    batch_size: int | None = None,
) -> FeaturePictures:
    """Makes pictures with the activations of photos, exaggerated: what a layer keeps of them.

    Raised is the product of the picture's and the photo's activations over all channels and
    positions, as a share of the photo's own, times their cosine (at least 0.1). The photo is moved
    as the picture is.

    Args:
        model: as for `visualize_features`.
        images: see `Classifier.to_input`; each is scaled to `size` × `size`.
        layer: a name as in `model.named_modules()`.
        size: as for `visualize_features`, as are all that follow.
        steps: of the optimisation.
        seed: of everything random; all pictures have the same random numbers.
        network_size: side of the network's input.
        robustness: strength of the random movements.
        learning_rate: of Adam.
        decay: power of the frequency that the waves are divided by.
        batch_size: pictures at once.

    Returns:
        The pictures, `[N, 3, size, size]` float32 in [0, 1] on the model's device; responses above
        1 are exaggerations.

    Raises:
        ValueError: as for `visualize_features`.
        pyxai.images.ImageError: photos that cannot be used.
    """
    classifier = as_classifier(model)
    _check(
        None, 0.0, steps, learning_rate=learning_rate, decay=decay, seed=seed, batch_size=batch_size
    )
    check_name(classifier.network, layer)
    with borrowed(classifier.network):
        looking = _looking(classifier, layer, size, robustness, network_size)
        photos = _photos(classifier, images, size)

        def responses(features: torch.Tensor, rows: torch.Tensor, see: See) -> torch.Tensor:
            goals = see(photos[rows]).float().flatten(1)
            shown = features.float().flatten(1)
            products = (shown * goals).sum(dim=1)
            lengths = goals.norm(dim=1).clamp(min=1e-12)
            cosines = products / (lengths * shown.norm(dim=1).clamp(min=1e-12))
            value: torch.Tensor = products / lengths.square() * cosines.clamp(min=_LEAST_COSINE)
            return value

        keys = ("photo",) * len(photos)
        what = Optimization(
            responses=responses,
            keys=keys,
            variants=1,
            negative=False,
            diversity=0.0,
            steps=steps,
            learning_rate=learning_rate,
            decay=decay,
            seed=seed,
            batch_size=batch_size,
        )
        found = optimize(looking, what)
        names = tuple(f"images[{place}]" for place in range(len(photos)))
        return _finish(found, looking, names, None)


def _finish(
    found: Optimized, looking: Looking, names: tuple[str, ...], variants: int | None
) -> FeaturePictures:
    """The result; warns of units that nothing excited."""
    shape = (len(names),) if variants is None else (len(names), variants)
    dead = ~found.alive.reshape(shape)
    nothing = dead.reshape(len(names), -1).any(dim=1).nonzero().flatten().tolist()
    if nothing:
        several = ", ".join(names[place] for place in nothing[:_NAMED])
        warnings.warn(
            f"{len(nothing)} of {len(names)} units of {looking.layer.title} responded to nothing, "
            f"so that their pictures are noise: {several}{', ...' * (len(nothing) > _NAMED)}",
            stacklevel=3,
        )
    return FeaturePictures(
        pictures=found.pictures.reshape(*shape, *found.pictures.shape[1:]),
        responses=found.responses.reshape(-1, *shape),
        dead=dead,
        units=names,
        layer=looking.layer.name,
        network_size=looking.side,
        view=looking.movements.view,
        positions=looking.layer.size,
    )


def _looking(
    classifier: Classifier,
    layer: str | None,
    size: int,
    robustness: float,
    network_size: int | None,
) -> Looking:
    """How pictures are shown to the network.

    Raises:
        ValueError: it does not take RGB pictures, or none of that size; or what `look_at_layer`
            raises.
    """
    check_count("size", size, least=2)
    if not (_is_number(robustness) and robustness >= 0):
        raise argument_error("robustness", "a number of at least 0", robustness)
    if layer is not None:
        check_layer(classifier.network, check_name(classifier.network, layer))
    movements = make_movements(size, robustness)
    usual_side, sides = _sides(classifier, movements.view, network_size)
    # The layer gets known at the usual size, so that others need run only as far as it.
    usual = Examined(classifier, _probe(classifier, usual_side))
    layout, as_usual = best_format(usual), None
    try:
        as_usual = look_at_layer(usual, layer)
    except REFUSALS as error:  # so will all that follows
        if passes_through(error):
            raise
    problem: Exception | None = None
    for side in sides:
        probe = _probe(classifier, side).contiguous(memory_format=layout)
        examined = usual.on(probe)
        try:
            known = as_usual if side == usual_side else None
            found = known or look_at_layer(examined, layer)
        except REFUSALS as error:  # networks refuse sizes in every way there is
            if passes_through(error):
                raise
            problem = error
            continue
        if size > side:
            expected = f"at most {side}, the side of the network's input"
            raise argument_error("size", expected, size)
        return Looking(examined, found, movements, side, layout)
    if isinstance(problem, ValueError) and not isinstance(problem, RuntimeError):
        raise problem
    tried = " or ".join(f"{side} × {side}" for side in dict.fromkeys(sides))
    raise ValueError(
        f"{'size' if network_size is None else 'network_size'}: expected a size that the network "
        f"takes (set network_size), got {size if network_size is None else network_size}: it does "
        f"not run on {tried} pixels: {type(problem).__name__}: {str(problem)[:200]}"
    ) from problem


def _sides(classifier: Classifier, view: int, network_size: int | None) -> tuple[int, list[int]]:
    """The usual side of the network's input, and those to try for pictures."""
    channels, height, width = typical_input_shape(classifier.network, classifier.preprocessing)
    if channels != 3:
        expected = "a network of RGB pictures [N, 3, H, W]"
        raise ValueError(f"model: expected {expected}, got one of {channels} channels")
    if network_size is not None:
        return max(height, width), [check_count("network_size", network_size, or_none=True)]
    return max(height, width), [view, height] if height == width else [view]


def _probe(classifier: Classifier, side: int) -> torch.Tensor:
    """Noise as a first picture has it, as the model's input."""
    spectrum = fourier.start_spectrum(side, fourier.stream(0, "probe"))[None]
    picture = fourier.render(spectrum, fourier.wave_lengths(side, 1.0, spectrum.device))
    preprocessing = classifier.preprocessing
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device="cpu")[:, None, None]
        for values in (preprocessing.mean, preprocessing.std)
    )
    return ((picture - mean) / std).to(classifier.device, classifier.dtype)


def _photos(classifier: Classifier, images: Images, size: int) -> torch.Tensor:
    """Photos `[N, 3, size, size]` in [0, 1], as the classifier's preprocessing cuts them."""
    inputs = classifier.to_input(images).to(torch.float32)
    if not len(inputs) or inputs.shape[1] != 3:
        raise argument_error("images", "photos, or a float tensor [N, 3, H, W]", inputs)
    preprocessing = classifier.preprocessing
    mean, std = (
        inputs.new_tensor(values)[:, None, None]
        for values in (preprocessing.mean, preprocessing.std)
    )
    photos: torch.Tensor = functional.interpolate(
        inputs * std + mean, (size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return torch.clamp(photos, 0, 1)


def _position(neuron: Any, layer: Layer) -> tuple[int, int] | None:
    rows, columns = layer.size
    if neuron is None:
        return None
    if isinstance(neuron, str) and neuron == "center":
        return rows // 2, columns // 2
    expected = f"None, 'center' or (row, column) within {rows} × {columns} positions"
    if not isinstance(neuron, (tuple, list)):
        raise argument_error("neuron", expected, neuron)
    try:
        row, column = (each - 1 for each in check_lengths("neuron", [n + 1 for n in neuron], ""))
    except (TypeError, ValueError):
        raise argument_error("neuron", expected, neuron) from None
    if row >= rows or column >= columns:
        raise argument_error("neuron", expected, neuron)
    return row, column


def _check(
    variants: Any,
    diversity: Any,
    steps: Any,
    learning_rate: Any,
    decay: Any,
    seed: Any,
    batch_size: Any,
) -> int:
    """Checks plain numbers; the number of variants."""
    check_count("steps", steps)
    check_count("seed", seed, least=0)
    if batch_size is not None:
        check_count("batch_size", batch_size, or_none=True)
    if not (_is_number(learning_rate) and learning_rate > 0):
        raise argument_error("learning_rate", "a number greater than 0", learning_rate)
    for name, value in (("diversity", diversity), ("decay", decay)):
        if not (_is_number(value) and value >= 0):
            raise argument_error(name, "a number of at least 0", value)
    return 1 if variants is None else check_count("variants", variants, or_none=True)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
