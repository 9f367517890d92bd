"""Class names in the forms that people have them in, as one tuple in the order of the classes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from pyxai._errors import argument_error, describe

ClassNames: TypeAlias = Sequence[str] | Mapping[int, str] | Mapping[str, str] | Mapping[str, int]
"""Names in the order of the classes, a dict index -> name, or a dict name -> index."""

_EXPECTED = "a sequence of names in the order of the classes, or a dict index -> name"


def as_class_names(names: ClassNames) -> tuple[str, ...]:
    """The names of the classes 0 to K - 1, in this order.

    Args:
        names: One of:

            - a sequence of names (an array of NumPy or a column of pandas will do);
            - a dict index -> name, whatever its order: `model.config.id2label`, and also a dict
              read from JSON, whose keys are digits in a string;
            - a dict name -> index, as torchvision's `ImageFolder.class_to_idx`.

            Names are strings, or whole numbers for classes that are called so ("7" for 7).

    Raises:
        ValueError: something else; a dict without just the indices 0 to K - 1, each once; a dict of
            numbers that could be read both ways.
    """
    if isinstance(names, Mapping):
        return _from_dict(names)
    # A set has no order, and the lines of an open file end in line breaks.
    wrong = (str, bytes, bytearray, set, frozenset, io.IOBase)
    scalar = getattr(names, "ndim", 1) == 0
    if not isinstance(names, Iterable) or isinstance(names, wrong) or scalar:
        raise argument_error("class_names", _EXPECTED, names)
    values = [*names]
    if not values:
        raise ValueError(f"class_names: expected at least one name, got none ({describe(names)})")
    if {*map(type, values)} == {str}:
        return tuple(values)
    return tuple(_name(value, f"class {i}") for i, value in enumerate(values))


def _from_dict(names: Mapping[Any, Any]) -> tuple[str, ...]:
    """The names of a dict, whichever way it goes."""
    if not names:
        raise ValueError("class_names: expected at least one name, got an empty dict")
    # The usual case at once, as this happens at each call with a network that carries its names.
    plain = {*map(type, names)} == {int} and {*map(type, names.values())} == {str}
    if plain and [*names] == [*range(len(names))]:
        return tuple(names.values())
    keys = [_index(key, digits=True) for key in names]
    values = [_index(value) for value in names.values()]
    # {"10": 2, …} has folders that are called by numbers, and not digits out of JSON, for its keys.
    inverted = None not in values and all(isinstance(key, str) for key in names)
    everyone = [*range(len(names))]
    readings = set()
    for indices, given, possible in ((keys, names.values(), not inverted), (values, names, True)):
        if possible and {*indices} == {*everyone}:
            by_index = dict(zip(indices, given, strict=True))
            readings.add(tuple(_name(by_index[i], f"class {i}") for i in everyone))
    if len(readings) > 1:
        raise ValueError(
            "class_names: expected names that are strings, got a dict of numbers, in which names "
            "and indices cannot be told apart"
        )
    if not readings:
        given = names.values() if inverted else names
        raise _wrong_indices([*given], values if inverted else keys)
    return readings.pop()


def _wrong_indices(given: Sequence[object], indices: Sequence[int | None]) -> ValueError:
    missing = [i for i in range(len(given)) if i not in indices][:3]
    odd = [
        raw if index is None else index
        for place, (raw, index) in enumerate(zip(given, indices, strict=True))
        if index not in range(len(given)) or index in indices[:place]
    ]
    found = ", ".join(describe(each) for each in odd[:3])
    return ValueError(
        "class_names: expected a dict index -> name, or name -> index, with each index from 0 to "
        f"{len(given) - 1} once, got {found} instead of {', '.join(map(str, missing))}"
    )


def _index(value: object, *, digits: bool = False) -> int | None:
    """A class index, None for what is none."""
    if digits and isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value)
    is_int = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return int(value) if is_int else None  # type: ignore[call-overload]


def _name(value: object, of: str) -> str:
    if isinstance(value, str):
        return str.__str__(value)  # a plain one, also of NumPy's strings and of enumerations
    index = _index(value)
    if index is None:
        expected = f"names that are strings, got {describe(value)} for {of}"
        raise ValueError(f"class_names: expected {expected}")
    return str(index)
