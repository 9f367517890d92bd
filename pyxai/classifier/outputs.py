"""Which of a model's outputs is explained: targets, by index or name."""

from __future__ import annotations

import functools
import math
import operator
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import torch

from pyxai._errors import argument_error, closest
from pyxai.images import FolderLabels

_LISTED = 20  # classes that an error lists
_SHOWN = 10  # classes that a part of a name may mean

# None, a class, one class an image, k classes an image, "all", or outputs -> scores [N]; see `cam`.
Target: TypeAlias = (
    "int | str | Sequence[int | str] | Sequence[Sequence[int | str]] | torch.Tensor"
    " | Callable[[Any], torch.Tensor] | None"
)


@dataclass(frozen=True)
class ResolvedTarget:
    """A target as indices.

    Attributes:
        index: `[N, k]`, or `[1, k]` when every image has the same classes.
        single: whether the result has no axis k.
    """

    index: torch.Tensor
    single: bool


def resolve_target(
    target: Target, logits: torch.Tensor, class_names: Sequence[str] | None
) -> ResolvedTarget:
    """Turns a target (but a callable) into indices into the logits `[N, K]`.

    Raises:
        ValueError: an index out of range, an unknown or ambiguous name, a wrong number of targets.
    """
    images, classes = logits.shape
    if target is None:
        if math.isnan(float(logits.sum())) and bool(torch.isnan(logits).any()):
            raise ValueError("model: expected finite logits to find the top class, got NaN")
        return ResolvedTarget(logits.argmax(dim=1, keepdim=True), single=True)
    if isinstance(target, str) and target == "all":
        return ResolvedTarget(
            torch.arange(classes, device=logits.device, dtype=torch.int64)[None], single=False
        )
    array = torch.from_numpy(target) if isinstance(target, np.ndarray) else target
    if isinstance(array, torch.Tensor):
        if array.is_floating_point() or array.dtype == torch.bool or array.ndim > 2:
            raise argument_error("target", "integers [N] or [N or 1, k]", array)
        if array.ndim == 2 and len(array) == images == 0:  # a list would lose k
            return ResolvedTarget(array.to(logits.device, torch.long), single=False)
        target = array.tolist()
    rows, single = _rows_of_classes(target, images, class_names)
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise ValueError(f"target: expected as many classes for each image, got {lengths}")
    wrong = [index for row in rows for index in row if not -classes <= index < classes]
    if wrong:
        raise ValueError(f"target: expected class indices below {classes}, got {wrong[0]}")
    index = torch.tensor(rows, dtype=torch.long, device=logits.device)
    return ResolvedTarget(index.reshape(len(rows), lengths[0] if rows else 1) % classes, single)


def _rows_of_classes(
    target: Any, images: int, class_names: Sequence[str] | None
) -> tuple[list[list[int]], bool]:
    """The indices for each image, or once for all of them; and whether that is one class each."""
    if _is_one_class(target):
        return [[class_index(target, class_names)]], True
    if _is_sequence(target) and all(map(_is_one_class, target)):
        rows, single, counts = [[class_index(one, class_names)] for one in target], True, {images}
    elif _is_sequence(target) and all(map(_is_sequence, target)):
        rows = [[class_index(one, class_names) for one in each] for each in target]
        single, counts = False, {1, images}
    else:
        expected = "None, a class, a sequence of classes or of such sequences, 'all' or a callable"
        raise argument_error("target", expected, target)
    if len(rows) not in counts:
        raise _wrong_count(images, target, not single)
    return rows, single


def part_of_target(target: Target, part: slice, images: int) -> Target:
    """The target of some of the images; one that is the same for all images stays as it is.

    Raises:
        ValueError: a wrong number of targets.
    """
    if not _is_sequence(target):
        return target
    nested = len(target) > 0 and _is_sequence(target[0])
    if len(target) == 1 and nested:
        return target
    if len(target) != images:
        raise _wrong_count(images, target, nested)
    return target[part]


def rows_of_target(target: Target, rows: Sequence[int], images: int) -> Target:
    """The target of the images in these places; one that is the same for all stays as it is."""
    if isinstance(target, torch.Tensor):
        return target[list(rows)] if target.ndim and len(target) == images else target
    if not _is_sequence(target) or (len(target) == 1 and _is_sequence(target[0])):
        return target
    if len(target) != images:
        raise _wrong_count(images, target, len(target) > 0 and _is_sequence(target[0]))
    return [target[row] for row in rows]


