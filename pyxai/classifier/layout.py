"""Where the positions of an image are in a layer's output: a map, its transpose, or tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from pyxai._errors import argument_error

_MOST_PREFIX = 16  # class, distillation and register tokens before the patches
_MOST_PREFIX_AFTER_HALVING = 4  # networks that merge patches keep few tokens beside them


@dataclass(frozen=True)
class Layout:
    """How a layer's output holds features `[N, C, h, w]`.

    Attributes:
        kind: "nchw", `[N, C, h, w]`; "nhwc", `[N, h, w, C]`; "tokens", `[N, prefix + h * w, C]`,
            row by row.
        height: h.
        width: w.
        prefix: the number of tokens before the patches (class and register tokens).
        batch_first: for tokens; False for `[prefix + h * w, N, C]`, the default of
            `nn.TransformerEncoder`.
    """

    kind: Literal["nchw", "nhwc", "tokens"]
    height: int
    width: int
    prefix: int = 0
    batch_first: bool = True

    @property
    def positions(self) -> int:
        """The number of positions, h * w."""
        return self.height * self.width

    def features(self, tensor: torch.Tensor) -> torch.Tensor:
        """The layer's raw output, or its gradient, as `[N, C, h, w]`: a view, without the prefix.

        Raises:
            ValueError: the tensor does not have this layout.
        """
        if self.kind != "tokens":
            nchw = tensor.movedim(-1, 1) if self.kind == "nhwc" and tensor.ndim == 4 else tensor
            if nchw.ndim == 4 and nchw.shape[2:] == (self.height, self.width):
                return nchw
        elif tensor.ndim == 3:
            tokens = tensor if self.batch_first else tensor.transpose(0, 1)
            if tokens.shape[1] == self.prefix + self.positions:
                patches = tokens[:, self.prefix :].transpose(1, 2)
                return patches.reshape(*patches.shape[:2], self.height, self.width)
        raise argument_error("tensor", f"one of the form {self._form()}", tensor)

    def restore(self, features: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The inverse of `features`: a raw output that holds these features.

        Args:
            features: `[N, C, h, w]`.
            like: a raw output of the layer, for N images or for one; the prefix tokens are taken
                from it.

        Returns:
            A tensor in the form of the layer's output. Gradients reach both arguments.

        Raises:
            ValueError: the features do not have this layout, or `like` has another number of
                images.
        """
        if features.ndim != 4 or features.shape[2:] != (self.height, self.width):
            expected = f"[N, C, {self.height}, {self.width}]"
            raise argument_error("features", expected, features)
        if self.kind == "nchw":
            return features
        if self.kind == "nhwc":
            return features.movedim(1, -1)
        tokens = features.flatten(2).transpose(1, 2)
        if self.prefix:
            before = like if self.batch_first else like.transpose(0, 1)
            images = len(tokens)
            if before.ndim != 3 or len(before) not in (1, images):
                raise argument_error("like", f"{self._form()} for 1 or {images} images", like)
            before = before[:, : self.prefix].to(tokens).expand(images, -1, -1)
            tokens = torch.cat([before, tokens], dim=1)
        return tokens if self.batch_first else tokens.transpose(0, 1)

    def _form(self) -> str:
        if self.kind == "nchw":
            return f"[N, C, {self.height}, {self.width}]"
        if self.kind == "nhwc":
            return f"[N, {self.height}, {self.width}, C]"
        tokens = self.prefix + self.positions
        return f"[N, {tokens}, C]" if self.batch_first else f"[{tokens}, N, C]"


def find_layout(
    shape: Sequence[int],
    image_size: tuple[int, int],
    *,
    prefix: int | None = None,
) -> Layout | None:
    """The layout of an output, from its shape and that of the image.

    `[N, a, b, c]` is a map `[N, C, h, w]` unless only `[N, h, w, C]` has the aspect of the image.
    `[N, T, C]` is tokens, if all but the first few make a grid with the aspect of the image.

    Args:
        shape: of the layer's output.
        image_size: height and width of the model's input.
        prefix: the number of prefix tokens, where it is known.

    Returns:
        The layout, None if nothing fits: attention `[N, heads, T, d]`, windows, vectors.
    """
    if len(shape) not in (3, 4) or 0 in shape[1:]:
        return None
    if len(shape) == 3:
        return _tokens_anywhere(shape[1], image_size, _prefixes(_MOST_PREFIX, prefix))
    _, first, second, third = shape
    if _fits(second, third, image_size):
        return Layout("nchw", second, third)
    if _fits(first, second, image_size):
        return Layout("nhwc", first, second)
    return None


