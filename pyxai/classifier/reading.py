"""Which part of what a model returns are the logits, and what they mean."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch

from pyxai._errors import argument_error, describe

Output: TypeAlias = "int | str | Callable[[Any], torch.Tensor] | None"
"""Where the logits are in what a model returns: an index, a key or attribute, or a function."""

Activation: TypeAlias = Literal["softmax", "sigmoid"]
"""What makes probabilities of logits."""

_NAMES = ("logits", "out")  # Hugging Face, torchvision's segmentation
_NO_LOGITS = ("loss", "hidden", "attention", "embed", "feature", "pool")
_EMBEDDING = (
    "the model returns rows of length 1, an embedding, whose numbers are taken for logits of "
    "classes. Pass target as a function outputs -> scores [N], or a module that compares the "
    "embedding with those of classes (docs/your_model.md); class_names say that they are logits"
)
BETWEEN = (
    "all that the model returns lies between 0 and 1, and is taken for logits. If these are "
    "probabilities, say how to get logits of them: Classifier(model, output=torch.logit)"
)
_HINT = (
    "for any other output (boxes, masks, embeddings) pass target as a function outputs -> scores "
    "[N]; docs/your_model.md has examples"
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
        by_chance: whether logits were seen that look like probabilities.
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
            if is_probabilities(found):
                activation = "softmax"
            elif function in ("sigmoid", "softmax"):  # of a softmax, some of the classes
                activation = "sigmoid"
        classes = 2 if self.classes == 2 and found.shape[1] == 1 else found.shape[1]
        labels = activation == "sigmoid" and found.shape[1] > 1
        known = replace(self, output=where, activation=activation, labels=labels)
        return known, classes, guess

    def fits(self, returned: Any, images: int) -> bool:
        """Whether what the model returned may be read so; it may have changed since it was seen."""
        if callable(self.output):
            return True
        try:
            found, _, _ = pick_logits(returned, self.output, self.classes, images)
        except ValueError:
            return not isinstance(self.output, tuple)  # what was told is not to be found anew
        values = found.detach()
        if not len(values) or not bool(torch.isfinite(values).all()):
            return True  # tells nothing
        if self.activation == "sigmoid":
            return bool(((values >= 0) & (values <= 1)).all())
        if self.activation is None:
            return self.by_chance or not is_probabilities(values)
        return is_probabilities(values)

    def lies_between(self, returned: Any, images: int) -> bool:
        """Whether what is read lies in [0, 1], before a sigmoid or softmax is taken back."""
        if callable(self.output):
            return False
        try:
            found, _, _ = pick_logits(returned, self.output, self.classes, images)
        except ValueError:
            return False
        return len(found) > 0 and bool(((found >= 0) & (found <= 1)).all() & found.any())

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


def logits_of(returned: Any, images: int | None = None) -> torch.Tensor:
    """The logits `[N, K]` in what a model of which nothing is known returned.

    Raises:
        ValueError: there are none.
    """
    return Reading().logits(returned, images)


def pick_logits(
    returned: Any, output: Output | tuple[str, ...], classes: int | None, images: int | None
) -> tuple[torch.Tensor, Output | tuple[str, ...], str | None]:
    """The logits `[N, K]` in what a model returned.

    Args:
        returned: what the model returned.
        output: where they are; None, to be found. A tensor is taken as it is; of a dictionary or
            object, what it calls `logits` or `out`; of several outputs, the one with as many
            columns as there are classes, and not probabilities where there are logits beside them.
        classes: how many there are, where that is known.
        images: N, where that is known. One number an image counts as `[N, 1]`; a model that
            squeezes its output returns `[K]` for one image.

    Returns:
        The logits, where they are, and a warning where that is a guess.

    Raises:
        ValueError: there are none, or nothing at `output`.
    """
    if output is not None:
        found = as_logits(_chosen(returned, output), images)
        if found is None:
            given = "what it returns" if callable(output) else f"outputs[{output!r}]"
            expected = f"the logits [N, K] of {_count(images)} as {given}"
            raise argument_error("output", expected, _chosen(returned, output))
        return found, output, None
    if isinstance(returned, torch.Tensor):
        found = as_logits(returned, images)
        if found is None:
            raise _no_logits(returned, images)
        return found, None, None
    flat = list(_flat(returned))
    rows = [(path, value) for path, value in flat if getattr(value, "ndim", 0)]
    candidates = {
        path: found
        for path, value in rows or flat  # a number for all images is a loss
        if (found := as_logits(value, images)) is not None
    }
    paths: list[tuple[str, ...]] = []
    for name in _NAMES:
        paths += [(name,), (name, "0")]  # what goes by this name may be a tuple itself
    for path in paths:
        if path in candidates:
            return candidates[path], path, None
    if not candidates:
        raise _no_logits(returned, images)
    path, guess = _one_of(candidates, returned, images, classes)
    return candidates[path], path, guess


def _one_of(
    candidates: Mapping[tuple[str, ...], torch.Tensor],
    returned: Any,
    images: int | None,
    classes: int | None,
) -> tuple[tuple[str, ...], str | None]:
    """Where the logits are among outputs that could be such, and a warning if it is a guess."""
    called = [path for path in candidates if "logit" in path[-1].lower()]
    for paths in (called, [path for path in candidates if not _says_otherwise(path)]):
        some = [path for path in paths if _fits(candidates[path], classes)] or paths
        several = _without_probabilities({path: candidates[path] for path in some})
        if len(several) == 1:
            return several[0], None
        if several:
            wide = [path for path in several if candidates[path].shape[1] > 1]
            first = (wide or several)[
                0
            ]  # a number beside scores of classes is about something else
            shapes = ", ".join(f"{'.'.join(path)}: {[*candidates[path].shape]}" for path in several)
            said = int(first[0]) if first[0].isdigit() else first[0]
            return first, (
                f"the model returns several outputs that could be logits ({shapes}); the first is "
                f"taken. Say which: Classifier(model, output={said!r}), or give class_names, as "
                "many as there are classes"
            )
    raise _no_logits(returned, images)


def _without_probabilities(
    candidates: Mapping[tuple[str, ...], torch.Tensor],
) -> list[tuple[str, ...]]:
    """Without the probabilities of whose classes there are logits as well."""
    widths = [each.shape[1] for each in candidates.values() if not is_probabilities(each)]
    return [
        path
        for path, each in candidates.items()
        if not is_probabilities(each) or each.shape[1] not in widths
    ]


def as_logits(value: Any, images: int | None) -> torch.Tensor | None:
    """A tensor as logits `[N, K]`, None if it can't be such."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return None
    if value.ndim == 0 and images == 1:
        value = value[None]
    if value.ndim == 1:
        value = value[None] if images == 1 and value.shape[0] > 1 else value[:, None]
    elif value.ndim == 4 and value.shape[2:] == (1, 1):
        value = value.flatten(1)
    if value.ndim != 2 or value.shape[1] == 0:
        return None
    return value if images is None or value.shape[0] == images else None


