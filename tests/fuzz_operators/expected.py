"""What an accepted call should have given: by the plain references, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fuzz_operators.operators import Arguments
from pyxai.ops import reference

# A tensor of the call, or of its result; what it should be; how far it may be from that. Where that
# is infinite, anything will do: what float32 cannot hold, or rounds by as much as it is.
Judged = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
_HELD = 1e37


def _double(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.double()
    return value


def _allowed(bound: torch.Tensor, tolerance: float, least: float = 1e-37) -> torch.Tensor:
    """So much of what the greatest terms of a sum add up to; NaN where it is NaN."""
    allowed = tolerance * bound + least
    return torch.where(bound > _HELD, torch.inf, allowed)


def project(given: Arguments, result: torch.Tensor) -> list[Judged]:
    """Of `cam_project`."""
    features, weights = given["features"].double(), given["weights"].float().double()
    maps = reference.cam_project(features, weights)
    bound = reference.cam_project(features.abs(), weights.abs())
    return [(result, maps, _allowed(bound, 1e-5))]


def render(given: Arguments, result: torch.Tensor) -> list[Judged]:
    """Of `cam_render`."""
    maps = given["maps"]
    size, options = tuple(given["size"]), [given[name] for name in ("relu", "minmax", "as_uint8")]
    pictures = reference.cam_render(maps, size, *options)
    finite = torch.where(maps.isfinite(), maps, 0).double()
    largest = finite.abs().amax((-2, -1), keepdim=True)
    span = finite.amax((-2, -1), keepdim=True) - finite.amin((-2, -1), keepdim=True)
    if options[1]:
        unsure = (largest > _HELD) | (span < 1e-5 * largest) | (span < 1e-30)
        allowed = torch.where(unsure & (span > 0), torch.inf, 2e-5)
    else:
        allowed = _allowed(largest, 2e-5)
    if options[2]:
        allowed = torch.where(allowed > 1, torch.inf, 1.0 + 255 * allowed)
    return [(result, pictures, allowed.expand(pictures.shape))]


def project_render(given: Arguments, result: tuple[torch.Tensor, torch.Tensor]) -> list[Judged]:
    """Of `cam_project_render`: the pictures are judged by the maps that came with them."""
    pictures, maps = result
    return [*project(given, maps), *render({**given, "maps": maps}, pictures)]


def overlay(given: Arguments, result: torch.Tensor) -> list[Judged]:
    """Of `cam_overlay`; neighbouring colors are to be much alike."""
    maps = given["maps"]
    photos = reference.cam_overlay(**given)
    if not photos.numel():
        return [(result, photos, torch.zeros(photos.shape))]
    flat = render(
        {"maps": maps, "size": photos.shape[1:3], "as_uint8": True}
        | {name: given[name] for name in ("relu", "minmax")},
        torch.empty(0),
    )[0][2]
    steps = given["colors"].to(torch.int32).diff(dim=0).abs().max().item()
    return [(result, photos, (2 + 2 * steps * flat)[..., None].expand(photos.shape))]


def blend(given: Arguments, result: torch.Tensor) -> list[Judged]:
    """Of `mask_blend`."""
    double = {name: _double(each) for name, each in given.items()}
    behind = double["background"]
    largest = _largest(double["masks"])
    bound = double["images"].abs() * largest
    bound = bound + (0 if behind is None else behind.abs() * (1 + largest))
    tolerance = torch.finfo(given["images"].dtype).eps + 3e-5
    allowed = _allowed(bound, tolerance, 1e-7)
    allowed = torch.where(bound > torch.finfo(given["images"].dtype).max / 2, torch.inf, allowed)
    blended = reference.mask_blend(**double)
    return [(result, blended, _where_finite(allowed).expand(blended.shape))]


def _largest(masks: torch.Tensor) -> torch.Tensor:
    return masks.abs().amax((1, 2))[:, None, None, None]


def _where_finite(allowed: torch.Tensor) -> torch.Tensor:
    """Contracts say what becomes of NaN, tests try that; resizing spreads it differently."""
    return torch.where(allowed.isnan(), torch.inf, allowed)


def blend_backward(given: Arguments, result: tuple[torch.Tensor, ...]) -> list[Judged]:
    """Of `mask_blend_backward`."""
    double = {name: _double(each) for name, each in given.items()}
    found = reference.mask_blend_backward(**double)
    slopes, behind = double["gradients"].abs(), double["background"]
    largest = 1 + _largest(double["masks"])
    shown = double["images"].abs() + (0 if behind is None else behind.abs())
    tolerance = 4 * torch.finfo(given["images"].dtype).eps + 1e-4
    judged = []
    for one, wanted in zip(result, found, strict=True):
        # What any element is at most a sum of.
        terms = slopes * shown if one.ndim == 3 else slopes * largest
        most = terms.sum() if terms.numel() else torch.zeros((), dtype=torch.float64)
        limit = torch.finfo(one.dtype).max / 2
        most = most if most < limit else torch.tensor(torch.inf)
        allowed = _where_finite(_allowed(most.double(), tolerance, 1e-6))
        judged.append((one, wanted, allowed.expand(wanted.shape)))
    return judged


def penalty(given: Arguments, result: Any) -> list[Judged]:
    """Of `mask_penalty`: the costs and, from the operator, the slopes."""
    double = {name: _double(each) for name, each in given.items()}
    costs, slopes = reference.mask_penalty_and_slopes(**double)
    masks, weights = double["masks"], given["tv_weight"] + given["l1_weight"]
    cells = masks.shape[1:].numel()
    few = 1 if given["mean"] else cells
    # Beyond those cells that masks have, tests look at the powers.
    fit = (masks.abs() <= 4).all((1, 2)) & (given["beta"] < 8)
    near = 3e-5 * (costs.abs() + weights * few) + 1e-37
    near = torch.where(fit & (costs < _HELD), near, torch.inf)
    judged = [(result[0] if isinstance(result, tuple) else result, costs, near)]
    if isinstance(result, tuple):
        beta = min(given["beta"], 8)
        steep = min(weights * beta * 16**beta * (1 / cells if given["mean"] else 1), _HELD)
        near = torch.where(fit, 1e-4 * steep + 1e-37, torch.inf)[:, None, None]
        near = torch.where(slopes.abs() < _HELD, near, torch.inf)
        judged.append((result[1], slopes, near))
    return judged


def step(given: Arguments, result: Arguments) -> list[Judged]:
    """Of `mask_step_`: masks and moments after it."""
    return _stepped(given, result, given["gradients"].double())


def penalized_step(given: Arguments, result: Arguments) -> list[Judged]:
    """Of `mask_penalized_step_`: the same, with the slopes of the penalty in the gradient."""
    names = ("tv_weight", "l1_weight", "beta", "root", "mean")
    numbers = {name: given[name] for name in names}
    slopes = reference.mask_penalty_and_slopes(given["masks"].double(), **numbers)[1]
    known = {"masks": given["masks"], **numbers}
    return [
        *penalty(known, result["result"]),
        *_stepped(given, result, given["gradients"].double() + slopes),
    ]


def _stepped(given: Arguments, result: Arguments, gradients: torch.Tensor) -> list[Judged]:
    masks, first, second = (
        given[name].double().clone() for name in ("masks", "first_moment", "second_moment")
    )
    numbers = {name: given[name] for name in ("learning_rate", "beta1", "beta2", "eps")}
    held = given["step_tensor"]
    number = float(given["step"] if held is None else held)
    # Slopes of the penalty are known to a part of what the weights are; those of a mask that is not
    # finite mean nothing.
    rough = torch.full_like(masks, 1e-4 * (given.get("tv_weight", 0) + given.get("l1_weight", 0)))
    if "beta" in given:
        if given["beta"] >= 4 or (masks.abs() > 4).any():
            rough.fill_(torch.inf)
        rough[~masks.isfinite().all((1, 2))] = torch.inf
    pull = first.abs() + gradients.abs()
    squared, unsure = second.abs() + gradients**2, rough * (2 * gradients.abs() + rough)
    reference.mask_step_(masks, gradients, first, second, given["step"], held, **numbers)
    rate = given["learning_rate"] / (1 - given["beta1"] ** number)
    root = (second / (1 - given["beta2"] ** number)).sqrt() + given["eps"]
    # How far the roots may be off, where squares are next to nothing.
    sure = second > 1e-3 * squared + unsure
    sure &= squared < _HELD
    moved = torch.where(sure, rate * (pull + rough) / root, torch.inf if rate else 0.0)
    # A rate of 0 times what float32 cannot hold is not 0.
    fits = (pull + rough < _HELD * root.clamp(max=1)) & (squared + unsure < _HELD) & (root > 1e-36)
    moved = torch.where(fits, moved, torch.inf)
    near = 1e-3 * (1 + moved) if "beta" in given else 1e-4 * (1 + moved)
    return [
        (result["masks"], masks, _where_finite(_allowed(near, 1.0))),
        (result["first_moment"], first, _where_finite(_allowed(pull + 1e4 * rough, 2e-4))),
        (result["second_moment"], second, _where_finite(_allowed(squared + 1e3 * unsure, 1e-3))),
    ]


def crop(given: Arguments, result: torch.Tensor) -> list[Judged]:
    """Of `crop_windows`."""
    photo = given["photo"]
    values = photo if photo.dtype == torch.uint8 else photo.double()
    wanted = reference.crop_windows(**{**given, "photo": values, "dtype": torch.float64})
    whole = photo.double() / (255 if photo.dtype == torch.uint8 else 1)
    most = whole.abs().amax((1, 2))
    if given["mean"]:
        most = most + torch.tensor(given["mean"], dtype=torch.float64).abs()
    if given["std"]:
        most = most / torch.tensor(given["std"], dtype=torch.float64)
    most = torch.where(most > torch.finfo(given["dtype"]).max / 2, torch.inf, most)
    tolerance = 1e-6 * max(photo.shape) + torch.finfo(given["dtype"]).eps
    allowed = _where_finite(_allowed(most, tolerance, 1e-7))[:, None, None]
    return [(result, wanted, allowed.expand(wanted.shape))]


def heatmap(given: Arguments, result: torch.Tensor) -> list[Judged]:
    """Of `window_heatmap`."""
    scores = given["scores"].double()
    fill = torch.tensor(float(given["fill"]), dtype=given["scores"].dtype).item()
    maps = reference.window_heatmap(scores, given["boxes"], tuple(given["size"]), fill)
    most = scores.abs().amax(-1) if scores.shape[-1] else scores.new_zeros(scores.shape[:-1])
    allowed = (2e-6 * most + 1e-44)[..., None, None]
    return [(result, maps, allowed.expand(maps.shape))]


EXPECTED: dict[str, Callable[[Arguments, Any], list[Judged]]] = {
    "cam_project": project,
    "cam_render": render,
    "cam_project_render": project_render,
    "cam_overlay": overlay,
    "mask_blend": blend,
    "mask_blend_backward": blend_backward,
    "mask_penalty": penalty,
    "mask_step_": step,
    "mask_penalized_step_": penalized_step,
    "crop_windows": crop,
    "window_heatmap": heatmap,
}


def difference(found: torch.Tensor, wanted: torch.Tensor, allowed: torch.Tensor) -> str | None:
    """What is wrong, in words."""
    if found.shape != wanted.shape:
        return f"shape {list(found.shape)} in place of {list(wanted.shape)}"
    found, wanted = found.detach().double(), wanted.double()
    both = (found.isnan() & wanted.isnan()) | (found == wanted)
    wrong = ~(both | ((found - wanted).abs() <= allowed) | (allowed == torch.inf))
    if not wrong.any():
        return None
    first = tuple(wrong.nonzero()[0].tolist())
    count = f"{int(wrong.sum())} of {wrong.numel()}"
    return f"{count} wrong, at {list(first)} {found[first]} in place of {wanted[first]}"
