"""Explains image classifiers, fast: where they looked, and whether you may believe the picture."""

from pyxai.classifier import Classifier
from pyxai.explain.cam import cam
from pyxai.images import Preprocessing
from pyxai.zoo import load_classifier

__version__ = "0.1.0"

__all__ = ["Classifier", "Preprocessing", "__version__", "cam", "load_classifier"]
