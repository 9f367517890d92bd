"""Watches a network run: which layers have positions, and on which of these the logits depend."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from pyxai.classifier.borrow import borrowed, call, first_tensor, with_first
from pyxai.classifier.layout import Layout, find_layout, find_layout_on
from pyxai.classifier.outputs import logits_of

_POOLING = (
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.AvgPool2d,
    nn.MaxPool2d,
    nn.LPPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveMaxPool1d,
    nn.AvgPool1d,
    nn.MaxPool1d,
)
# These make the grids that tokens lie on, and are channels first whatever their shape looks like.
_GRIDDED = (nn.Conv2d, *_POOLING)
# The layer looked for is one of the last; gradients of early, large layers are seldom needed.
_TAIL = 64


@contextmanager
def watching(
    model: nn.Module, watch: Callable[[str, nn.Module, Any], Any], names: Sequence[str] = ()
) -> Iterator[None]:
    """Shows `watch` the output of these layers, or of all; what it returns replaces the output."""
    owner = threading.get_ident()

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
            return watch(name, module, output) if threading.get_ident() == owner else None

        return hook

    handles = []
    chosen = set(names)
    try:
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule) or not name:
                continue
            if not chosen or name in chosen:
                handles.append(module.register_forward_hook(hook_for(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class Survey:
    """Looks at the output of every layer, in order of execution, for one image."""

    size: tuple[int, int]
    candidates: dict[str, Layout] = field(default_factory=dict)
    layouts: dict[str, Layout | None] = field(default_factory=dict)
    unclear: dict[str, Layout] = field(default_factory=dict)  # maps if nothing speaks against it
    grids: list[tuple[int, int]] = field(default_factory=list)  # the latest first
    shrunk: bool = False
    tokens: bool = False
    plain: str | None = None  # the last layer, read as a network of maps alone
    last: deque[str] = field(default_factory=lambda: deque(maxlen=3))
    # Outputs that identity layers may hand on.
    marked: dict[int, tuple[weakref.ref[torch.Tensor], str]] = field(default_factory=dict)

    def look(self, name: str, module: nn.Module, output: Any) -> None:
        """A forward hook."""
        tensor = first_tensor(output)
        if tensor is None or not tensor.is_floating_point():
            return
        self.last.append(f"{name} {[*tensor.shape]}")
        layout = self.layouts[name] = self._layout(name, module, tensor)
        if isinstance(module, _POOLING):
            self.marked[id(tensor)] = weakref.ref(tensor), "pooled"
        elif isinstance(module, nn.Linear):
            self.marked[id(tensor)] = weakref.ref(tensor), "projected"
        reference, mark = self.marked.get(id(tensor), (None, ""))
        if reference is None or reference() is not tensor:
            mark = ""
        # What is handed out in a dictionary may have been used before: by a pooler, for one.
        if mark == "pooled" or not isinstance(output, (torch.Tensor, tuple, list)):
            return
        if tensor.ndim == 4:
            single = layout is not None and layout.positions == 1
            self.shrunk = single or tensor.shape[-2:].numel() == 1
            self.plain = self.plain if self.shrunk else name
        self.tokens |= tensor.ndim == 3 and tensor.shape[1] > 1
        if layout is None:
            return
        self.tokens |= layout.kind != "nchw"
        if layout.positions > 1 and not (mark == "projected" and layout.kind != "nchw"):
            self.candidates.pop(name, None)  # it comes last now
            self.candidates[name] = layout
            self.shrunk = False

    def _layout(self, name: str, module: nn.Module, tensor: torch.Tensor) -> Layout | None:
        shape, batch_first = tensor.shape, True
        if tensor.ndim == 4:
            rows, columns = shape[2:]
            self.unclear[name] = Layout("nchw", rows, columns)
            if isinstance(module, _GRIDDED) and shape[0] == 1:
                if (rows, columns) not in self.grids and rows * columns > 1:
                    self.grids.insert(0, (rows, columns))
                return self.unclear[name]
        if tensor.ndim == 3 and shape[1] == 1 and shape[0] > 1:  # not windows: one image
            shape, batch_first = torch.Size((1, shape[0], shape[2])), False
        if len(shape) < 3 or shape[0] != 1:
            return None
        # Once there are grids, tokens lie on one of these: latents and channels do not.
        found = find_layout_on(shape, self.grids) if self.grids else find_layout(shape, self.size)
        return None if found is None else replace(found, batch_first=batch_first)


def last_that_matters(
    model: nn.Module, probe: torch.Tensor, candidates: dict[str, Layout]
) -> tuple[str, bool]:
    """The last candidate on more than half of whose positions the logits depend.

    Returns:
        Its name, and whether that will hold: not for a head of zeros, which nothing depends on
        before it is trained. Where nothing can be told, the name is that of the last candidate.
    """
    names, shares = list(candidates), dict[str, float]()
    for start in sorted({max(0, len(names) - _TAIL), 0}, reverse=True):
        shares = _shares_that_matter(model, probe, {n: candidates[n] for n in names[start:]})
        for name in reversed(names[start:]):
            if shares.get(name, 0.0) > 0.5:
                return name, True
        if not shares:
            break
    return names[-1], not shares or any(shares.values())


def _shares_that_matter(
    model: nn.Module, probe: torch.Tensor, candidates: dict[str, Layout]
) -> dict[str, float]:
    """The share of positions with a gradient, of each candidate; empty if there are no gradients.

    A layer counts as `record` would replace it: from its hook on. What was made from the same
    tensor before, does not.
    """
    shares: dict[str, float] = {}
    starts: list[torch.Tensor] = []
    run: dict[str, int] = {}

    def pass_on(name: str, module: nn.Module, output: Any) -> Any:
        tensor = first_tensor(output)
        if tensor is None or not tensor.is_floating_point():
            return None  # a layer that runs again and then gives something else
        torch.set_grad_enabled(True)  # until the pass ends, as `record` does
        if not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_()
        starts.append(tensor)
        passed: Any = tensor.clone()
        turn = run[name] = run.get(name, 0) + 1  # a layer that runs again counts as it ran last

        def count(gradient: torch.Tensor) -> None:
            if run[name] == turn:
                there = candidates[name].features(gradient).ne(0).any(dim=1)
                shares[name] = float(there.to(torch.float32).mean())

        passed.register_hook(count)
        return with_first(output, passed)

    # Noise and not the user's photo, so that a black one does not decide for all that follow.
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(probe.shape, generator=generator).to(probe)
    try:
        with borrowed(model), watching(model, pass_on, list(candidates)):
            output = call(model, noise)
            try:
                score = logits_of(output)
            except ValueError:  # embeddings, for a target that is a function
                found = first_tensor(output)
                if found is None:
                    return {}
                score = found
            weights = torch.randn(score.shape, generator=generator).to(score)
            with torch.enable_grad():
                total = (weights * score).mean()
            torch.autograd.grad(total, starts, allow_unused=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # the model forbids gradients, or has operations without
        return {}
    return shares
