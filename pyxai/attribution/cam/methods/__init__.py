"""The class-activation methods. To add one: a function with the decorator `method`."""

from pyxai.attribution.cam.methods import attention, eigen, gradient, masked, whole_network
from pyxai.attribution.cam.methods.registry import (
    AUTO,
    METHODS,
    CamMethod,
    Evidence,
    cam_method,
    method,
)

__all__ = ["AUTO", "METHODS", "CamMethod", "Evidence", "cam_method", "method"]

del attention, eigen, gradient, masked, whole_network  # imported for their effect
