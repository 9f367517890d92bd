"""Runs a borrowed network and keeps what it gives at some points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from pyxai.classifier.borrow import call
from pyxai.classifier.forcing import WithGradients, is_about_inference
from pyxai.classifier.nested import tensors_in
from pyxai.classifier.points import Point, at_points


class ChangedError(ValueError):
    """A network ran otherwise than it was seen to: look again."""


class _Stopped(BaseException):
    """Ends a forward pass after the last point asked for; models cannot catch it by accident."""


@dataclass
class Recording:
    """What a forward pass gave.

    Attributes:
        output: what the model returned, None if it was stopped early.
        layers: the tensor at each point, by its name. With `differentiate`, `torch.autograd.grad`
            of the output with respect to these works; otherwise they carry no graph.
    """

    output: Any
    layers: dict[str, torch.Tensor]


def record(
    network: nn.Module,
    images: torch.Tensor,
    points: Sequence[Point],
    *,
    differentiate: bool = False,
    stop: bool = False,
    replace: Mapping[str, torch.Tensor] | None = None,
    absent: bool = False,
) -> Recording:
    """Runs the network and keeps what it gives at some points; call it inside `borrowed`.

    A model of `pyxai.accelerate(graphs=True)` replays a recorded pass, unless gradients or
    replaced layers are asked for.

    Args:
        network: an unwrapped model.
        images: its input; it stays as it is.
        points: where to look. Of a layer that runs several times its last run counts, unless the
            point says which.
        differentiate: build the graph from the first of these points on, and nowhere before it.
        stop: end the pass once each point was reached, unless these are last runs of several.
        replace: points, by name, whose tensor is another one from there on.
        absent: layers that do not run are left out instead of an error.

    Raises:
        ValueError: a layer does not exist, did not run, or gave no tensor.
    """
    replays = network.__dict__.get("_replays")
    if replays is None or differentiate or replace:
        output, found = _run(network, images, points, differentiate, stop, replace)
    else:

        def run(images: torch.Tensor) -> tuple[Any, dict[str, torch.Tensor]]:
            return _run(network, images, points, differentiate, stop, replace)

        output, found = replays(network, ("record", *points, stop), run, images)
    for point in points:
        if point.name not in found and not absent:
            raise ChangedError(
                "layer: expected a layer that runs when the model is called, got "
                f"'{point.name} (it did not run)'; name one that runs for all of the images"
            )
    return Recording(output, found)


def _run(
    network: nn.Module,
    images: torch.Tensor,
    points: Sequence[Point],
    differentiate: bool,
    stop: bool,
    replaced: Mapping[str, torch.Tensor] | None,
) -> tuple[Any, dict[str, torch.Tensor]]:
    """One pass; another one where layers ran more or less often than they were seen to."""
    stop = stop and all(point.run <= 1 or not point.last for point in points)
    for _ in range(3):
        try:
            one = _Pass(network, points, differentiate, stop, replaced or {})
            output, found, runs = one.run(images)
        except RuntimeError as error:
            if not differentiate or not is_about_inference(error):
                raise
            return _run_with_gradients(network, images, points)
        changed = {
            point: runs[point.module]
            for point in points
            if point.last and not stop and runs[point.module] not in (0, point.run)
        }
        if not changed or not (replaced or any(each.name not in found for each in points)):
            break
        points = [replace(each, run=changed.get(each, each.run)) for each in points]
    if differentiate and found and not any(each.requires_grad for each in tensors_in(output)):
        return _run_with_gradients(network, images, points)  # it runs under no_grad
    return output, found


def _run_with_gradients(
    network: nn.Module, images: torch.Tensor, points: Sequence[Point]
) -> tuple[Any, dict[str, torch.Tensor]]:
    with WithGradients() as mode:
        output, found, _ = _Pass(network, points, True, False, {}, mode).run(images)
    return output, found


class _Pass:
    """One forward pass that is looked at."""

    def __init__(
        self,
        network: nn.Module,
        points: Sequence[Point],
        differentiate: bool,
        stop: bool,
        replaced: Mapping[str, torch.Tensor],
        mode: WithGradients | None = None,
    ) -> None:
        self._network = network
        self._points = points
        self._differentiate = differentiate
        self._stop = stop
        self._replaced = replaced
        self._mode = mode
        self._found: dict[str, torch.Tensor] = {}

    def run(self, images: torch.Tensor) -> tuple[Any, dict[str, torch.Tensor], Mapping[str, int]]:
        """What the model returned (None if stopped), the tensors, and how often modules ran."""
        grad_enabled = torch.is_grad_enabled()
        runs: Mapping[str, int] = {}
        output = None
        try:
            with at_points(self._network, self._points, self._keep) as runs:
                output = call(self._network, images)
        except _Stopped:
            pass
        finally:
            torch.set_grad_enabled(grad_enabled)
        return output, self._found, runs

    def _keep(self, point: Point, tensor: torch.Tensor) -> torch.Tensor:
        name = point.name
        if name in self._replaced:
            self._found[name] = self._replaced[name].to(tensor)
            return self._found[name].clone()
        if self._differentiate and tensor.is_floating_point():
            if self._mode is not None:
                self._mode.armed = True
            torch.set_grad_enabled(True)  # until the pass ends
            if not tensor.requires_grad:
                with torch.inference_mode(False):
                    kept = tensor.detach()
                    tensor = (kept.clone() if kept.is_inference() else kept).requires_grad_()
        self._found[name] = tensor
        if self._stop and len(self._found) == len(self._points):
            raise _Stopped
        # The model goes on with a copy: a later in-place operation must not reach what was kept.
        return tensor.clone()