def is_probabilities(logits: torch.Tensor) -> bool:
    """Whether numbers `[N, K]` are probabilities of classes that exclude each other."""
    values = logits.detach().float()
    if values.shape[1] < 2 or not len(values):
        return False
    tolerance = 1e-3 if logits.dtype in (torch.float32, torch.float64) else 2e-2
    sums = values.sum(dim=1)
    return bool((values >= 0).all() & ((sums - 1).abs() <= tolerance).all())


def is_embedding(logits: torch.Tensor) -> bool:
    """Whether rows `[N, K]` all have the length 1, as embeddings have that are compared."""
    if logits.shape[1] < 3 or not len(logits):
        return False
    lengths = logits.detach().float().norm(dim=1)
    tolerance = 1e-4 if logits.dtype in (torch.float32, torch.float64) else 1e-2
    return bool(((lengths - 1).abs() <= tolerance).all()) and not is_probabilities(logits)


def before_activation(values: torch.Tensor, activation: Activation) -> torch.Tensor:
    """Logits of which these values are the softmax or sigmoid; clamped where they are 0 or 1."""
    tiny = torch.finfo(values.dtype).tiny
    if activation == "softmax":
        return values.clamp(min=tiny).log()
    return torch.logit(values, eps=torch.finfo(values.dtype).eps / 2)


def _chosen(returned: Any, output: Output | tuple[str, ...]) -> Any:
    """The part of what a model returned that `output` says.

    Raises:
        ValueError: there is none.
    """
    if callable(output):
        return output(returned)
    found = returned
    for step in output if isinstance(output, tuple) else (output,):
        try:
            if isinstance(found, (tuple, list)) and str(step).lstrip("-").isdigit():
                found = found[int(step)]  # type: ignore[arg-type]
            elif isinstance(found, Mapping):
                found = found[step]
            else:
                found = getattr(found, str(step))
        except (LookupError, AttributeError):
            there = ", ".join(f"{name}: {describe(value)}" for name, value in _named(found))
            expected = f"one of the model's outputs ({there or describe(found)})"
            raise argument_error("output", expected, output) from None
    return found


def _named(returned: Any) -> Iterator[tuple[str, Any]]:
    """The parts of an output with their names."""
    if isinstance(returned, Mapping):
        yield from ((str(key), value) for key, value in returned.items())
    elif isinstance(returned, tuple) and hasattr(returned, "_asdict"):  # a named one
        yield from returned._asdict().items()
    elif isinstance(returned, (tuple, list)):
        yield from ((str(index), value) for index, value in enumerate(returned))
    elif dataclasses.is_dataclass(returned):
        for each in dataclasses.fields(returned):
            yield each.name, getattr(returned, each.name, None)
    elif hasattr(returned, "__dict__"):
        yield from vars(returned).items()


def _flat(
    returned: Any, path: tuple[str, ...] = (), depth: int = 2
) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
    several = isinstance(returned, (tuple, list))
    for name, value in _named(returned):
        if several and isinstance(value, Mapping):
            continue  # what a detector says of each image
        if isinstance(value, torch.Tensor):
            yield (*path, name), value
        elif depth and value is not None:
            yield from _flat(value, (*path, name), depth - 1)


def _fits(logits: torch.Tensor, classes: int | None) -> bool:
    count = logits.shape[1]
    return classes is not None and (count == classes or (count, classes) == (1, 2))


def _says_otherwise(path: tuple[str, ...]) -> bool:
    return any(word in name.lower() for name in path for word in _NO_LOGITS)


def _count(images: int | None) -> str:
    return "the images" if images is None else f"{images} images"


def _no_logits(returned: Any, images: int | None) -> ValueError:
    shape = f"[{'N' if images is None else images}, K]"
    return ValueError(
        f"model: expected to return logits {shape}, a floating tensor (or a tuple, dict or object "
        f"with such logits), got {_in_words(returned)}; {_HINT}"
    )


def _in_words(returned: Any) -> str:
    parts = [f"{name}: {describe(value)}" for name, value in _named(returned)]
    if isinstance(returned, torch.Tensor) or not parts:
        return describe(returned)
    return f"{describe(returned)} with {', '.join(parts[:6])}{', ...' if len(parts) > 6 else ''}"
