"""What a class looks like to a network."""

from pyxai.classes.comparison import Comparison, VoteCount, compare, count_votes
from pyxai.classes.contents import GalleryCrop
from pyxai.classes.gallery import ClassGallery

__all__ = [
    "ClassGallery",
    "Comparison",
    "GalleryCrop",
    "VoteCount",
    "compare",
    "count_votes",
]
