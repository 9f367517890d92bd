"""What classes look like to a network: the crops of photos that it is surest of."""

from pyxai.galleries.contents import GalleryCrop
from pyxai.galleries.gallery import ClassGallery

__all__ = ["ClassGallery", "GalleryCrop"]
