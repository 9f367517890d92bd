"""Pictures of explanations: arrays in, pictures out; knows no model."""

from pyxai.draw.colormaps import color_table
from pyxai.draw.overlay import overlay

__all__ = ["color_table", "overlay"]
