"""Explains image classifiers, fast."""

__version__ = "0.1.0"
