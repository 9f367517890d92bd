"""What parts of a network respond to: pictures made for them, and crops of photos."""

from pyxai.feature_visualization.exciting_crops import exciting_crops
from pyxai.feature_visualization.feature_visualization import caricatures, visualize_features
from pyxai.feature_visualization.result import ExcitingCrop, ExcitingCrops, FeaturePictures

__all__ = [
    "ExcitingCrop",
    "ExcitingCrops",
    "FeaturePictures",
    "caricatures",
    "exciting_crops",
    "visualize_features",
]
