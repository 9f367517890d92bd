"""What was learned: masks, what they hide, and what the model says of it before and after."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from pyxai._errors import argument_error
from pyxai._results import Rows, Table, described, plain
from pyxai.attribution.masks.blur import gaussian_blur
from pyxai.classifier.reading import Reading
from pyxai.draw.inputs import shown_pictures
from pyxai.draw.masks import mask_figure
from pyxai.draw.scale import with_scale
from pyxai.images import Preprocessing
from pyxai.images.errors import printable
from pyxai.ops import cam_render, mask_blend

_SHOWN = 8  # images whose pictures are kept for the figure
_ACROSS = 4  # masks of one image in it

Pictures: TypeAlias = "tuple[tuple[Image.Image, Image.Image], ...]"
"""Of the first images: each, and what is shown where all of it is hidden."""


@dataclass(frozen=True)
class Background:
    """What is shown where a mask is 0.

    Attributes:
        picture: `[N or 1, C, H, W]` or colours `[N or 1, C, 1, 1]`; None, the blurred image.
        sigma: standard deviation of the blur in pixels.
        kernel: pixels a side of the blur, odd.
    """

    picture: torch.Tensor | None = None
    sigma: float = 5.0
    kernel: int = 11

    def of(self, images: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """The background `[M, C, H or 1, W or 1]` of images `[M, C, H, W]`, the `places`-th."""
        if self.picture is None:
            return gaussian_blur(images, self.sigma, self.kernel)
        chosen = self.picture
        if len(chosen) > 1:
            chosen = chosen[places.to(chosen.device)]
        return chosen.to(images).expand(len(images), -1, -1, -1)


@dataclass(frozen=True, eq=False, repr=False)
class LearnedMasks(Table):
    """Masks over N images, of one target each (`[N, ...]`) or of k (`[N, k, ...]`).

    All tensors are without a graph, on the model's device.

    Attributes:
        mask: `[N, h, w]` float32 in [0, 1]: 1 shows the image, 0 the background.
        before: the target's probability on the images, `[N]` float32.
        after: the same on the perturbed images, `[N]`.
        losses: `[steps, N]` float32; NaN where a mask had stopped.
        steps: how many each mask was learned for, `[N]` int64.
        classes: the targets' indices, `[N]` int64.
        size: (height, width) of the images.
        class_names: one name a class, or None.
        background: what is shown where masks are 0.
        left: 1 - before and 1 - after, `[2, N]` float64, exact where probabilities round to 1.
        pictures: the first eight images and their backgrounds, for the figure.
    """

    mask: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor
    losses: torch.Tensor
    steps: torch.Tensor
    classes: torch.Tensor
    size: tuple[int, int]
    class_names: tuple[str, ...] | None
    background: Background
    left: torch.Tensor
    pictures: Pictures = field(default=())

    def _facts(self) -> str:
        masks = " × ".join(map(str, self.mask.shape))
        return (
            f"{masks}, probability {float(self.before.mean()):.3f} -> "
            f"{float(self.after.mean()):.3f}, area {float(self.area().mean()):.4f}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The figures of each mask, as `to_pandas()` has them, and what the masks are like."""
        columns, rows = self._table()
        return {
            "size": [*self.size],
            "mask": described(self.mask),
            "masks": [dict(zip(columns, plain(row), strict=True)) for row in rows],
        }

    def figure(self, *, cell: int = 200, colormap: str = "ember") -> Image.Image:
        """The first images: each, what is hidden of it, and what the model sees then.

        Args:
            cell: side of the pictures in pixels.
            colormap: see `pyxai.draw.color_table`.
        """
        several = self.mask.ndim == 4
        count, many = len(self.pictures), min(self.mask.shape[1], _ACROSS) if several else 1
        masks = self.mask[:count, :many] if several else self.mask[:count, None]
        heat = _heatmaps(masks, self.size).cpu()
        rows, captions = [], []
        for row, (photo, background) in enumerate(self.pictures):
            mixed = [_mixed(photo, background, each) for each in heat[row]]
            rows.append((photo, [*zip(heat[row], mixed, strict=True)]))
            texts = [f"images[{row}]"]
            for place in range(many):
                at = (row, place) if several else row
                name = printable(self._name(int(self.classes[at])))
                hidden = float((heat[row, place] > 0.6).float().mean())
                chance = f"{float(self.before[at]):.1%} -> {float(self.after[at]):.1%}"
                texts += [f"hidden: {hidden:.1%}", f"{chance} {name}"]
            captions.append(texts)
        titles = ["image", *["hidden (area above 0.6)", "seen then (probability)"] * many]
        drawn = mask_figure(rows, captions, column_titles=titles, cell=cell, colormap=colormap)
        shown = f"{count} of {len(self.mask)} images"
        shown += f", {many} of {self.mask.shape[1]} targets" if several else ""
        return with_scale(
            drawn,
            title=f"learned masks: {shown}",
            low="0",
            high="1",
            name="how much of a pixel is hidden",
            colormap=colormap,
        )

    @property
    def heatmap(self) -> torch.Tensor:
        """How much of each pixel is hidden, `[N, H, W]` float32 in [0, 1]: 1 - the resized mask."""
        return _heatmaps(self.mask, self.size)

    def improvement(self) -> torch.Tensor:
        """How much of what the probability lacked was gained, `[N]` float64, in percent.

        `100 * (after - before) / (1 - before)`. For the top class (`target=None`) this is the
        paper's measure, and its mean over many images φ (Eq. 8). Negative where the probability
        fell. It is at most 100, but has no lower bound: where `before` is nearly 1, a small loss
        counts much, so look at the median as well as the mean.
        """
        before, after = self.left
        nothing_lacked = torch.where(after > 0, -torch.inf, 0.0)
        return 100 * torch.where(before > 0, 1 - after / before, nothing_lacked)

    def area(self, threshold: float = 0.6) -> torch.Tensor:
        """The share of pixels whose `heatmap` is above a threshold, `[N]` float32."""
        return (self.heatmap > threshold).float().mean(dim=(-2, -1))

    def perturbed(self, images: torch.Tensor) -> torch.Tensor:
        """The images with the background where they are hidden.

        Args:
            images: those the masks were learned for, as the model's input `[N, C, H, W]`
                (of photos: `classifier.to_input(photos)`).

        Returns:
            `[N, C, H, W]`, or `[N, k, C, H, W]` for k targets, in the dtype of the images.

        Raises:
            ValueError: they are of another number or size.
        """
        count = len(self.mask)
        fits = isinstance(images, torch.Tensor) and images.ndim == 4 and len(images) == count
        if not fits or not images.is_floating_point() or images.shape[2:] != self.size:
            expected = f"a float tensor [{count}, C, {self.size[0]}, {self.size[1]}]"
            raise argument_error("images", expected, images)
        masks = self.mask.flatten(0, -3)
        images = images.to(masks.device)
        places = torch.arange(count, device=masks.device, dtype=torch.int64).repeat_interleave(
            len(masks) // count
        )
        chosen = images[places]
        mixed = mask_blend(chosen, masks, self.background.of(chosen, places))
        return mixed.reshape(*self.mask.shape[:-2], *mixed.shape[1:])

    def _table(self) -> Rows:
        columns = ("image", "class", "name", "before", "after", "improvement", "area", "steps")
        values = (self.before, self.after, self.improvement(), self.area(), self.steps)
        many = self.classes.shape[1] if self.classes.ndim == 2 else 1
        rows: list[Any] = []
        for place, index in enumerate(self.classes.flatten().tolist()):
            numbers = (each.flatten()[place].item() for each in values)
            rows.append((place // many, index, self._name(index), *numbers))
        return columns, rows

    def _tensors(self) -> dict[str, torch.Tensor]:
        names = ("mask", "before", "after", "losses", "steps", "classes", "left")
        return {name: getattr(self, name) for name in names}

    def _name(self, index: int) -> str:
        return f"class {index}" if self.class_names is None else self.class_names[index]


def pictures_of(
    inputs: torch.Tensor, background: Background, preprocessing: Preprocessing
) -> Pictures:
    """The first images `[N, C, H, W]` and their backgrounds as pictures of one size."""
    images = inputs[:_SHOWN].detach()
    places = torch.arange(len(images), device=inputs.device, dtype=torch.int64)
    hidden = background.of(images, places).expand_as(images)
    mean, std = preprocessing.mean, preprocessing.std
    pairs = (shown_pictures(each, mean, std) for each in (images, hidden))
    return tuple(zip(*pairs, strict=True))


def _heatmaps(masks: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """How much is hidden by masks `[..., h, w]`, `[..., H, W]`."""
    hidden = (1 - masks).reshape(1, -1, *masks.shape[-2:])
    maps = cam_render(hidden, size, minmax=False)
    return maps.reshape(*masks.shape[:-2], *size)


def _mixed(photo: Image.Image, background: Image.Image, heat: torch.Tensor) -> Image.Image:
    """The photo with the background where it is hidden."""
    cover = Image.fromarray(np.rint(heat.clamp(0, 1).numpy() * 255).astype(np.uint8))
    return Image.composite(background, photo, cover)


def chances(
    logits: torch.Tensor, classes: torch.Tensor, reading: Reading | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of logits `[M, K]`: the targets' probabilities `[M]`, and 1 minus these, both float64."""
    logits = logits.to(torch.float64)
    chosen = classes[:, None]
    if reading is not None and reading.by_sigmoid(logits):
        own = logits.gather(1, chosen)[:, 0]
        return own.sigmoid(), (-own).sigmoid()
    whole = logits.logsumexp(dim=1)
    others = logits.scatter(1, chosen, -torch.inf).logsumexp(dim=1)
    return (logits.gather(1, chosen)[:, 0] - whole).exp(), (others - whole).exp()
