"""Which layers windows can share: those through which everything passes on its way to the logits.

Found by running the network on two windows, once for a size of window, and kept as long as the
network lives, without keeping it alive.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from pyxai.classifier import anatomy
from pyxai.classifier.borrow import call, find_layer, first_tensor, record
from pyxai.classifier.layout import Layout
from pyxai.classifier.outputs import logits_of
from pyxai.classifier.survey import watching

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


_lock = threading.Lock()
_known: weakref.WeakKeyDictionary[nn.Module, dict[torch.Size, _Known]] = weakref.WeakKeyDictionary()


def why_not_shared(network: nn.Module, probe: torch.Tensor, layer: str) -> str | None:
    """Why windows cannot share the network up to a layer; None if they can.

    The rest of the network, called with an empty batch and given the layer's own output for two
    windows, must reproduce their logits. Where a shortcut goes past the layer, it brings nothing.

    Args:
        network: the network; call this inside `borrowed`.
        probe: two windows `[2, C, h, w]`.
        layer: the name of a layer.

    Raises:
        ValueError: there is no such layer.
    """
    known = _known_of(network, probe)
    if layer not in known.reasons:
        find_layer(network, layer)
        known.reasons[layer] = _Trial(network, probe).reason(layer)
    return known.reasons[layer]


def choose_layer(network: nn.Module, probe: torch.Tensor) -> str | None:
    """The layer that windows share by default; None if there is none.

    Of the layers that can be shared and at which a window has at least `LEAST_CELLS` cells a side,
    one with the fewest; of these the outermost, then the first.

    Args:
        network: the network; call this inside `borrowed`.
        probe: two windows `[2, C, h, w]`.
    """
    known = _known_of(network, probe)
    if not known.searched:
        trial = _Trial(network, probe)
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


def shared_layers(network: nn.Module, probe: torch.Tensor) -> dict[str, Layout]:
    """All layers that windows can share, in order of execution, with their cells for a window.

    Args:
        network: the network; call this inside `borrowed`.
        probe: two windows `[2, C, h, w]`.
    """
    trial = _Trial(network, probe)
    return {name: each for name, each in trial.layouts.items() if trial.reason(name) is None}


def _known_of(network: nn.Module, probe: torch.Tensor) -> _Known:
    with _lock:
        return _known.setdefault(network, {}).setdefault(probe.shape[1:], _Known())


class _Trial:
    """One run of the network on two windows, and layers tried against it."""

    def __init__(self, network: nn.Module, probe: torch.Tensor) -> None:
        self._network = network
        self._probe = probe
        shapes: dict[str, torch.Tensor] = {}
        runs: Counter[str] = Counter()

        def look(name: str, module: nn.Module, output: Any) -> None:
            runs[name] += 1
            tensor = first_tensor(output)
            if tensor is not None and tensor.ndim == 4:
                shapes[name] = torch.empty_like(tensor, device="meta")

        with watching(network, look):
            self._logits = logits_of(call(network, probe)).to(torch.float32)
        # Layers that give maps of several positions and run once, in order of execution.
        self.layouts: dict[str, Layout] = {}
        for name, shape in shapes.items():
            with contextlib.suppress(ValueError):
                layout = anatomy.layout_of(network, probe, name, shape)
                if layout.positions > 1 and layout.kind != "tokens" and runs[name] == 1:
                    self.layouts[name] = layout
        self._order = {name: number for number, name in enumerate(self.layouts)}

    def cells(self, layer: str) -> int:
        """The cells of a window along its shorter side."""
        return min(self.layouts[layer].height, self.layouts[layer].width)

    def rank(self, layer: str) -> tuple[int, int, int]:
        """What layers are sorted by, the best to share first."""
        return self.cells(layer), layer.count("."), self._order[layer]

    def reason(self, layer: str) -> str | None:
        """See `why_not_shared`."""
        if layer not in self.layouts:
            return "does not run once and give a map [N, C, h, w] with several positions"
        raw = record(self._network, self._probe, [layer], stop=True).layers[layer]
        try:
            output = record(self._network, self._probe[:0], [layer], replace={layer: raw}).output
            logits = logits_of(output).to(torch.float32)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # no rows do not fit two rows: said in many ways
            said = " ".join(str(error).split())[:120]
            return f"is bypassed, or needs more than its output ({type(error).__name__}: {said})"
        tolerance = 2e-3 if raw.dtype in (torch.float32, torch.float64) else 5e-2
        if logits.shape == self._logits.shape and bool(
            (logits - self._logits).abs().max() <= tolerance * self._logits.abs().max()
        ):
            return None
        return "alone does not determine the logits"
