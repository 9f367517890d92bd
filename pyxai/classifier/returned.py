"""Which part of what a model returns can be its logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import torch

from pyxai._errors import argument_error, describe

Output: TypeAlias = "int | str | Callable[[Any], torch.Tensor] | None"
"""Where the logits are in what a model returns: an index, a key or attribute, or a function."""

Activation: TypeAlias = Literal["softmax", "sigmoid"]
"""What makes probabilities of logits."""

_NAMES = ("logits", "out")  # Hugging Face, torchvision's segmentation
_NO_LOGITS = ("loss", "hidden", "attention", "embed", "feature", "pool")
_HINT = (
    "for any other output (boxes, masks, embeddings) pass target as a function outputs -> scores "
    "[N]; docs/your_model.md has examples"
)


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
                f"the model returns several outputs that could be logits ({shapes}); "
                f"{'.'.join(first)} is taken. Say which: Classifier(model, output={said!r}), or "
                "give class_names, as many as there are classes"
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
    values = logits.detach()
    if values.shape[1] < 2 or not len(values) or bool((values < 0).any()):
        return False
    values = values.float()
    tolerance = 1e-3 if logits.dtype in (torch.float32, torch.float64) else 2e-2
    sums = values.sum(dim=1)
    return bool(((sums - 1).abs() <= tolerance).all())


def lie_between(values: torch.Tensor) -> bool:
    """Whether numbers `[N, K]` lie between 0 and 1, and are not all 0."""
    within = (values >= 0) & (values <= 1)  # compared: they may have a graph that is forced on them
    return bool(within.all()) and bool((values > 0).any())


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
