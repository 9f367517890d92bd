"""Registers the operators with torch, so that autograd, torch.compile and torch.export know them.

Three implementations each: the kernels for CPU and CUDA, the plain reference for all else, and
shapes without data. All check their arguments first: whoever calls the operators, by whatever
way, cannot reach memory that is not theirs.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from pyxai.ops import (
    _cam_checks,
    _cam_native,
    _mask_checks,
    _mask_native,
    _windows_checks,
    _windows_native,
    reference,
)
from pyxai.ops._gradients import are_differentiated, plain_gradients

_library: Any = torch.library.Library("pyxai", "DEF")  # type: ignore[no-untyped-call]

_SCHEMAS = {
    "cam_project": "(Tensor features, Tensor weights) -> Tensor",
    "cam_render": "(Tensor maps, SymInt[2] size, bool relu, bool minmax, bool as_uint8) -> Tensor",
    "cam_overlay": "(Tensor photos, Tensor maps, Tensor colors, bool relu, bool minmax) -> Tensor",
    "mask_blend": (
        "(Tensor images, Tensor masks, Tensor? background, bool channels_last) -> Tensor"
    ),
    "mask_blend_backward": (
        "(Tensor gradients, Tensor images, Tensor masks, Tensor? background, bool channels_last, "
        "bool[3] wanted) -> (Tensor, Tensor, Tensor)"
    ),
    "mask_penalty": (
        "(Tensor masks, float tv_weight, float l1_weight, float beta, bool root, bool mean) "
        "-> (Tensor, Tensor)"
    ),
    "mask_step_": (
        "(Tensor(a!) masks, Tensor gradients, Tensor(b!) first_moment, Tensor(c!) second_moment, "
        "SymInt step, Tensor? step_tensor, float learning_rate, float beta1, float beta2, "
        "float eps) -> ()"
    ),
    "mask_penalized_step_": (
        "(Tensor(a!) masks, Tensor gradients, Tensor(b!) first_moment, Tensor(c!) second_moment, "
        "SymInt step, Tensor? step_tensor, float learning_rate, float beta1, float beta2, "
        "float eps, float tv_weight, float l1_weight, float beta, bool root, bool mean) -> Tensor"
    ),
    "crop_windows": (
        "(Tensor photo, Tensor boxes, SymInt[2] size, float[] mean, float[] std, "
        "ScalarType dtype, bool channels_last) -> Tensor"
    ),
    "window_heatmap": "(Tensor scores, Tensor boxes, SymInt[2] size) -> Tensor",
}


_CHECKS: dict[str, Any] = {
    "cam_project": _cam_checks.check_cam_project,
    "cam_render": _cam_checks.check_cam_render,
    "cam_overlay": _cam_checks.check_cam_overlay,
    "mask_blend": _mask_checks.check_mask_blend,
    "mask_blend_backward": _mask_checks.check_mask_blend_backward,
    "mask_penalty": _mask_checks.check_mask_penalty,
    "mask_step_": _mask_checks.check_mask_step_,
    "mask_penalized_step_": _mask_checks.check_mask_penalized_step_,
    "crop_windows": _windows_checks.check_crop_windows,
    "window_heatmap": _windows_checks.check_window_heatmap,
}


def _checked(check: Any, plain: Any, kernel: Any = None) -> Any:
    """The kernel, or the plain function where there is none and for float64, on what fits."""

    def implementation(*arguments: Any) -> Any:
        arguments = check(*arguments)
        no_kernel = kernel is None or arguments[0].dtype == torch.float64
        return (plain if no_kernel else kernel)(*arguments)

    return implementation


_KERNELS = {
    "cam_project": (_cam_native.project, reference.cam_project),
    "cam_render": (_cam_native.render, reference.cam_render),
    "cam_overlay": (_cam_native.overlay, reference.cam_overlay),
    "mask_blend": (_mask_native.blend, reference.mask_blend),
    "mask_blend_backward": (_mask_native.blend_backward, reference.mask_blend_backward),
    "mask_penalty": (_mask_native.penalty, reference.mask_penalty_and_slopes),
    "mask_step_": (_mask_native.step_, reference.mask_step_),
    "mask_penalized_step_": (_mask_native.penalized_step_, reference.mask_penalized_step_),
    "crop_windows": (_windows_native.crop, reference.crop_windows),
    "window_heatmap": (_windows_native.heatmap, reference.window_heatmap),
}

for _name, _schema in _SCHEMAS.items():
    _library.define(_name + _schema, tags=(torch.Tag.pt2_compliant_tag,))
    _kernel, _plain = _KERNELS[_name]
    for _key in ("CPU", "CUDA"):
        _library.impl(_name, _checked(_CHECKS[_name], _plain, _kernel), _key)
    _library.impl(_name, _checked(_CHECKS[_name], _plain), "CompositeExplicitAutograd")
    # What torch would do for views with the other sign in memory, it does badly where tensors
    # change or are None. So they come to the checks.
    _library.impl(_name, torch.library.fallthrough_kernel, "Negative")


# ---- shapes without data ----


def _maps_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _fake_project(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    shape = (features.shape[0], weights.shape[1], *features.shape[2:])
    return features.new_empty(shape, dtype=_maps_dtype(features.dtype))


def _fake_render(
    maps: torch.Tensor, size: list[int], relu: bool, minmax: bool, as_uint8: bool
) -> torch.Tensor:
    dtype = torch.uint8 if as_uint8 else _maps_dtype(maps.dtype)
    return maps.new_empty((*maps.shape[:-2], *size), dtype=dtype)


def _fake_overlay(photos: torch.Tensor, *_: Any) -> torch.Tensor:
    return photos.new_empty(photos.shape)


def _fake_blend(
    images: torch.Tensor, masks: torch.Tensor, background: torch.Tensor | None, channels_last: bool
) -> torch.Tensor:
    return torch.empty(
        (masks.shape[0], *images.shape[1:]),
        dtype=images.dtype,
        device=images.device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )


def _fake_blend_backward(
    gradients: torch.Tensor,
    images: torch.Tensor,
    masks: torch.Tensor,
    background: torch.Tensor | None,
    channels_last: bool,
    wanted: list[bool],
) -> tuple[torch.Tensor, ...]:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    found = [images.new_empty(0) for _ in range(3)]
    if wanted[0]:
        found[0] = torch.empty_like(images, memory_format=layout)
    if wanted[1]:
        found[1] = torch.empty_like(masks, memory_format=torch.contiguous_format)
    if wanted[2] and background is not None:
        found[2] = torch.empty_like(background, memory_format=layout)
    return tuple(found)


def _fake_penalty(masks: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    slopes = torch.empty_like(masks, memory_format=torch.contiguous_format)
    return masks.new_empty(masks.shape[0]), slopes


def _fake_step(*_: Any) -> None:
    """Changes values only."""


def _fake_penalized_step(masks: torch.Tensor, *_: Any) -> torch.Tensor:
    return masks.new_empty(masks.shape[0])


def _fake_crop(
    photo: torch.Tensor,
    boxes: torch.Tensor,
    size: list[int],
    mean: list[float],
    std: list[float],
    dtype: torch.dtype,
    channels_last: bool,
) -> torch.Tensor:
    return torch.empty(
        (boxes.shape[0], photo.shape[0], *size),
        dtype=dtype,
        device=photo.device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )


def _fake_heatmap(scores: torch.Tensor, boxes: torch.Tensor, size: list[int]) -> torch.Tensor:
    return scores.new_empty((*scores.shape[:-1], *size), dtype=_maps_dtype(scores.dtype))


_FAKES: dict[str, Any] = {
    "cam_project": _fake_project,
    "cam_render": _fake_render,
    "cam_overlay": _fake_overlay,
    "mask_blend": _fake_blend,
    "mask_blend_backward": _fake_blend_backward,
    "mask_penalty": _fake_penalty,
    "mask_step_": _fake_step,
    "mask_penalized_step_": _fake_penalized_step,
    "crop_windows": _fake_crop,
    "window_heatmap": _fake_heatmap,
}
for _name, _fake in _FAKES.items():
    torch.library.register_fake(f"pyxai::{_name}", _checked(_CHECKS[_name], _fake), lib=_library)


# ---- gradients ----


def _save_projection(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _project_backward(ctx: Any, grad_maps: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    features, weights = ctx.saved_tensors
    grad_features = grad_weights = None
    if ctx.needs_input_grad[0]:
        expanded = weights.to(grad_maps.dtype).expand(features.shape[0], -1, -1)
        grad_features = torch.einsum("nthw,ntc->nchw", grad_maps, expanded).to(features.dtype)
    if ctx.needs_input_grad[1]:
        per_image = torch.einsum("nthw,nchw->ntc", grad_maps, features.to(grad_maps.dtype))
        grad_weights = per_image.sum_to_size(weights.shape).to(weights.dtype)
    return grad_features, grad_weights


def _save_rendering(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    maps, ctx.size, ctx.relu, ctx.minmax, ctx.as_uint8 = inputs
    ctx.save_for_backward(maps)
    if ctx.as_uint8:
        ctx.mark_non_differentiable(output)


def _render_backward(ctx: Any, grad_out: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    # The derivative of the reference: the maps are small, so running it again costs little.
    if ctx.as_uint8:
        return None, None, None, None, None

    def plain(maps: torch.Tensor) -> torch.Tensor:
        return reference.cam_render(maps, tuple(ctx.size), ctx.relu, ctx.minmax, as_uint8=False)

    return *plain_gradients(plain, ctx.saved_tensors, [True], grad_out), *(None,) * 4


def _save_blend(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.channels_last = inputs[3]


def _blend_backward(ctx: Any, grad_out: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    images, masks, background = ctx.saved_tensors
    wanted = list(ctx.needs_input_grad[:3])
    if are_differentiated():
        plain = partial(reference.mask_blend, channels_last=ctx.channels_last)
        return *plain_gradients(plain, ctx.saved_tensors, wanted, grad_out), None
    found = torch.ops.pyxai.mask_blend_backward(
        grad_out.resolve_neg(), images, masks, background, ctx.channels_last, wanted
    )
    return *(each if want else None for each, want in zip(found, wanted, strict=True)), None


def _save_penalty(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    slopes = output[1]
    masks, *ctx.numbers = inputs
    ctx.save_for_backward(masks, slopes)
    ctx.mark_non_differentiable(slopes)


def _penalty_backward(
    ctx: Any, grad_costs: torch.Tensor, grad_slopes: torch.Tensor
) -> tuple[torch.Tensor | None, ...]:
    masks, slopes = ctx.saved_tensors
    if are_differentiated():

        def plain(masks: torch.Tensor) -> torch.Tensor:
            return reference.mask_penalty(masks, *ctx.numbers)

        return *plain_gradients(plain, [masks], [True], grad_costs), *(None,) * 5
    return grad_costs[:, None, None] * slopes, *(None,) * 5


def _save_crop(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.options = inputs[2:]


def _crop_backward(ctx: Any, grad_out: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    photo, boxes = ctx.saved_tensors

    def plain(photo: torch.Tensor) -> torch.Tensor:
        return reference.crop_windows(photo, boxes.to(photo.device), *ctx.options)

    return *plain_gradients(plain, [photo], [True], grad_out), *(None,) * 6


def _save_heatmap(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    scores, boxes, ctx.size = inputs
    ctx.save_for_backward(scores, boxes)


def _heatmap_backward(ctx: Any, grad_out: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    scores, boxes = ctx.saved_tensors

    def plain(scores: torch.Tensor) -> torch.Tensor:
        return reference.window_heatmap(scores, boxes.to(scores.device), tuple(ctx.size))

    return *plain_gradients(plain, [scores], [True], grad_out), None, None


torch.library.register_autograd(
    "pyxai::cam_project", _project_backward, setup_context=_save_projection, lib=_library
)
torch.library.register_autograd(
    "pyxai::cam_render", _render_backward, setup_context=_save_rendering, lib=_library
)
torch.library.register_autograd(
    "pyxai::mask_blend", _blend_backward, setup_context=_save_blend, lib=_library
)
torch.library.register_autograd(
    "pyxai::mask_penalty", _penalty_backward, setup_context=_save_penalty, lib=_library
)
torch.library.register_autograd(
    "pyxai::crop_windows", _crop_backward, setup_context=_save_crop, lib=_library
)
torch.library.register_autograd(
    "pyxai::window_heatmap", _heatmap_backward, setup_context=_save_heatmap, lib=_library
)
