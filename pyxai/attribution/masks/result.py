"""What was learned: masks, what they hide, and what the model says of it before and after."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from pyxai._errors import argument_error
from pyxai.attribution.masks.blur import gaussian_blur
from pyxai.classifier.reading import Reading
from pyxai.ops import cam_render, mask_blend


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
class LearnedMasks:
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
    left: torch.Tensor = field(repr=False)

    def __repr__(self) -> str:
        masks = " × ".join(map(str, self.mask.shape))
        return (
            f"LearnedMasks({masks}, probability {float(self.before.mean()):.3f} -> "
            f"{float(self.after.mean()):.3f}, area {float(self.area().mean()):.4f})"
        )

    @property
    def heatmap(self) -> torch.Tensor:
        """How much of each pixel is hidden, `[N, H, W]` float32 in [0, 1]: 1 - the resized mask."""
        hidden = (1 - self.mask).reshape(1, -1, *self.mask.shape[-2:])
        maps = cam_render(hidden, self.size, minmax=False)
        return maps.reshape(*self.mask.shape[:-2], *self.size)

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
