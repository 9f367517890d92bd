"""The features of the photos of an index: parts of a run, with what they are."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from pyxai.runs.parts import Kind, Part, Parts, erase
from pyxai.search.contents import Photo
from pyxai.search.header import DTYPES, Header

KIND = Kind("an index", "index", "pyxai image index 3", "directory")


class Store(Parts):
    """Photos and features, in memory or in a folder."""

    @cached_property
    def header(self) -> Header:
        """What the features are."""
        return Header.from_record(self.identity)

    def check(self, part: Part) -> None:
        """Raises ValueError unless a part has the features that the header says."""
        for state in part.photos:
            Photo.of(state)
        expected = {name: (width,) for name, width in self.header.widths().items()}
        tensors = {name: part.tensors[name] for name in part.names}
        shapes = {name: tuple(tensor.shape[1:]) for name, tensor in tensors.items()}
        if shapes != expected or {each.dtype for each in tensors.values()} != {
            DTYPES[self.header.dtype]
        }:
            raise ValueError(f"part {part.stem} does not hold the features of {[*expected]}")


def erase_index(directory: Path) -> list[str]:
    """Removes an index from a folder, whose other files stay; the names of its photos.

    Raises:
        BusyError: another run works in the folder.
    """
    return erase(directory, KIND)