def _wrong_count(images: int, target: Any, nested: bool) -> ValueError:
    """The error for a wrong number of targets, with what was probably meant."""
    given = target.tolist() if isinstance(target, (torch.Tensor, np.ndarray)) else list(target)
    hint = ", or one for all" if nested else ""
    expected = f"one entry for each of {images} image{'s' * (images != 1)}{hint}"
    if nested or not given:
        hint = ""
    elif len(given) == 1:
        hint = f"; one class for all images is {given[0]!r}, without brackets"
    else:
        listed = ", ".join(map(repr, given[:4])) + ", ..." * (len(given) > 4)
        hint = f"; several classes of each image are [[{listed}]], with two pairs of brackets"
    return ValueError(f"target: expected {expected}, got {len(given)}{hint}")


def _is_one_class(value: Any) -> bool:
    return isinstance(value, str) or (hasattr(value, "__index__") and not _is_sequence(value))


def _is_sequence(value: Any) -> TypeGuard[Sequence[Any]]:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, str)


def class_of_folder(
    labels: FolderLabels, path: str | os.PathLike[str], class_names: Sequence[str] | None
) -> str | None:
    """The class that the folder of a photo is named after, or None.

    Args:
        labels: of the photos that were given.
        path: of the photo.
        class_names: of the classifier.
    """
    label = labels.label(path, own=True)
    if label is None or class_names is None:
        return None
    return _class_named(label, tuple(class_names))


@functools.lru_cache(maxsize=256)  # one folder after the other, and the error is slow to word
def _class_named(label: str, class_names: tuple[str, ...]) -> str | None:
    try:
        return class_names[class_index(label, class_names)]
    except ValueError:
        return None


def class_index(target: Any, class_names: Sequence[str] | None) -> int:
    """The index of one class given as index or name.

    Names match exactly, else without regard to case, else by one of their comma-separated synonyms.

    Raises:
        ValueError: unknown (with the names that there are, or the closest), ambiguous, or there are
            no names.
    """
    if not isinstance(target, str):
        if isinstance(target, bool):
            raise argument_error("target", "a class index or name", target)
        try:
            return operator.index(target)
        except TypeError:
            raise argument_error("target", "a class index or name", target) from None
    if class_names is None:
        raise ValueError(
            f"target: expected a class index, as this classifier has no class names, got {target!r}"
        )
    folded = target.casefold().strip()
    rules: list[Callable[[str], bool]] = [
        lambda name: name == target,
        lambda name: name.casefold() == folded,
        lambda name: folded in [part.strip() for part in name.casefold().split(",")],
    ]
    for rule in rules:
        found = [index for index, name in enumerate(class_names) if rule(name)]
        if len(found) > 1:
            raise ValueError(
                f"target: {target!r} is the name of several classes, {found}; give the index"
            )
        if found:
            return found[0]
    raise _unknown(target, class_names)


def _unknown(target: str, names: Sequence[str]) -> ValueError:
    """The error for a name that no class has: those that it may mean, and how to see all."""
    folded = target.casefold().strip()
    holding = [index for index, name in enumerate(names) if folded and folded in name.casefold()]
    word = re.compile(rf"\b{re.escape(folded)}\b")
    holding = [index for index in holding if word.search(names[index].casefold())] or holding
    if re.fullmatch(r"\d+", folded):
        hint = f"; an index is a number, {int(folded)}"
    elif len(holding) > 1:
        shown = ", ".join(f"{names[index]!r} ({index})" for index in holding[:_SHOWN])
        more = f" and {len(holding) - _SHOWN} more" if len(holding) > _SHOWN else ""
        hint = f"; it is a part of {shown}{more}: give one of these names or numbers"
    else:
        # Names of ImageNet are lists of synonyms, each of which will do.
        hint = closest(target, (part.strip() for name in names for part in name.split(",")))
    if len(names) <= _LISTED:
        listing = f"; the classes are {', '.join(map(repr, names))}"
    else:
        listing = f"; class_names has all {len(names):,}"
    return ValueError(f"target: expected a class name, got {target!r}{hint}{listing}")
