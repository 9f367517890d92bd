"""The first stages run once on the whole photo, the rest on the part of them under each window."""

from __future__ import annotations

import torch

from pyxai._errors import argument_error
from pyxai.attribution.windows.exhaustive import Collected, windows_at_once
from pyxai.attribution.windows.grid import Grid
from pyxai.attribution.windows.pixels import Pixels
from pyxai.attribution.windows.refusals import taking_whole_photo, taking_windows
from pyxai.attribution.windows.sharing import LEAST_CELLS, choose_layer, why_not_shared
from pyxai.classifier import Examined
from pyxai.classifier.borrow import borrowed
from pyxai.classifier.layout import Layout
from pyxai.classifier.rest import RestOfNetwork
from pyxai.ops import crop_windows


class SharedMode:
    """Logits of windows by mode "shared"."""

    def __init__(
        self, windows: Examined, pixels: Pixels, layer: str | None, batch_size: int | None
    ) -> None:
        self._windows = windows
        self._pixels = pixels
        self._layer = layer
        self._batch_size = batch_size

    def __call__(self, grid: Grid) -> tuple[torch.Tensor, str]:
        """The logits `[n, K]` float32 of the grid's windows, and the layer that was cut.

        Raises:
            ValueError: the layer cannot be shared, none can, or the network does not take the
                whole photo.
        """
        boxes = grid.boxes
        with borrowed(self._windows.network):
            probe = self._pixels.cut(boxes[[0, -1]], self._pixels.buffer(2, grid.input_size))
            examined = self._windows.on(probe)
            with taking_windows(examined.classifier, probe):
                layer = self._layer_for(examined)
                one = Stage(examined.on(probe[:1]), layer, stop=False)
            whole = self._pixels.whole(grid.whole_size)
            with taking_whole_photo(examined.classifier, whole, "shared"):
                all_of_it = Stage(examined.on(whole, alike=True), layer)
            cells = cell_boxes(grid, one.layout, all_of_it.layout)
            return self._run_rest(one, all_of_it, cells), layer

    def _layer_for(self, examined: Examined) -> str:
        """The layer to cut, asked for or chosen.

        Raises:
            ValueError: it cannot be shared, or there is none.
        """
        if self._layer is not None:
            reason = why_not_shared(examined, self._layer)
            if reason is None:
                return self._layer
            expected = f"a layer through which everything passes ({self._layer!r} {reason})"
            raise argument_error("shared_layer", expected, self._layer)
        chosen = choose_layer(examined)
        if chosen is None:
            expected = (
                f"'exhaustive' (or a shared_layer) for {examined.classifier.name}: of the layers "
                "through which everything passes, none gives a map with at least "
                f"{LEAST_CELLS} × {LEAST_CELLS} cells for a window {[*examined.inputs.shape[1:]]}"
            )
            raise argument_error("mode", expected, "shared")
        return chosen

    def _run_rest(self, one: Stage, whole: Stage, cells: torch.Tensor) -> torch.Tensor:
        """Logits of what follows the layer, for pieces `[n, 4]` of the whole photo's features."""
        examined, features = one.examined, whole.layout.features(whole.raw)[0]
        window = examined.inputs
        step = windows_at_once(self._pixels, (window.shape[2], window.shape[3]), self._batch_size)
        size = (one.layout.height, one.layout.width)
        buffer = torch.empty(
            (min(step, len(cells)), len(features), *size),
            dtype=features.dtype,
            device=features.device,
            memory_format=_format_of(features),
        )
        read = examined.reading_for(one.returned).logits
        known = (window, one.raw, read(one.returned, 1))
        rest = RestOfNetwork(examined.network, one.point, one.layout, read, known)
        collected = Collected(examined.classifier, len(cells))
        for start in range(0, len(cells), step):
            part = cells[start : start + step].to(features.device)
            pieces = crop_windows(features, part, size, out=buffer[: len(part)])
            output = rest(one.layout.restore(pieces, one.raw), window)
            collected.add(read(output, len(part)), len(part))
        return collected.logits


class Stage:
    """What a layer gives for some input.

    Attributes:
        examined: the model and the input: one window, or the whole photo.
        point: where the layer is in the pass.
        raw: its output.
        layout: where the positions are in it.
        returned: what the network returned; None if it was stopped at the layer.
    """

    def __init__(self, examined: Examined, layer: str, *, stop: bool = True) -> None:
        """Runs the network as far as the layer, or, without `stop`, to its end; in `borrowed`."""
        recording = examined.record([layer], stop=stop)
        self.examined, self.point = examined, examined.point(layer)
        self.raw, self.returned = recording.layers[layer], recording.output
        self.layout: Layout = examined.layout(layer, self.raw)


def cell_boxes(grid: Grid, window: Layout, whole: Layout) -> torch.Tensor:
    """The cells of a layer under each window, `[n, 4]` int64: x0, y0, x1, y1, row by row.

    Each window gets as many cells as it would alone, from the nearest whole cell on.
    """
    cells, own = (whole.height, whole.width), (window.height, window.width)
    tops, lefts = (
        _cell_starts(
            [first * grid.whole_size[axis] / grid.size[axis] for first in starts],
            grid.whole_size[axis] - grid.input_size[axis],
            cells[axis] - own[axis],
        )
        for axis, starts in enumerate((grid.tops, grid.lefts))
    )
    return Grid(cells, own, tops, lefts, own).boxes


def _cell_starts(starts: list[float], span: int, steps: int) -> tuple[int, ...]:
    """The first cell of each window along one axis.

    Args:
        starts: where each window begins, in pixels as the network gets them.
        span: of these, by how much the photo is longer than a window.
        steps: by how many cells the photo has more than a window.
    """
    if span <= 0 or steps <= 0:
        return (0,) * len(starts)
    # Rounding at the border hides the true stride; it is nearly always a power of two.
    stride = min((2.0**power for power in range(8)), key=lambda each: abs(steps - span / each))
    if abs(steps - span / stride) >= 1:
        stride = span / steps
    return tuple(min(int(first / stride + 0.5), steps) for first in starts)


def _format_of(features: torch.Tensor) -> torch.memory_format:
    last = features.stride(0) == 1 and len(features) > 1
    return torch.channels_last if last else torch.contiguous_format
