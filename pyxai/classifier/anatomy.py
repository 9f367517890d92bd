"""What a network is made of, found by running it on one image: its layers, and where logits are.

Found once for a classifier and images of some sizes, and kept as long as the network lives, without
keeping it alive. What is kept is dropped as soon as a module was exchanged. Calls ask for it, and
for the last spatial layer and the head, by `pyxai.classifier.examined`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pyxai._errors import REFUSALS, argument_error, passes_through
from pyxai.classifier import side_effects
from pyxai.classifier.borrow import borrowed, call
from pyxai.classifier.heads import FoundHead
from pyxai.classifier.layout import Layout, find_layout, layout_at_size
from pyxai.classifier.odd_models import check_numbers, quantized_hint
from pyxai.classifier.points import Point, find_layer
from pyxai.classifier.reading import Reading
from pyxai.classifier.settling import settled
from pyxai.classifier.survey import Output, Survey

if TYPE_CHECKING:
    from pyxai.classifier import Classifier

_MOST_ENTRIES = 16  # kinds of sizes that one network runs differently for


@dataclass(frozen=True)
class KnownHead:
    """What was found after a layer; that nothing was, holds for one state of the weights."""

    found: FoundHead | None
    state: tuple[tuple[int, int], ...]


@dataclass
class Anatomy:
    """What one image has shown of a network.

    Attributes:
        size: (C, H, W) of the image.
        points: all that can be looked at, by name: layers, runs of layers, calls of functions.
        outputs: the tensors that arose, in order of execution.
        tokens: whether there are tokens or maps with the channels last.
        reading: where the logits are in what it returns.
        classes: how many there are; None if it returns no logits.
        guess: a warning where it was guessed which output has the logits.
        layouts: where positions are in the output of each layer, for the image looked at.
        complete: whether the pass came to its end.
        why_not: what is said where no layer has positions.
        layer: the last spatial layer; None as long as nobody asked.
        heads: what was found after some layers.
        memo: what others found out about the network, for as long as this holds.
    """

    size: tuple[int, ...]
    points: dict[str, Point]
    outputs: list[Output]
    tokens: bool
    reading: Reading
    classes: int | None
    guess: str | None
    layouts: dict[str, Layout | None]
    complete: bool
    _modules: tuple[weakref.ref[nn.Module], ...]
    why_not: str
    # Images between these sizes were seen to run in the same way.
    _least: tuple[int, int]
    _most: tuple[int, int]
    layer: str | None = None
    memo: dict[Any, Any] = field(default_factory=dict)
    heads: dict[str, KnownHead] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def candidates(self) -> list[Output]:
        """Features of several positions, in order of execution.

        Pooling layers do not count: the layer before them sees more. In networks of tokens, neither
        do linear layers (queries, keys and values are not the tokens).
        """
        found = []
        for output in self.outputs:
            layout = output.layout
            if layout is None or layout.positions <= 1 or not (self.tokens or output.image):
                continue
            projected = output.mark == "projected" and self.tokens and layout.kind != "nchw"
            if output.mark in ("pooled", "moved", "product") or projected:
                continue
            found.append(output)
        return found

    def point(self, network: nn.Module, name: str) -> Point:
        """Where a layer is, by its name.

        Raises:
            ValueError: there is none; the message has the closest names.
        """
        if name in self.points:
            return self.points[name]
        extra = [known for known, point in self.points.items() if known != point.module]
        module = find_layer(network, name, extra)
        # A module that goes by several names, or one that did not run.
        own = next((known for known, each in network.named_modules() if each is module), name)
        return replace(self.points.get(own, Point(name, name)), name=name)

    def forget_heads(self, layers: Sequence[str]) -> None:
        """What follows these layers is looked at anew; weights may change without a trace."""
        with self._lock:
            for layer in layers:
                self.heads.pop(layer, None)

    def keep_head(self, layer: str, known: KnownHead) -> KnownHead:
        """Keeps what was found after a layer."""
        with self._lock:
            self.heads[layer] = known
        return known

    def layout(self, images: torch.Tensor, layer: str, output: torch.Tensor) -> Layout:
        """How the raw output of a layer for these images holds their positions.

        Raises:
            ValueError: it has no positions, or is not of these images (windows are not).
        """
        size = (images.shape[-2], images.shape[-1])
        known = self.layouts.get(layer)
        layout = None
        if output.is_floating_point():
            if known is not None:
                layout = layout_at_size(known, self.size[-2:], output.shape, size)
            elif layer not in self.layouts:  # it did not run when the model was examined
                layout = find_layout(output.shape, size)
        rows = output.shape[0] if output.ndim else 0
        if layout is not None and not layout.batch_first:
            rows = output.shape[1]
        some = rows % max(len(images), 1) and len(images) not in output.shape[:2]
        if rows != len(images) and (layout is not None or some):
            raise wrong_rows(layer, rows, len(images))
        if layout is None or rows != len(images):
            expected = "a layer whose output is [N, C, h, w], [N, h, w, C] or tokens [N, T, C]"
            runs = [name for name in self.points if name.startswith(f"{layer}#")]
            if runs:
                expected += f" (this is its last run; the others are {', '.join(runs)})"
            raise argument_error("layer", expected, output)
        return layout

    def is_of(self, network: nn.Module) -> bool:
        """Whether the network still has the modules that it had."""
        modules = list(_modules_of(network))
        return len(modules) == len(self._modules) and all(
            reference() is module for reference, module in zip(self._modules, modules, strict=True)
        )

    def serves(self, size: tuple[int, ...]) -> bool:
        """Whether images of this size (C, H, W) run as the one that was examined."""
        inside = zip(self._least, size[1:], self._most, strict=True)
        return size[0] == self.size[0] and all(a <= each <= b for a, each, b in inside)

    def take_in(self, other: Anatomy) -> bool:
        """Takes in what was found out about another size, if the network ran in the same way."""
        whole = self.complete and other.complete
        if not whole or self.size[0] != other.size[0] or self._run() != other._run():
            return False
        self._least = _each(min, self._least, other._least)
        self._most = _each(max, self._most, other._most)
        return True

    def _run(self) -> list[tuple[str, str, bool]]:
        """How the network ran, as far as what was found out about it rests on that."""
        return [
            (each.point.name, each.mark, each.layout is not None and each.layout.positions > 1)
            for each in self.outputs
        ]


_known: weakref.WeakKeyDictionary[nn.Module, dict[Any, list[Anatomy]]] = weakref.WeakKeyDictionary()
_known_lock = threading.Lock()


def examine(classifier: Classifier, images: torch.Tensor, *, partial: bool = False) -> Anatomy:
    """What the network of a classifier is made of, for images of this size.

    Found out by one or two passes of one image; known afterwards, also for sizes in between, as
    long as no module is exchanged.

    Args:
        classifier: the model.
        images: its input, `[N, C, H, W]`.
        partial: whether it will do to know the network as far as it takes images of this size.
    """
    network, key = classifier.network, classifier.reading.key
    size = tuple(images.shape[1:])
    with _known_lock:
        entries = _known.get(network, {}).get(key, [])
        serving = (each for each in reversed(entries) if each.serves(size))
        found = next((each for each in serving if each.complete or partial), None)
    if found is not None and found.is_of(network):
        return found
    fresh = look(classifier, images, partial=partial)
    with _known_lock:
        by_key = _known.setdefault(network, {})
        entries = [each for each in by_key.get(key, []) if each.is_of(network)]
        by_key[key] = entries[-_MOST_ENTRIES:]
        for each in reversed(by_key[key]):
            if each.take_in(fresh):
                return each
        by_key[key].append(fresh)
    return fresh


def forget(network: nn.Module) -> None:
    """Drops what is known of a network."""
    with _known_lock:
        _known.pop(network, None)


def look(classifier: Classifier, images: torch.Tensor, *, partial: bool = False) -> Anatomy:
    """Runs one image through the network and looks at all that it gives; see `examine`."""
    network, probe = classifier.network, one_of(images)
    check_numbers(network, probe)
    survey = Survey(network, (probe.shape[-2], probe.shape[-1]))
    reading = classifier.reading
    complete, classes, guess = True, None, None
    given = probe.clone()  # it may work in place
    side_effects.forget(network)
    with borrowed(network):
        try:
            with survey.watch():
                returned = call(network, given, ours=True)
            reading, classes, guess = reading.found_in(returned, len(probe), survey.made_by)
            numbers = reading.numbers(returned, len(probe))
            made_by = "" if numbers is None else survey.made_by(numbers)
            reading, guess = settled(classifier.network, reading, returned, guess, probe, made_by)
        except REFUSALS as error:
            if not partial or passes_through(error) or not survey.outputs:
                raise
            complete = False
    size = tuple(probe.shape[1:])
    hint = " (TorchScript hides its layers)" if isinstance(network, torch.jit.ScriptModule) else ""
    why_not = (
        "expected a network with a layer whose output is [N, C, h, w], [N, h, w, C] or tokens "
        f"[N, T, C] with more than one position for an input {[*probe.shape]}, found none; its "
        f"last layers give: {', '.join(survey.last) or 'nothing that can be observed'}{hint}"
        f"{quantized_hint(network)}"
    )
    points = {}
    for name, runs in survey.runs.items():
        points[name] = Point(name, name, runs)
        if runs > 1:
            several = (Point(f"{name}#{run}", name, run, run == runs) for run in range(1, runs + 1))
            points.update((each.name, each) for each in several)
    points.update((each.point.name, each.point) for each in survey.outputs)
    layouts = dict(survey.layouts)
    layouts.update((each.point.name, each.layout) for each in survey.outputs)
    return Anatomy(
        size=size,
        points=points,
        outputs=survey.outputs,
        tokens=survey.tokens,
        reading=reading,
        classes=classes,
        guess=guess,
        layouts=layouts,
        complete=complete,
        _modules=tuple(map(weakref.ref, _modules_of(network))),
        why_not=why_not,
        _least=(size[1], size[2]),
        _most=(size[1], size[2]),
    )


def wrong_rows(layer: str, rows: int, images: int) -> ValueError:
    """The error for a layer that did not run on each image once."""
    return ValueError(
        f"layer: expected one that runs on all images of a batch, got {layer!r}, which ran on "
        f"{rows} for {images} (the network takes images one by one, chooses some, or makes more of "
        "them); pass single images, or batch_size=1 where that is offered"
    )


def _modules_of(network: nn.Module) -> Iterator[nn.Module]:
    """All modules, some several times; five times as fast as `network.modules()`."""
    if isinstance(network, torch.jit.ScriptModule):
        yield network  # what it is made of cannot be exchanged
        return
    left = [network]
    while left:
        module = left.pop()
        yield module
        if not isinstance(module, torch.jit.ScriptModule):
            left.extend(child for child in module._modules.values() if child is not None)


def one_of(images: torch.Tensor) -> torch.Tensor:
    """One image; an empty batch has none, and any will do."""
    return images[:1] if len(images) else images.new_zeros((1, *images.shape[1:]))


def _each(choose: Any, one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return choose(one[0], other[0]), choose(one[1], other[1])
