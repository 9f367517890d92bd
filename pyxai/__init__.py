"""Explains image classifiers, fast: where they looked, and whether you may believe the picture."""

from pyxai import playground
from pyxai._locks import BusyError
from pyxai._sealed import DamagedError
from pyxai.attribution.cam import cam
from pyxai.attribution.cam.methods import cam_method
from pyxai.attribution.cam.model import CamModel
from pyxai.attribution.masks import (
    extremal_perturbation,
    meaningful_perturbation,
    undesirable_pixels,
)
from pyxai.attribution.shap import shap_values
from pyxai.attribution.shap.summary import shap_summary
from pyxai.attribution.windows.search import sliding_window
from pyxai.classifier import Classifier
from pyxai.curate.audit import audit
from pyxai.curate.duplicates import find_duplicates
from pyxai.engines.torch import accelerate
from pyxai.feature_visualization.feature_visualization import visualize_features
from pyxai.galleries.gallery import ClassGallery
from pyxai.images import Preprocessing
from pyxai.novelty import NoveltyDetector, active_share
from pyxai.search.index import ImageIndex
from pyxai.train.fine_tune import fine_tune
from pyxai.zoo import load_classifier

__version__ = "0.1.0"

__all__ = [
    "BusyError",
    "CamModel",
    "ClassGallery",
    "Classifier",
    "DamagedError",
    "ImageIndex",
    "NoveltyDetector",
    "Preprocessing",
    "__version__",
    "accelerate",
    "active_share",
    "audit",
    "cam",
    "cam_method",
    "extremal_perturbation",
    "find_duplicates",
    "fine_tune",
    "load_classifier",
    "meaningful_perturbation",
    "playground",
    "shap_summary",
    "shap_values",
    "sliding_window",
    "undesirable_pixels",
    "visualize_features",
]
