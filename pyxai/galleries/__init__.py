"""What a class, or any other part of a network, looks like."""

from pyxai.playground.voting import Comparison, VoteCount, compare, count_votes
from pyxai.galleries.contents import GalleryCrop
from pyxai.feature_visualization.exciting_crops import ExcitingCrop, exciting_crops
from pyxai.feature_visualization.feature_visualization import caricatures, visualize_features
from pyxai.galleries.gallery import ClassGallery
from pyxai.attribution.shap.summary import shap_summary
from pyxai.attribution.shap.summary.result import ShapSummary
from pyxai.attribution.shap.summary.statistics import ClassSummary

__all__ = [
    "ClassGallery",
    "ClassSummary",
    "Comparison",
    "ExcitingCrop",
    "GalleryCrop",
    "ShapSummary",
    "VoteCount",
    "caricatures",
    "compare",
    "count_votes",
    "exciting_crops",
    "shap_summary",
    "visualize_features",
]
