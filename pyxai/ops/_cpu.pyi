"""CPU kernels by address; csrc/bind_cpu.cpp. Use pyxai.ops instead."""

def simd_levels() -> list[str]: ...
def simd_level() -> str: ...
def set_simd_level(name: str) -> None: ...
def cam_project_workspace(channels: int, targets: int, num_threads: int) -> int: ...
def cam_render_workspace(map_width: int, width: int, num_threads: int) -> int: ...
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
    workspace: int,
    workspace_bytes: int,
    num_threads: int,
) -> None: ...
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
    workspace: int,
    workspace_bytes: int,
    num_threads: int,
) -> None: ...
