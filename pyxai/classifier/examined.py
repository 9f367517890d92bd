"""A classifier with what was found out about it, as it is handed on within one call.

Made once, at the door of a call. What it finds out is kept by the network itself, under what it
depends on (`pyxai.classifier.anatomy`), so that the next call need not find it out again.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pyxai.classifier import anatomy, recording
from pyxai.classifier.anatomy import Anatomy, KnownHead, one_of, wrong_rows
from pyxai.classifier.borrow import borrowed, call
from pyxai.classifier.dependence import last_that_matters, noise_like, reached
from pyxai.classifier.heads import LinearHead, Rest, find_head, read_head, state_of
from pyxai.classifier.layout import Layout
from pyxai.classifier.nested import first_tensor, tensors_in
from pyxai.classifier.points import Point, check_name
from pyxai.classifier.reading import Reading, key_of
from pyxai.classifier.rest import CannotRunRestError, RestOfNetwork, Way, all_ways
from pyxai.classifier.returned import pick_logits
from pyxai.classifier.survey import Output

if TYPE_CHECKING:
    from pyxai.classifier import Classifier

_REACHED = "on the way to the logits"


class Examined:
    """A classifier, some images, and what is known of its network for images of their size.

    The network is examined when something is first asked for, and once: it costs nothing to make
    one of these, and a size that the network refuses is refused where it is used.

    Attributes:
        classifier: the model.
        inputs: its input, `[N, C, H, W]`.
    """

    def __init__(self, classifier: Classifier, inputs: torch.Tensor) -> None:
        """Takes note; nothing runs."""
        self.classifier = classifier
        self.inputs = inputs
        # By how logits are read, which is another matter once names that do not fit are dropped.
        self._known: dict[Hashable, Anatomy] = {}

    def on(self, inputs: torch.Tensor, *, alike: bool = False) -> Examined:
        """The same with other images of the call; what is known goes with it if their size fits.

        Args:
            inputs: the images, `[M, C, H, W]`.
            alike: whether to go by what is known for this size even if they are of another.
        """
        other = Examined(self.classifier, inputs)
        if alike or inputs.shape[1:] == self.inputs.shape[1:]:
            other._known = self._known
        return other

    @property
    def network(self) -> nn.Module:
        """The module with the layers."""
        return self.classifier.network

    @property
    def image(self) -> torch.Tensor:
        """One image, `[1, C, H, W]`: the first; of an empty batch, zeros."""
        return one_of(self.inputs)

    @property
    def anatomy(self) -> Anatomy:
        """What the network is made of, for images of this size."""
        return self._anatomy(partial=False)

    def _anatomy(self, *, partial: bool) -> Anatomy:
        """The same; "partial", perhaps only as far as the network takes images of this size."""
        key = self.classifier.reading.key
        known = self._known.get(key)
        if known is None or not (known.complete or partial):
            known = anatomy.examine(self.classifier, self.inputs, partial=partial)
            self._known[key] = known
        return known

    def renew(self) -> None:
        """Drops what is known, as the network was seen to run otherwise."""
        anatomy.forget(self.network)
        self._known.clear()

    # ---- logits ----

    @property
    def reading(self) -> Reading:
        """How the logits are read in what the model returns; warns where that is a guess."""
        if self.anatomy.guess is not None:
            self.classifier.warn(self.anatomy.guess)
        return self.anatomy.reading

    def logits(self, *, ours: bool = False) -> torch.Tensor:
        """The logits `[N, K]` of the images; see `Classifier.logits`."""
        return self._settled(call(self.classifier.model, self.inputs, ours=ours))

    def read(self, returned: Any) -> torch.Tensor:
        """The logits `[N, K]` in what the model returned for the images.

        The network is examined only where these may be probabilities.

        Raises:
            ValueError: there are none, or more or fewer than class names given.
        """
        classifier, told = self.classifier, self.classifier.reading
        found, _, guess = pick_logits(returned, told.output, told.classes, len(self.inputs))
        guess = guess or told.doubt(found)
        if guess is not None:
            classifier.warn(guess)
        if _between_0_and_1(found):
            return self._settled(returned)
        classifier.last_reading = told
        return classifier.check_logits(told.logits(returned, len(self.inputs)))

    def _settled(self, returned: Any) -> torch.Tensor:
        """The same, read as is known once the network was examined."""
        reading = self.classifier.last_reading = self.reading_for(returned)
        return self.classifier.check_logits(reading.logits(returned, len(self.inputs)))

    def reading_for(self, returned: Any) -> Reading:
        """The reading; found out anew if it does not fit what was returned for the images."""
        if not self.anatomy.reading.fits(returned, len(self.inputs)):  # the model has changed
            self.renew()
        return self.reading

    # ---- layers ----

    def point(self, layer: str) -> Point:
        """Where a layer is, by its name.

        Raises:
            ValueError: there is none; the message has the closest names.
        """
        return self.anatomy.point(self.network, layer)

    def layout(self, layer: str, output: torch.Tensor) -> Layout:
        """How the raw output of a layer for the images holds their positions.

        Raises:
            ValueError: it has no positions, or is not of these images (windows are not).
        """
        return self._anatomy(partial=True).layout(self.inputs, layer, output)

    def record(self, layers: Sequence[str], **options: Any) -> recording.Recording:
        """`pyxai.classifier.recording.record` for layers by name; call it inside `borrowed`.

        Raises:
            ValueError: a layer does not exist, did not run, or gave no tensor.
        """
        for layer in layers:
            check_name(self.network, layer)
        known = self._anatomy(partial=options.get("stop", False))
        points = [known.point(self.network, layer) for layer in layers]
        if not known.complete:  # it takes images of this size no further than to some layer
            points = [replace(each, last=False) for each in points]
        return recording.record(self.network, self.inputs, points, **options)

    def activations(self, layers: str | Sequence[str]) -> dict[str, torch.Tensor]:
        """The outputs of layers for the images; see `Classifier.activations`.

        Raises:
            ValueError: a layer does not exist (with the closest names) or gives no tensor.
        """
        names = [layers] if isinstance(layers, str) else list(dict.fromkeys(layers))
        with borrowed(self.network):
            found = self.record(names, stop=True).layers
        images = len(self.inputs)
        for name, output in found.items():
            rows = output.shape[0] if output.ndim else 0
            if rows % max(images, 1) and images not in output.shape[:2]:
                raise wrong_rows(name, rows, images)
        return found

    def layer(self, target: Any = None) -> str:
        """The name of the last spatial layer; see `Classifier.last_spatial_layer`.

        Raises:
            ValueError: there is none.
        """
        known = self.anatomy
        if callable(target):
            return self._layer_for(target)
        if known.layer is not None:
            return known.layer
        candidates = known.candidates()
        if not candidates:
            raise ValueError(f"layer: {known.why_not}")
        same = tuple(self.inputs.shape[1:]) == known.size and len(self.inputs)
        image = self.inputs[:1] if same else None
        output, certain = last_that_matters(
            self.network, self._probe(), candidates, self._score, image
        )
        if certain:
            before = candidates[: candidates.index(output)]
            output = self._before_class_maps(output, before)
            known.layer = output.point.name
        return output.point.name

    def _layer_for(self, target: Callable[[Any], torch.Tensor]) -> str:
        """The last layer that the scores of a function depend on; it may read any output."""
        memo, key = self.anatomy.memo, key_of(target)
        if key not in memo:
            usual = self.layer()
            found, certain = last_that_matters(
                self.network,
                self._probe(),
                self.anatomy.candidates(),
                lambda returned: target(returned),
            )
            memo[key] = found.point.name if certain else usual
        name: str = memo[key]
        return name

    def reached(self) -> list[Output]:
        """The tensors that the logits depend on, in order; all where that cannot be told."""
        known = self.anatomy
        if _REACHED not in known.memo:
            # Views are left alone: what works on them in place is meant to reach the whole.
            some = [each for each in known.outputs if each.mark != "moved" or each.module]
            noise = noise_like(self._probe())
            found = reached(self.network, noise, some, self._score, forced=True)
            names = {output.point.name for output in found}
            known.memo[_REACHED] = names or {output.point.name for output in known.outputs}
        return [each for each in known.outputs if each.point.name in known.memo[_REACHED]]

    def _probe(self) -> torch.Tensor:
        """An image of the size that the layouts of all outputs are of; only its shape counts."""
        return self.inputs.new_zeros((1, *self.anatomy.size))

    def _score(self, returned: Any) -> torch.Tensor:
        """The logits of one image; of a network that gives none, what it gives."""
        try:
            return self.anatomy.reading.logits(returned, 1)
        except ValueError:
            found = first_tensor(returned)
            if found is not None and found.is_floating_point():
                return found
            some = [each.flatten() for each in tensors_in(returned) if each.is_floating_point()]
            if not some:
                raise
            return torch.cat([each.float() for each in some])

    def _before_class_maps(self, output: Output, before: list[Output]) -> Output:
        """The features that a convolution makes class maps of, where these are only averaged."""
        layout = output.layout
        assert layout is not None
        channels = output.shape[1 if layout.kind == "nchw" else -1]
        if not before or channels != self.anatomy.classes:
            return output
        head = self.linear_head(output.point.name)
        if head is None:
            return output
        identity = torch.eye(channels, dtype=torch.float32, device=head.weight.device)
        if not torch.allclose(head.weight, identity, atol=1e-2):
            return output
        earlier = before[-1]
        return output if self.linear_head(earlier.point.name) is None else earlier

    # ---- heads ----

    def linear_head(self, layer: str) -> LinearHead | None:
        """The head after a layer, if it is the mean over positions and linear layers, else None.

        Judged by numbers (`pyxai.classifier.heads`). The weights are read afresh at each call.
        """
        known = self.anatomy.heads.get(layer)
        if known is None or (known.found is None and known.state != state_of(self.network)):
            known = self._find_head(layer)
        head = None if known.found is None else read_head(self.network, known.found)
        if known.found is not None and head is None:  # it has to be measured anew
            known = self._find_head(layer)
            head = None if known.found is None else read_head(self.network, known.found)
        return head

    def _find_head(self, layer: str) -> KnownHead:
        """Looks for a linear head on noise, bright and dark: not on the images of this call.

        What is found must not depend on which of them came first; whether it holds for an image is
        seen when it is used.
        """
        point, noise, found = self.point(layer), noise_like(self._probe()), None
        with borrowed(self.network):
            ways = all_ways()
            tried = [self._rest(point, one, ways) for one in (noise, noise + 1, noise - 1)]
            rests = [each for each in tried if each is not None and math.isfinite(each.scale)]
            if not rests:  # noise makes no numbers: it takes roots, or logarithms
                some = self._rest(point, self.image, ways)
                rests = [] if some is None else [some]
            if rests:
                loud = self.anatomy.reading.activation is None
                with contextlib.suppress(CannotRunRestError):
                    found = find_head(self.network, rests[0], rests[1:], loud=loud)
        return self.anatomy.keep_head(layer, KnownHead(found, state_of(self.network)))

    def _rest(self, point: Point, image: torch.Tensor, ways: list[Way]) -> Rest | None:
        """What follows a layer, in a pass of one image; None if it gives no features or logits."""
        read = self.anatomy.reading.logits
        try:
            found = recording.record(self.network, image, [point])
            raw = found.layers[point.name]
            layout = self.anatomy.layout(image, point.name, raw)
            logits = read(found.output, 1)
        except ValueError:
            return None
        rest = RestOfNetwork(self.network, point, layout, read, (image, raw, logits), ways)

        def run(features: torch.Tensor) -> torch.Tensor:
            output = rest(layout.restore(features, raw), image)
            return read(output, len(features))

        return Rest(run, layout.features(raw), float(logits.abs().max()))


def _between_0_and_1(logits: torch.Tensor) -> bool:
    values = logits.detach()
    return bool(values.numel()) and bool(((values >= 0) & (values <= 1)).all())
