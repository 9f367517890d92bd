"""Ready classifiers: the one that ships with pyxai, those of the model hubs, and model files."""

from pyxai.zoo.load import load_classifier

__all__ = ["load_classifier"]
