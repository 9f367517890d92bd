"""CUDA kernels by address; csrc/bind_cuda.cpp. Use pyxai.ops instead."""

from collections.abc import Sequence
from typing import TypedDict, type_check_only

@type_check_only
class _BuildInfo(TypedDict):
    toolkit: str  # "13.0"
    architectures: str

@type_check_only
class _DeviceStatus(TypedDict):
    driver_version: int  # 0: no driver
    runtime_version: int
    device_count: int
    error: str | None

SMALL_MAP: int
SMALL_MASK: int
PENALTY_PARTS: int

def build_info() -> _BuildInfo: ...
def device_status() -> _DeviceStatus: ...
def cam_project(
    features: int,
    features_dtype: int,
    channels_last: bool,
    weights: int,
    weights_per_image: bool,
    maps: int,
    images: int,
    channels: int,
    targets: int,
    positions: int,
    device: int,
    stream: int,
) -> None: ...
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
    scaling: int,
    device: int,
    stream: int,
) -> None: ...
def cam_project_render(
    features: int,
    features_dtype: int,
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
    scaling: int,
    device: int,
    stream: int,
) -> None: ...
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
    scaling: int,
    device: int,
    stream: int,
) -> None: ...
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
    device: int,
    stream: int,
) -> None: ...
def mask_blend_slopes(
    gradients: int,
    images: int,
    image_strides: Sequence[int],
    backgrounds: int,
    background_strides: Sequence[int],
    dtype: int,
    slopes: int,
    channels_last: bool,
    count: int,
    channels: int,
    mask_height: int,
    mask_width: int,
    height: int,
    width: int,
    device: int,
    stream: int,
) -> None: ...
def mask_sum_shown(
    gradients: int,
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
    device: int,
    stream: int,
) -> None: ...
def mask_penalty(
    masks: int,
    costs: int,
    slopes: int,
    count: int,
    height: int,
    width: int,
    variation_weight: float,
    distance_weight: float,
    beta: float,
    root: bool,
    mean: bool,
    partials: int,
    device: int,
    stream: int,
) -> None: ...
def mask_step(
    masks: int,
    gradients: int,
    first: int,
    second: int,
    count: int,
    step_address: int,
    step: int,
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    device: int,
    stream: int,
) -> None: ...
def mask_penalized_step(
    masks: int,
    gradients: int,
    first: int,
    second: int,
    costs: int,
    slopes: int,
    count: int,
    height: int,
    width: int,
    step_address: int,
    step: int,
    learning_rate: float,
    beta1: float,
    beta2: float,
    eps: float,
    variation_weight: float,
    distance_weight: float,
    beta: float,
    root: bool,
    mean: bool,
    partials: int,
    device: int,
    stream: int,
) -> None: ...
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
    device: int,
    stream: int,
) -> None: ...
def window_heatmap(
    scores: int,
    maps: int,
    boxes: int,
    count: int,
    out: int,
    height: int,
    width: int,
    device: int,
    stream: int,
) -> None: ...
