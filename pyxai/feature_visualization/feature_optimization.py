"""Optimises pictures for units of a network: many at once, each on its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from tqdm import tqdm

from pyxai.classifier import Examined
from pyxai.classifier.batches import images_at_once
from pyxai.classifier.borrow import borrowed
from pyxai.feature_visualization import fourier
from pyxai.feature_visualization.movements import Movements, draw_movements, look, placements
from pyxai.feature_visualization.redirection import RedirectedRelus
from pyxai.feature_visualization.units import Layer

_REDIRECTED_STEPS = 64  # in which shut ReLUs may let gradients through
_CHECK_EVERY = 50  # steps between looks at the responses, which a GPU would have to wait for

See: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Features of other pictures `[m, 3, size, size]`, moved as those that are being optimised."""
Responses: TypeAlias = Callable[[torch.Tensor, torch.Tensor, See], torch.Tensor]
"""(features `[m, C, h, w]`, numbers of the units `[m]`, see) -> responses `[m]`."""


@dataclass(frozen=True)
class Looking:
    """How the network is shown a picture.

    Attributes:
        examined: the model, for images of that side; it is left exactly as it was.
        layer: where its responses are read.
        movements: of the picture before each look.
        side: of the network's input, which what is in view is resampled to.
        layout: of the input in memory.
    """

    examined: Examined
    layer: Layer
    movements: Movements
    side: int
    layout: torch.memory_format

    def features(self, pictures: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """The layer's features `[m, C, h, w]` of pictures `[m, 3, size, size]` in [0, 1]."""
        if self.movements.any or self.side != pictures.shape[-1]:
            pictures = look(pictures, places, self.side)
        return self.layer.features(self.examined.on(self.normalize(pictures)))

    def normalize(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures in [0, 1] as the model's input."""
        classifier = self.examined.classifier
        preprocessing = classifier.preprocessing
        mean, std = (
            pictures.new_tensor(values)[:, None, None]
            for values in (preprocessing.mean, preprocessing.std)
        )
        inputs = ((pictures - mean) / std).to(classifier.dtype)
        return inputs.contiguous(memory_format=self.layout)


@dataclass(frozen=True)
class Optimization:
    """What is optimised, and how.

    Attributes:
        responses: what pictures are to raise.
        keys: one for each unit, from which its random numbers are made.
        variants: pictures of each unit.
        negative: lower the responses instead.
        diversity: what it costs that variants are alike, as a share of the response.
        steps: of Adam.
        learning_rate: of Adam.
        decay: see `pyxai.feature_visualization.fourier.wave_lengths`.
        seed: of all random numbers.
        batch_size: pictures at once; None, as many as suit cache and memory.
    """

    responses: Responses
    keys: tuple[str, ...]
    variants: int
    negative: bool
    diversity: float
    steps: int
    learning_rate: float
    decay: float
    seed: int
    batch_size: int | None


@dataclass
class Optimized:
    """What came out, for n units times their variants.

    Attributes:
        pictures: `[n, 3, size, size]` in [0, 1].
        responses: `[steps, n]`, of each picture as it was moved in that step.
        alive: `[n]` bool, whether the unit ever had a gradient by its picture.
    """

    pictures: torch.Tensor
    responses: torch.Tensor
    alive: torch.Tensor


def optimize(looking: Looking, what: Optimization) -> Optimized:
    """Optimises one picture for each unit and variant.

    Pictures do not see each other, except the variants of a unit. A chunk of them runs at a time,
    so that memory grows with neither units nor steps, but for the pictures and the responses.
    Gradients are taken with respect to the pictures alone, and the pass ends at the layer.

    Raises:
        ValueError: the layer cannot be differentiated, or responses are not finite.
    """
    count = len(what.keys) * what.variants
    size, device = looking.movements.size, looking.examined.classifier.device
    found = Optimized(
        torch.empty(count, 3, size, size, device=device, dtype=torch.float32),
        torch.empty(what.steps, count, device=device, dtype=torch.float32),
        torch.zeros(count, dtype=torch.bool, device=device),
    )
    probe = torch.empty(1, 3, looking.side, looking.side, device=device, dtype=torch.float32)
    at_once = what.batch_size or images_at_once(probe)
    chunk = max(1, at_once // what.variants) * what.variants
    with borrowed(looking.examined.network):
        for start in range(0, count, chunk):
            rows = torch.arange(start, min(start + chunk, count), dtype=torch.int64, device="cpu")
            _Run(looking, what, rows).optimize(found)
    return found


@dataclass
class _Run:
    """One chunk of pictures; `rows` are their places in the result."""

    looking: Looking
    what: Optimization
    rows: torch.Tensor
    units: torch.Tensor = field(init=False)
    waves: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        device = self.looking.examined.classifier.device
        self.units = (self.rows // self.what.variants).to(device)
        size = self.looking.movements.size
        self.waves = fourier.wave_lengths(size, self.what.decay, device)

    def optimize(self, found: Optimized) -> None:
        """Optimises the pictures and writes them down."""
        what, rows = self.what, self.rows.to(self.units.device)
        spectrum, draws = self._start()
        adam = torch.optim.Adam([spectrum], lr=what.learning_rate)
        steps = tqdm(range(what.steps), desc="features", unit="step", disable=None, leave=False)
        for step in steps:
            places = placements(self.looking.movements, draws[:, step])
            responses, gradients = self._gradients(spectrum, places)
            alive = gradients.flatten(1).ne(0).any(dim=1)
            if step < _REDIRECTED_STEPS and not bool(alive.all()):
                with RedirectedRelus():
                    _, redirected = self._gradients(spectrum, places)
                gradients = torch.where(alive[:, None, None, None, None], gradients, redirected)
            found.responses[step, rows] = responses
            found.alive[rows] |= alive
            spectrum.grad = gradients
            with torch.device("cpu"):  # torch 2.11 counts steps on the default device
                adam.step()
            if step % _CHECK_EVERY == 0 or step == what.steps - 1:
                self._check(found.responses[: step + 1, rows])
        found.pictures[rows] = fourier.render(spectrum.detach(), self.waves)

    def _start(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The first amplitudes, and the random numbers of all steps `[m, steps, 6]`."""
        spectra, draws = [], []
        for row in self.rows.tolist():
            unit, variant = divmod(row, self.what.variants)
            key = self.what.keys[unit], variant
            size = self.looking.movements.size
            spectra.append(
                fourier.start_spectrum(size, fourier.stream(self.what.seed, "start", *key))
            )
            moves = fourier.stream(self.what.seed, "movements", *key)
            draws.append(draw_movements(self.what.steps, moves))
        spectrum = torch.stack(spectra).to(self.units.device).requires_grad_()
        return spectrum, torch.stack(draws).to(self.units.device)

    def _gradients(
        self, spectrum: torch.Tensor, places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The responses `[m]`, and the gradients of the losses by the amplitudes."""

        def see(pictures: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return self.looking.features(pictures, places)

        with torch.enable_grad():
            pictures = fourier.render(spectrum, self.waves)
            features = self.looking.features(pictures, places)
            if not features.requires_grad:
                raise ValueError(
                    f"model: expected {self.looking.layer.title} to depend on the images through "
                    "differentiable operations, got none (does the model itself run under no_grad "
                    "or inference_mode, or was it loaded inside inference_mode?)"
                )
            responses = self.what.responses(features, self.units, see)
            losses = responses if self.what.negative else -responses
            if self.what.variants > 1 and self.what.diversity:
                price = self.what.diversity * responses.detach().abs()
                losses = losses + price * likeness(features, self.what.variants)
            (gradients,) = torch.autograd.grad(losses.sum(), spectrum)
        return responses.detach(), gradients

    def _check(self, responses: torch.Tensor) -> None:
        """Refuses responses that are not finite.

        Raises:
            ValueError: naming pictures and step.
        """
        bad = ~torch.isfinite(responses)
        if bool(bad.any()):
            step = int(bad.any(dim=1).nonzero()[0])
            pictures = self.rows[bad[step].cpu()].tolist()
            raise ValueError(
                f"model: expected finite responses of {self.looking.layer.title}, got NaN or "
                f"infinity in step {step}, in pictures {pictures[:8]}"
            )


def likeness(features: torch.Tensor, variants: int) -> torch.Tensor:
    """How alike the variants of a unit are, for each the mean over the others: `[m]`.

    The cosine of the Gram matrices of channels (Gatys et al. 2015), which do not know where in a
    picture something is.

    Args:
        features: `[m, C, h, w]`, the variants of each unit one after the other.
        variants: 2 or more.
    """
    flat = features.float().flatten(2)
    grams = torch.nn.functional.normalize((flat @ flat.mT).flatten(1), dim=1)
    groups = grams.reshape(-1, variants, grams.shape[1])
    cosines = groups @ groups.mT
    others = cosines.sum(dim=2) - cosines.diagonal(dim1=1, dim2=2)
    mean: torch.Tensor = others.flatten() / (variants - 1)
    return mean
