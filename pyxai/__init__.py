"""Explains image classifiers, fast: where they looked, and whether you may believe the picture."""

from pyxai.acceleration import accelerate
from pyxai.classifier import Classifier
from pyxai.explain.cam import cam
from pyxai.explain.cam_methods import cam_method
from pyxai.explain.cam_model import CamModel
from pyxai.images import Preprocessing
from pyxai.zoo import load_classifier

__version__ = "0.1.0"

__all__ = [
    "CamModel",
    "Classifier",
    "Preprocessing",
    "__version__",
    "accelerate",
    "cam",
    "cam_method",
    "load_classifier",
]
