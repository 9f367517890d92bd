"""Explains image classifiers, fast: where they looked, and whether you may believe the picture."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyxai import playground as playground
    from pyxai._locks import BusyError as BusyError
    from pyxai._sealed import DamagedError as DamagedError
    from pyxai.attribution.cam import cam as cam
    from pyxai.attribution.cam.methods import cam_method as cam_method
    from pyxai.attribution.cam.model import CamModel as CamModel
    from pyxai.attribution.masks import extremal_perturbation as extremal_perturbation
    from pyxai.attribution.masks import meaningful_perturbation as meaningful_perturbation
    from pyxai.attribution.masks import undesirable_pixels as undesirable_pixels
    from pyxai.attribution.masks.settings import ExtremalSettings as ExtremalSettings
    from pyxai.attribution.masks.settings import MaskSettings as MaskSettings
    from pyxai.attribution.masks.settings import MeaningfulSettings as MeaningfulSettings
    from pyxai.attribution.shap import shap_values as shap_values
    from pyxai.attribution.shap.summary import shap_summary as shap_summary
    from pyxai.attribution.windows.search import sliding_window as sliding_window
    from pyxai.classifier import Classifier as Classifier
    from pyxai.curate.audit import audit as audit
    from pyxai.curate.duplicates import find_duplicates as find_duplicates
    from pyxai.engines.torch import accelerate as accelerate
    from pyxai.feature_visualization import visualize_features as visualize_features
    from pyxai.galleries import ClassGallery as ClassGallery
    from pyxai.images import PhotoFailure as PhotoFailure
    from pyxai.images import Preprocessing as Preprocessing
    from pyxai.novelty import NoveltyDetector as NoveltyDetector
    from pyxai.novelty import active_share as active_share
    from pyxai.search.index import ImageIndex as ImageIndex
    from pyxai.train.fine_tune import fine_tune as fine_tune
    from pyxai.zoo import load_classifier as load_classifier

__version__ = "0.1.0"

# Where the public names are. Each is imported when it is first used: scikit-learn, or the room for
# training, cost nothing to whom they are of no use.
_HOMES = {
    "BusyError": "_locks",
    "CamModel": "attribution.cam.model",
    "ClassGallery": "galleries",
    "Classifier": "classifier",
    "DamagedError": "_sealed",
    "ExtremalSettings": "attribution.masks.settings",
    "ImageIndex": "search.index",
    "MaskSettings": "attribution.masks.settings",
    "MeaningfulSettings": "attribution.masks.settings",
    "NoveltyDetector": "novelty",
    "PhotoFailure": "images",
    "Preprocessing": "images",
    "accelerate": "engines.torch",
    "active_share": "novelty",
    "audit": "curate.audit",
    "cam": "attribution.cam",
    "cam_method": "attribution.cam.methods",
    "extremal_perturbation": "attribution.masks",
    "find_duplicates": "curate.duplicates",
    "fine_tune": "train.fine_tune",
    "load_classifier": "zoo",
    "meaningful_perturbation": "attribution.masks",
    "playground": "playground",
    "shap_summary": "attribution.shap.summary",
    "shap_values": "attribution.shap",
    "sliding_window": "attribution.windows.search",
    "undesirable_pixels": "attribution.masks",
    "visualize_features": "feature_visualization",
}

__all__ = [
    "BusyError",
    "CamModel",
    "ClassGallery",
    "Classifier",
    "DamagedError",
    "ExtremalSettings",
    "ImageIndex",
    "MaskSettings",
    "MeaningfulSettings",
    "NoveltyDetector",
    "PhotoFailure",
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

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'pyxai' has no attribute {name!r}")
        home = import_module(f"pyxai.{_HOMES[name]}")
        found = home if name == _HOMES[name] else getattr(home, name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
