"""The operators as calls that fit: arguments of the schema and of the public function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from fuzz_operators.source import Source
from pyxai import ops

Arguments = dict[str, Any]
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass(frozen=True)
class Operator:
    """One of them.

    Attributes:
        name: that of the public function, of the registered operator, or of both.
        fit: arguments of the schema, by name.
        to_public: the same for the public function; None where there is none.
        to_schema: back again; what is not of the schema (`out`) is left out.
        registered: whether it is in torch.ops.
        written: arguments that change.
        out_shape: of the result that `out` takes, from the arguments of the schema.
        out_dtype: its dtype.
    """

    name: str
    fit: Callable[[Source], Arguments]
    to_public: Callable[[Arguments], Arguments] | None = dict
    to_schema: Callable[[Arguments], Arguments] = dict
    registered: bool = True
    written: tuple[str, ...] = ()
    out_shape: Callable[[Arguments], tuple[int, ...]] | None = None
    out_dtype: Callable[[Arguments], torch.dtype] | None = None

    def call(self, way: str, arguments: Arguments) -> Any:
        """Makes the call; `way` is "public" or "torch.ops"."""
        if way == "public":
            return getattr(ops, self.name)(**arguments)
        return getattr(torch.ops.pyxai, self.name)(*arguments.values())


# ---- class activation maps ----


def _project(source: Source) -> Arguments:
    images, channels, targets = source.length(4), source.length(130), source.length(20)
    features = source.normal(
        images, channels, source.length(), source.length(), dtype=source.one_of(FLOATS)
    )
    shared = source.one_of((1, images))
    return {"features": features, "weights": source.normal(shared, targets, channels)}


def _rendering(source: Source) -> Arguments:
    return {
        "size": (source.length(90), source.length(90)),
        "relu": source.happens(0.5),
        "minmax": source.happens(0.5),
        "as_uint8": source.happens(0.5),
    }


def _render(source: Source) -> Arguments:
    leading = [source.length(4) for _ in range(source.one_of((0, 1, 2)))]
    dtype = source.one_of((torch.float32, torch.float32, torch.float64))
    maps = source.normal(*leading, source.length(), source.length(), dtype=dtype)
    return {"maps": maps, **_rendering(source)}


def _as_dtype(arguments: Arguments) -> Arguments:
    given = dict(arguments)
    given["dtype"] = torch.uint8 if given.pop("as_uint8") else torch.float32
    return given


def _as_uint8(arguments: Arguments) -> Arguments:
    given = {name: each for name, each in arguments.items() if name != "out"}
    given["as_uint8"] = given.pop("dtype", torch.float32) == torch.uint8
    return given


def _picture_dtype(arguments: Arguments) -> torch.dtype:
    return torch.uint8 if arguments["as_uint8"] else torch.float32


def _overlay(source: Source) -> Arguments:
    count, height, width = source.length(4), source.length(90), source.length(90)
    steps = torch.arange(256)
    return {
        "photos": source.integers(0, 256, count, height, width, 3).to(torch.uint8),
        "maps": source.normal(count, source.length(), source.length()),
        "colors": torch.stack((steps, 255 - steps, steps // 2, steps), 1).to(torch.uint8),
        "relu": source.happens(0.5),
        "minmax": source.happens(0.5),
    }


# ---- masks ----


def _blend(source: Source) -> Arguments:
    count, channels = source.length(4), source.one_of((1, 2, 3, 4, 9))
    height, width = source.length(90), source.length(90)
    dtype = source.one_of(FLOATS)
    shapes = (None, (height, width), (1, 1))
    behind = source.one_of(shapes)
    shape = behind and (source.one_of((1, count)), channels, *behind)
    double = dtype == torch.float64 and source.happens(0.5)
    return {
        "images": source.normal(source.one_of((1, count)), channels, height, width, dtype=dtype),
        "masks": source.uniform(
            count,
            source.length(),
            source.length(),
            dtype=torch.float64 if double else torch.float32,
        ),
        "background": source.normal(*shape, dtype=dtype) if shape else None,
        "channels_last": source.happens(0.5),
    }


def _as_memory_format(arguments: Arguments) -> Arguments:
    given = dict(arguments)
    last = given.pop("channels_last")
    given["memory_format"] = torch.channels_last if last else torch.contiguous_format
    return given


def _as_channels_last(arguments: Arguments) -> Arguments:
    given = {name: each for name, each in arguments.items() if name != "out"}
    given["channels_last"] = given.pop("memory_format") == torch.channels_last
    return given


def _blend_backward(source: Source) -> Arguments:
    blended = _blend(source)
    shape = (len(blended["masks"]), *blended["images"].shape[1:])
    gradients = source.normal(*shape, dtype=blended["images"].dtype)
    wanted = [source.happens(0.6) for _ in range(3)]
    return {"gradients": gradients, **blended, "wanted": wanted}


def _penalty_numbers(source: Source) -> Arguments:
    return {
        "tv_weight": source.one_of((0.0, 1.7)),
        "l1_weight": source.one_of((0.0, 3.0)),
        "beta": source.one_of((1.0, 2.0, 3.0, 1.5, 2.7)),
        "root": source.happens(0.5),
        "mean": source.happens(0.5),
    }


def _penalty(source: Source) -> Arguments:
    dtype = source.one_of((torch.float32, torch.float32, torch.float64))
    masks = source.uniform(source.length(4), source.length(), source.length(), dtype=dtype)
    return {"masks": masks, **_penalty_numbers(source)}


def _state(source: Source, axes: int) -> Arguments:
    dtype = source.one_of((torch.float32, torch.float32, torch.float64))
    shape = [source.length(30) for _ in range(axes)]
    step = source.one_of((1, 2, 1000))
    held = torch.tensor([step]) if source.happens(0.3) else None
    return {
        "masks": source.uniform(*shape, dtype=dtype),
        "gradients": source.normal(*shape, dtype=dtype),
        "first_moment": source.normal(*shape, dtype=dtype),
        "second_moment": source.uniform(*shape, dtype=dtype),
        "step": step,
        "step_tensor": held,
        "learning_rate": source.one_of((0.0, 0.1, 1.0)),
        "beta1": source.one_of((0.0, 0.9)),
        "beta2": source.one_of((0.0, 0.999)),
        "eps": source.one_of((1e-8, 1e-3)),
    }


def _step(source: Source) -> Arguments:
    return _state(source, source.one_of((1, 2, 3)))


def _penalized_step(source: Source) -> Arguments:
    return {**_state(source, 3), **_penalty_numbers(source)}


def _one_step(arguments: Arguments) -> Arguments:
    given = dict(arguments)
    held = given.pop("step_tensor")
    if held is not None:
        given["step"] = held
    return given


def _two_steps(arguments: Arguments) -> Arguments:
    given = {}
    for name, each in arguments.items():
        given[name] = each
        if name == "step":
            held = isinstance(each, torch.Tensor)
            given |= {"step": 0 if held else each, "step_tensor": each if held else None}
    return given


# ---- windows ----


def boxes_in(source: Source, count: int, height: int, width: int) -> torch.Tensor:
    """Boxes anywhere in a photo of this size; all of one size at times."""
    alike = source.happens(0.3)
    edges = []
    for length in (width, height):
        if alike:
            side = source.choices.randint(1, length)
            first = source.integers(0, length - side + 1, count)
            second = first + side
        else:
            first = source.integers(0, length, count)
            second = (first + 1 + source.integers(0, length, count)).clamp(max=length)
        edges.append((first, second))
    (x0, x1), (y0, y1) = edges
    return torch.stack((x0, y0, x1, y1), 1)


def _crop(source: Source) -> Arguments:
    channels, height, width = source.one_of((1, 2, 3, 5, 70)), source.length(), source.length(90)
    dtype = source.one_of((torch.uint8, *FLOATS))
    photo = source.integers(0, 256, channels, height, width)
    photo = photo.to(torch.uint8) if dtype == torch.uint8 else (photo / 64 - 2).to(dtype)
    results = FLOATS if dtype == torch.float64 else FLOATS[:3]
    side = source.length()
    boxes = boxes_in(source, source.one_of((0, 1, 2, 9)), height, width)
    return {
        "photo": photo,
        "boxes": boxes,
        "size": (side, source.one_of((side, source.length(90)))),
        "mean": source.uniform(channels).tolist() if source.happens(0.5) else [],
        "std": (source.uniform(channels) + 0.5).tolist() if source.happens(0.5) else [],
        "dtype": source.one_of(results),
        "channels_last": source.happens(0.5),
    }


def _crop_to_public(arguments: Arguments) -> Arguments:
    given = _as_memory_format(arguments)
    return {**given, "mean": given["mean"] or None, "std": given["std"] or None}


def _crop_to_schema(arguments: Arguments) -> Arguments:
    given = _as_channels_last(arguments)
    size, boxes, dtype = given["size"], given["boxes"], given["dtype"]
    if isinstance(size, int):
        size = (size, size)
    if size is None:
        box = [0, 0, 0, 0] if not len(boxes) else boxes[0].tolist()
        size = (box[3] - box[1], box[2] - box[0])
    if dtype is None:
        dtype = given["photo"].dtype
        dtype = torch.float32 if dtype == torch.uint8 else dtype
    mean, std = ([] if each is None else list(each) for each in (given["mean"], given["std"]))
    return {**given, "size": tuple(size), "dtype": dtype, "mean": mean, "std": std}


def _heatmap(source: Source) -> Arguments:
    height, width, count = source.length(70), source.length(70), source.one_of((0, 1, 2, 50))
    leading = source.one_of(((), (1,), (source.length(5),)))
    dtype = source.one_of((torch.float32, torch.float32, torch.float64))
    return {
        "scores": source.normal(*leading, count, dtype=dtype),
        "boxes": boxes_in(source, count, height, width),
        "size": (height, width),
        "fill": source.one_of((math.nan, 0.0, -1.5)),
    }


def _without_out(arguments: Arguments) -> Arguments:
    return {name: each for name, each in arguments.items() if name != "out"}


def _project_size(given: Arguments) -> tuple[int, ...]:
    return (len(given["features"]), given["weights"].shape[1], *given["size"])


OPERATORS = {
    each.name: each
    for each in (
        Operator("cam_project", _project),
        Operator(
            "cam_render",
            _render,
            to_public=_as_dtype,
            to_schema=_as_uint8,
            out_shape=lambda given: (*given["maps"].shape[:-2], *given["size"]),
            out_dtype=_picture_dtype,
        ),
        Operator(
            "cam_project_render",
            lambda source: {**_project(source), **_rendering(source)},
            to_public=_as_dtype,
            to_schema=_as_uint8,
            registered=False,
            out_shape=_project_size,
            out_dtype=_picture_dtype,
        ),
        Operator(
            "cam_overlay",
            _overlay,
            to_schema=_without_out,
            out_shape=lambda given: tuple(given["photos"].shape),
            out_dtype=lambda given: torch.uint8,
        ),
        Operator(
            "mask_blend",
            _blend,
            to_public=_as_memory_format,
            to_schema=_as_channels_last,
            out_shape=lambda given: (len(given["masks"]), *given["images"].shape[1:]),
            out_dtype=lambda given: given["images"].dtype,
        ),
        Operator("mask_blend_backward", _blend_backward, to_public=None),
        Operator("mask_penalty", _penalty),
        Operator(
            "mask_step_",
            _step,
            to_public=_one_step,
            to_schema=_two_steps,
            written=("masks", "first_moment", "second_moment"),
        ),
        Operator(
            "mask_penalized_step_",
            _penalized_step,
            to_public=_one_step,
            to_schema=_two_steps,
            written=("masks", "first_moment", "second_moment"),
        ),
        Operator(
            "crop_windows",
            _crop,
            to_public=_crop_to_public,
            to_schema=_crop_to_schema,
            out_shape=lambda given: (len(given["boxes"]), len(given["photo"]), *given["size"]),
            out_dtype=lambda given: given["dtype"],
        ),
        Operator(
            "window_heatmap",
            _heatmap,
            to_schema=_without_out,
            out_shape=lambda given: (*given["scores"].shape[:-1], *given["size"]),
            out_dtype=lambda given: given["scores"].dtype,
        ),
    )
}
