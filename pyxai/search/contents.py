"""The photos of an index, as users meet them."""

from __future__ import annotations

from dataclasses import dataclass, field

from pyxai.runs import PhotoState
from pyxai.runs.photos import check_content as check_content_of


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo in an index.

    Attributes:
        path: as it was found, or "images[i]" for one that came from memory.
        width: of the upright photo, in pixels.
        height: the same.
        label: its class, or None.
        content: a digest of the bytes of its file, or of the pixels of one from memory.
        stamp: of the file; see `pyxai.runs.photos.stamp_of`.
    """

    path: str
    width: int
    height: int
    label: str | None
    content: str
    stamp: str = field(default="", compare=False)

    @classmethod
    def of(cls, state: PhotoState) -> Photo:
        """What the parts of an index say of it.

        Raises:
            ValueError, TypeError: they say something else.
        """
        width, height, label = state.about
        label = None if label is None else str(label)
        return cls(state.path, int(width), int(height), label, state.content, state.stamp)


def check_content(photo: Photo) -> None:
    """Raises ImageError if the file of a photo is gone, or no longer what it was."""
    check_content_of(photo.path, photo.content, photo.stamp)
