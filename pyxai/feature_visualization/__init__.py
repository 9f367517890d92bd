"""What parts of a network respond to: pictures made for them, and crops of photos."""

from pyxai.feature_visualization.exciting_crops import ExcitingCrop, exciting_crops
from pyxai.feature_visualization.feature_visualization import caricatures, visualize_features

__all__ = ["ExcitingCrop", "caricatures", "exciting_crops", "visualize_features"]
