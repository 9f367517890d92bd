"""Which layers windows can share: those through which everything passes on its way to the logits.

Found by running the network on two windows, once for a size of window, and kept with what else is
known of the network.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeGuard

import torch

from pyxai._errors import REFUSALS, passes_through
from pyxai.classifier import Examined, anatomy
from pyxai.classifier.layout import Layout
from pyxai.classifier.recording import record

LEAST_CELLS = 16
"""The fewest cells a side that a window has at the layer that is chosen.

Measured on trained networks (docs/sliding_window.md): about half the cost of an exhaustive search;
with half as many cells the ranks of windows suffer far more than the cost.
"""


@dataclass
class _Known:
    """What was found out about a network for windows of one size."""

    chosen: str | None = None
    searched: bool = False
    reasons: dict[str, str | None] = field(default_factory=dict)


def why_not_shared(examined: Examined, layer: str) -> str | None:
    """Why windows cannot share the network up to a layer; None if they can.

    The rest of the network, called with an empty batch and given the layer's own output for two
    windows, must reproduce their logits. Where a shortcut goes past the layer, it brings nothing.

    Args:
        examined: the model and two windows `[2, C, h, w]`; call this inside `borrowed`.
        layer: the name of a layer.

    Raises:
        ValueError: there is no such layer.
    """
    known = _known_of(examined)
    if layer not in known.reasons:
        examined.point(layer)
        known.reasons[layer] = _Trial(examined).reason(layer)
    return known.reasons[layer]


def choose_layer(examined: Examined) -> str | None:
    """The layer that windows share by default; None if there is none.

    Of the layers that can be shared and at which a window has at least `LEAST_CELLS` cells a side,
    one with the fewest; of these the outermost, then the first.

    Args:
        examined: the model and two windows `[2, C, h, w]`; call this inside `borrowed`.
    """
    known = _known_of(examined)
    if not known.searched:
        trial = _Trial(examined)
        for layer in sorted(trial.layouts, key=trial.rank):
            if trial.cells(layer) < LEAST_CELLS:
                continue
            if layer not in known.reasons:
                known.reasons[layer] = trial.reason(layer)
            if known.reasons[layer] is None:
                known.chosen = layer
                break
        known.searched = True
    return known.chosen


def shared_layers(examined: Examined) -> dict[str, Layout]:
    """All layers that windows can share, in order of execution, with their cells for a window.

    Args:
        examined: the model and two windows `[2, C, h, w]`; call this inside `borrowed`.
    """
    trial = _Trial(examined)
    return {name: each for name, each in trial.layouts.items() if trial.reason(name) is None}


def _known_of(examined: Examined) -> _Known:
    memo = examined.anatomy.memo
    found: _Known = memo.setdefault(("shared windows", tuple(examined.inputs.shape[1:])), _Known())
    return found


class _Trial:
    """One run of the network on two windows, and layers tried against it."""

    def __init__(self, examined: Examined) -> None:
        probe, self._anatomy = examined.inputs, examined.anatomy
        if self._anatomy.size != tuple(probe.shape[1:]):  # cells are of windows of just this size
            self._anatomy = anatomy.look(examined.classifier, probe)
        self._network = examined.network
        self._probe = probe
        self._logits = examined.logits().to(torch.float32)
        # What gives maps of several positions, in order of execution.
        self.layouts: dict[str, Layout] = {}
        self._levels: dict[str, int] = {}
        for output in self._anatomy.outputs:
            name, layout = output.point.name, output.layout
            if output.mark != "moved" and _is_map(layout):
                self.layouts[name], self._levels[name] = layout, output.level
        self._order = {name: number for number, name in enumerate(self.layouts)}

    def cells(self, layer: str) -> int:
        """The cells of a window along its shorter side."""
        return min(self.layouts[layer].height, self.layouts[layer].width)

    def rank(self, layer: str) -> tuple[int, int, int]:
        """What layers are sorted by, the best to share first."""
        return self.cells(layer), self._levels[layer], self._order[layer]

    def reason(self, layer: str) -> str | None:
        """See `why_not_shared`."""
        if not _is_map(self._anatomy.layouts.get(layer)):
            return "does not give a map [N, C, h, w] with several positions"
        point = self._anatomy.point(self._network, layer)
        raw = record(self._network, self._probe, [point], stop=True).layers[layer]
        try:
            output = record(self._network, self._probe[:0], [point], replace={layer: raw}).output
            logits = self._anatomy.reading.logits(output, len(raw)).to(torch.float32)
        except REFUSALS as error:  # no rows do not fit two rows: said in many ways
            if passes_through(error):
                raise
            said = " ".join(str(error).split())[:120]
            return f"is bypassed, or needs more than its output ({type(error).__name__}: {said})"
        tolerance = 2e-3 if raw.dtype in (torch.float32, torch.float64) else 5e-2
        if logits.shape == self._logits.shape and bool(
            (logits - self._logits).abs().max() <= tolerance * self._logits.abs().max()
        ):
            return None
        return "alone does not determine the logits"


def _is_map(layout: Layout | None) -> TypeGuard[Layout]:
    return layout is not None and layout.positions > 1 and layout.kind != "tokens"
