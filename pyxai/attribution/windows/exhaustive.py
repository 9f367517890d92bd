"""Every window cut out and run through the network: what the other modes are measured against."""

from __future__ import annotations

import torch

from pyxai._errors import argument_error
from pyxai.attribution.windows.grid import Grid
from pyxai.attribution.windows.pixels import Pixels
from pyxai.attribution.windows.refusals import taking_windows
from pyxai.classifier import Classifier
from pyxai.classifier.batches import images_at_once
from pyxai.classifier.borrow import borrowed


class ExhaustiveMode:
    """Logits of windows by mode "exhaustive"."""

    def __init__(self, classifier: Classifier, pixels: Pixels, batch_size: int | None) -> None:
        self._classifier = classifier
        self._pixels = pixels
        self._batch_size = batch_size

    def __call__(self, grid: Grid) -> tuple[torch.Tensor, None]:
        """The logits `[n, K]` float32 of the grid's windows; no layer is looked at."""
        return self.logits(grid.boxes, grid.input_size), None

    def logits(self, boxes: torch.Tensor, input_size: tuple[int, int]) -> torch.Tensor:
        """The logits `[n, K]` float32 of boxes `[n, 4]`, in chunks that share one memory."""
        classifier, pixels = self._classifier, self._pixels
        step = min(len(boxes), windows_at_once(pixels, input_size, self._batch_size))
        collected = Collected(classifier, len(boxes))
        with borrowed(classifier.network):  # before the buffer, which inference mode would keep
            buffer = pixels.buffer(step, input_size)
            with taking_windows(classifier, buffer):
                for start in range(0, len(boxes), step):
                    part = boxes[start : start + step]
                    windows = pixels.cut(part, buffer[: len(part)])
                    collected.add(classifier.logits(windows, ours=True), len(part))
        return collected.logits


def windows_at_once(pixels: Pixels, input_size: tuple[int, int], batch_size: int | None) -> int:
    """How many windows one forward pass takes."""
    return images_at_once(pixels.buffer(0, input_size)) if batch_size is None else batch_size


class Collected:
    """The logits of all windows, put together from chunks in order."""

    def __init__(self, classifier: Classifier, windows: int) -> None:
        self._classifier = classifier
        self._windows = windows
        self._filled = 0
        self._logits: torch.Tensor | None = None

    def add(self, found: torch.Tensor, count: int) -> None:
        """Takes the logits of the next `count` windows.

        Raises:
            ValueError: these are not their logits.
        """
        if len(found) != count:
            raise argument_error("model", f"to return logits [{count}, K]", found)
        if self._logits is None:
            self._classifier.check_logits(found)
            shape = (self._windows, found.shape[1])
            self._logits = torch.empty(shape, dtype=torch.float32, device=found.device)
        self._logits[self._filled : self._filled + count] = found
        self._filled += count

    @property
    def logits(self) -> torch.Tensor:
        """`[n, K]` float32, all of them.

        Raises:
            ValueError: some are not finite.
        """
        assert self._logits is not None  # a grid has at least one window
        return check_finite(self._logits)


def check_finite(logits: torch.Tensor) -> torch.Tensor:
    """The logits `[n, K]`, once they are known to be finite.

    Raises:
        ValueError: naming the windows whose logits are not.
    """
    finite = torch.isfinite(logits).all(dim=1)
    if not bool(finite.all()):
        bad = torch.nonzero(~finite).flatten().tolist()
        listed = f"{bad[:8]}{'...' if len(bad) > 8 else ''}"
        raise ValueError(f"model: expected finite logits, got NaN or infinity for windows {listed}")
    return logits
