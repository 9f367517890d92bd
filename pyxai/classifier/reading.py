"""How to read logits out of what a model returns, and what they mean."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

import torch

from pyxai.classifier.returned import (
    Activation,
    Output,
    before_activation,
    is_embedding,
    is_probabilities,
    lie_between,
    pick_logits,
)

_EMBEDDING = (
    "the model returns rows of length 1, an embedding, whose numbers are taken for logits of "
    "classes. Pass target as a function outputs -> scores [N], or a module that compares the "
    "embedding with those of classes (docs/your_model.md); class_names say that they are logits"
)
BETWEEN = (
    "all that the model returns lies between 0 and 1, and is taken for logits. If these are "
    "probabilities, say how to get logits of them: Classifier(model, output=torch.logit)"
)


class OutputWarning(UserWarning):
    """Which of several outputs of a model are its logits was guessed."""


@dataclass(frozen=True)
class Reading:
    """How to read logits out of what a model returns.

    Attributes:
        output: where they are; None, to be found. A tuple is a way through nested outputs.
        classes: how many there are, where class names tell.
        activation: what the model ends in, which is taken back: its outputs are probabilities.
        labels: whether these are of labels that do not exclude each other.
        by_chance: whether logits were seen that lie between 0 and 1.
    """

    output: Output | tuple[str, ...] = None
    classes: int | None = None
    activation: Activation | None = None
    labels: bool = False
    by_chance: bool = False

    @property
    def key(self) -> Hashable:
        """Tells readings apart, without keeping a function alive."""
        return key_of(self.output), self.classes

    def logits(self, returned: Any, images: int | None) -> torch.Tensor:
        """The logits `[N, K]` in what the model returned for N images, with their graph.

        Two names for one logit z are two classes: (-z / 2, z / 2), whose softmax is the sigmoid.

        Raises:
            ValueError: there are none.
        """
        found, _, _ = pick_logits(returned, self.output, self.classes, images)
        if self.activation is not None:
            found = before_activation(found, self.activation)
        if self.classes == 2 and found.shape[1] == 1:
            found = torch.cat([-0.5 * found, 0.5 * found], dim=1)
        return found

    def found_in(
        self, returned: Any, images: int, made_by: Callable[[torch.Tensor], str]
    ) -> tuple[Reading, int | None, str | None]:
        """This reading once it is known what the model ends in.

        Args:
            returned: what the model returned.
            images: for how many images.
            made_by: tells the function that made a tensor.

        Returns:
            The reading, the number of classes and a warning; None where there are none.
        """
        try:
            found, where, guess = pick_logits(returned, self.output, self.classes, images)
        except ValueError:
            return self, None, None
        guess = guess or self.doubt(found)
        activation: Activation | None = None
        if not callable(self.output):
            function = made_by(found)
            if function != "sigmoid" and is_probabilities(found):
                activation = "softmax"
            elif function in ("sigmoid", "softmax"):  # of a softmax, some of the classes
                activation = "sigmoid"
        classes = 2 if self.classes == 2 and found.shape[1] == 1 else found.shape[1]
        labels = activation == "sigmoid" and found.shape[1] > 1
        known = replace(self, output=where, activation=activation, labels=labels)
        return known, classes, guess

    def fits(self, returned: Any, images: int) -> bool:
        """Whether what the model returned may be read so; it may have changed since it was seen."""
        values = self.numbers(returned, images)
        if values is None:  # what was told is not to be found anew
            return not isinstance(self.output, tuple)
        values = values.detach()
        if self.activation is None:
            return self.by_chance or not lie_between(values)
        if not len(values) or not bool(torch.isfinite(values).all()):
            return True  # tells nothing
        if self.activation == "sigmoid":
            return bool(((values >= 0) & (values <= 1)).all())
        return is_probabilities(values)

    def lies_between(self, returned: Any, images: int) -> bool:
        """Whether what is read lies in [0, 1], before a sigmoid or softmax is taken back."""
        values = self.numbers(returned, images)
        return values is not None and lie_between(values.detach())

    def numbers(self, returned: Any, images: int) -> torch.Tensor | None:
        """What is read, before anything is taken back; None if there is nothing, or for functions.

        A function says how to read it, so there is nothing to find out.
        """
        if callable(self.output):
            return None
        try:
            return pick_logits(returned, self.output, self.classes, images)[0]
        except ValueError:
            return None

    def doubt(self, logits: torch.Tensor) -> str | None:
        """A warning if the numbers `[N, K]` that a model returned are hardly logits, else None."""
        told = self.output is not None or self.classes is not None
        return None if told or not is_embedding(logits) else _EMBEDDING

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities `[N, K]` of logits `[N, K]`: softmax, or the sigmoid of each.

        The latter for a single logit, and where the model itself ends in a sigmoid.
        """
        return logits.sigmoid() if self.by_sigmoid(logits) else logits.softmax(dim=1)

    def log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Their logarithms, which tell apart probabilities that round to 1."""
        if self.by_sigmoid(logits):
            return torch.nn.functional.logsigmoid(logits)
        return logits.log_softmax(dim=1)

    def by_sigmoid(self, logits: torch.Tensor) -> bool:
        """Whether the probabilities of logits `[N, K]` are sigmoids, each on its own."""
        return self.labels or logits.shape[1] == 1


def key_of(value: Any) -> Hashable:
    """What to know a value by; a function is not kept alive by it."""
    known: Hashable = value
    if not callable(value):
        return known
    if hasattr(value, "__self__") and hasattr(value, "__func__"):
        return _Same(value.__self__), _Same(value.__func__)
    return _Same(value)


class _Same:
    """Equal for the same object alone, which may have no hash of its own."""

    def __init__(self, value: Any) -> None:
        self._id = id(value)
        self._value: Callable[[], Any]
        try:
            self._value = weakref.ref(value)
        except TypeError:  # then it has to be kept
            self._value = lambda: value

    def __hash__(self) -> int:
        return self._id

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Same):
            return NotImplemented
        return self is other or (self._value() is not None and self._value() is other._value())