def find_layout_on(
    shape: Sequence[int], grids: Iterable[tuple[int, int]], *, prefix: int | None = None
) -> Layout | None:
    """The layout of an output on one of these grids, or on one of them halved several times.

    Tokens get the smallest prefix, then the first and finest grid that they fit.
    """
    if len(shape) not in (3, 4) or 0 in shape[1:]:
        return None
    levels = [each for grid in grids for each in enumerate(_halvings(grid))]
    if len(shape) == 4:
        _, first, second, third = shape
        if any(second in heights and third in widths for _, (heights, widths) in levels):
            return Layout("nchw", second, third)
        if any(first in heights and second in widths for _, (heights, widths) in levels):
            return Layout("nhwc", first, second)
        return None
    best: Layout | None = None
    for level, (heights, widths) in levels:
        most = _MOST_PREFIX_AFTER_HALVING if level else _MOST_PREFIX
        for height in heights:
            for width in widths:
                before = shape[1] - height * width
                if before not in _prefixes(most, prefix) or (before and height * width == 1):
                    continue
                if best is None or before < best.prefix:
                    best = Layout("tokens", height, width, before)
    return best


def _prefixes(most: int, known: int | None) -> Sequence[int]:
    return range(most + 1) if known is None else [known]


def _halvings(grid: tuple[int, int]) -> Iterator[tuple[set[int], set[int]]]:
    """The possible heights and widths after 0, 1, 2, ... halvings, rounded down or up."""
    heights, widths = {grid[0]}, {grid[1]}
    while True:
        yield heights, widths
        if max(heights) == 1 and max(widths) == 1:
            return
        heights, widths = (
            {half for n in sizes for half in (n // 2, -(-n // 2)) if half}
            for sizes in (heights, widths)
        )


def _fits(height: int, width: int, image_size: tuple[int, int]) -> bool:
    """Whether one stride gives this height and width, each rounded up or down."""
    rows, columns = image_size
    if height > rows or width > columns:
        return False
    if (rows <= columns and height > width) or (rows >= columns and height < width):
        return False  # a square image has square grids, whatever is rounded
    least = max(rows / (height + 1), columns / (width + 1))
    most = min(
        rows / (height - 1) if height > 1 else math.inf,
        columns / (width - 1) if width > 1 else math.inf,
    )
    return least < most


def _tokens_anywhere(
    tokens: int, image_size: tuple[int, int], prefixes: Iterable[int]
) -> Layout | None:
    """Tokens on any grid with the aspect of the image.

    The smallest prefix wins. Where the image is not square, grids that fit after rounding are too
    many to tell anything: those of a whole stride come first.
    """
    rows, columns = image_size
    found: list[tuple[tuple[bool, int, float], Layout]] = []
    for prefix in prefixes:
        patches = tokens - prefix
        for short in range(1, math.isqrt(max(patches, 0)) + 1):
            if patches % short:
                continue
            for height, width in {(short, patches // short), (patches // short, short)}:
                if not _fits(height, width, image_size) or (prefix and patches == 1):
                    continue
                whole = rows % height == 0 and rows * width == columns * height
                off = abs(math.log(rows * width / (columns * height)))
                key = (rows != columns and not whole, prefix, off)
                found.append((key, Layout("tokens", height, width, prefix)))
    return min(found, key=lambda each: each[0])[1] if found else None


def layout_at_size(
    known: Layout, examined: tuple[int, ...], shape: Sequence[int], size: tuple[int, int]
) -> Layout | None:
    """The layout of a layer that is known from an image of another size.

    Args:
        known: the layout for the size that was examined.
        examined: that size, (H, W).
        shape: of the layer's output now.
        size: of the image now, (H, W).
    """
    if known.kind == "nchw":
        return Layout("nchw", shape[2], shape[3]) if len(shape) == 4 else None
    if known.kind == "nhwc":
        return Layout("nhwc", shape[1], shape[2]) if len(shape) == 4 else None
    if len(shape) != 3:
        return None
    tokens = shape[1 if known.batch_first else 0]
    # The stride is that of the size examined, unless the model resizes its input by itself.
    rows, columns = (
        {new * old // whole, -(-new * old // whole)}
        for old, new, whole in zip((known.height, known.width), size, examined, strict=True)
    )
    for height in rows:
        for width in columns:
            if tokens == known.prefix + height * width:
                return replace(known, height=height, width=width)
    if tokens == known.prefix + known.positions:
        return known
    found = find_layout((1, tokens, 1), size, prefix=known.prefix)
    return None if found is None else replace(found, batch_first=known.batch_first)
