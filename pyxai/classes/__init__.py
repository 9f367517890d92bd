"""What a class, or any other part of a network, looks like."""

from pyxai.classes.comparison import Comparison, VoteCount, compare, count_votes
from pyxai.classes.contents import GalleryCrop
from pyxai.classes.exciting_crops import ExcitingCrop, exciting_crops
from pyxai.classes.feature_visualization import caricatures, visualize_features
from pyxai.classes.gallery import ClassGallery

__all__ = [
    "ClassGallery",
    "Comparison",
    "ExcitingCrop",
    "GalleryCrop",
    "VoteCount",
    "caricatures",
    "compare",
    "count_votes",
    "exciting_crops",
    "visualize_features",
]
