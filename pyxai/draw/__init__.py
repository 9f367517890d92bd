"""Pictures of explanations: arrays in, pictures out; knows no model."""

from pyxai.draw.colormaps import color_table
from pyxai.draw.features import feature_sheet
from pyxai.draw.histogram import histogram
from pyxai.draw.masks import mask_figure, to_pictures
from pyxai.draw.overlay import overlay
from pyxai.draw.shap import shap_figure, shap_panel
from pyxai.draw.sheet import sheet
from pyxai.draw.windows import window_sheet

__all__ = [
    "color_table",
    "feature_sheet",
    "histogram",
    "mask_figure",
    "overlay",
    "shap_figure",
    "shap_panel",
    "sheet",
    "to_pictures",
    "window_sheet",
]
