"""The native operators behind pyxai, usable on their own: tensors in, tensors out.

Each has a plain PyTorch twin of the same name in `pyxai.ops.reference`.
"""

from pyxai.ops import reference
from pyxai.ops._native import CudaUnavailableError, cuda_status
from pyxai.ops.blend import mask_blend
from pyxai.ops.cam import cam_overlay, cam_project, cam_project_render, cam_render
from pyxai.ops.learn import mask_penalized_step_, mask_penalty, mask_step_
from pyxai.ops.windows import crop_windows, window_heatmap

__all__ = [
    "CudaUnavailableError",
    "cam_overlay",
    "cam_project",
    "cam_project_render",
    "cam_render",
    "crop_windows",
    "cuda_status",
    "mask_blend",
    "mask_penalized_step_",
    "mask_penalty",
    "mask_step_",
    "reference",
    "window_heatmap",
]
