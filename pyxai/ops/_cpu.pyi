"""CPU kernels by address; csrc/bind_cpu.cpp. Use pyxai.ops instead."""

from collections.abc import Sequence

def simd_levels() -> list[str]: ...
def simd_level() -> str: ...
def set_simd_level(name: str) -> None: ...

# Each returns 0, or how many bytes of workspace it needs and has not got.
def cam_project(
    features: int,
    dtype: int,
    channels_last: bool,
    weights: int,
    weights_per_image: bool,
    maps: int,
    images: int,
    channels: int,
    targets: int,
    positions: int,
    workspace: int,
    workspace_bytes: int,
    num_threads: int,
) -> int: ...
def cam_render(
    maps: int,
    count: int,
    map_height: int,
    map_width: int,
    height: int,
    width: int,
    relu: bool,
    minmax: bool,
    out: int,
    out_uint8: bool,
    workspace: int,
    workspace_bytes: int,
    num_threads: int,
) -> int: ...
def cam_project_render(
    features: int,
    dtype: int,
    channels_last: bool,
    weights: int,
    weights_per_image: bool,
    maps: int,
    images: int,
    channels: int,
    targets: int,
    map_height: int,
    map_width: int,
    height: int,
    width: int,
    relu: bool,
    minmax: bool,
    out: int,
    out_uint8: bool,
    workspace: int,
    workspace_bytes: int,
    num_threads: int,
) -> int: ...
def cam_overlay(
    photos: int,
    colors: int,
    maps: int,
    count: int,
    map_height: int,
    map_width: int,
    height: int,
    width: int,
    relu: bool,
    minmax: bool,
    out: int,
    workspace: int,
    workspace_bytes: int,
    num_threads: int,
) -> int: ...
def mask_blend(
    images: int,
    image_strides: Sequence[int],
    backgrounds: int,
    background_strides: Sequence[int],
    dtype: int,
    masks: int,
    out: int,
    channels_last: bool,
    count: int,
    channels: int,
    mask_height: int,
    mask_width: int,
    height: int,
    width: int,
    workspace: int,
    workspace_bytes: int,
    num_threads: int,
) -> int: ...

# The first bad box, or -1; height and width of all boxes, or 0 where they differ.
def survey_boxes(boxes: int, count: int, height: int, width: int) -> list[int]: ...
def crop_windows(
    photo: int,
    photo_dtype: int,
    strides: Sequence[int],
    sizes: Sequence[int],
    boxes: int,
    count: int,
    scale: Sequence[float],
    shift: Sequence[float],
    out: int,
    dtype: int,
    channels_last: bool,
    height: int,
    width: int,
    workspace: int,
    workspace_bytes: int,
    num_threads: int,
) -> int: ...
def window_heatmap(
    scores: int,
    maps: int,
    boxes: int,
    count: int,
    out: int,
    height: int,
    width: int,
    workspace: int,
    workspace_bytes: int,
    num_threads: int,
) -> int: ...
