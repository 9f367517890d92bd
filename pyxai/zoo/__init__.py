"""Ready classifiers: the one that ships with pyxai, those of the model hubs, and model files."""

from pyxai.zoo.load import load_classifier
from pyxai.zoo.weights_file import save_classifier

__all__ = ["load_classifier", "save_classifier"]
