"""The game: regions of an image are shown or hidden, and the model says what it sees."""

from __future__ import annotations

import torch

from pyxai.attribution.shap.model import Explained
from pyxai.ops import mask_blend


class Game:
    """Outputs of images of which some cells are shown, and the background in place of the others.

    Attributes:
        evaluations: forward passes so far, for each image.
    """

    def __init__(self, model: Explained, background: torch.Tensor, cells: torch.Tensor) -> None:
        """Nothing is evaluated yet.

        Args:
            model: what is explained.
            background: `[N or 1, C, H or 1, W or 1]`.
            cells: `[H, W]` int64, the cell of each pixel.
        """
        self._model = model
        self._background = background.to(model.images)
        self._cells = cells.to(model.images.device)
        self.evaluations = torch.zeros(len(model.images), dtype=torch.int64, device="cpu")

    def play(self, shown: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """The outputs `[M, k]` float64 of coalitions.

        Args:
            shown: `[M, cells]` bool, which cells are shown.
            image: `[M]` int64, of which image.
        """
        self.evaluations += image.cpu().bincount(minlength=len(self.evaluations))
        model, found = self._model, []
        for some in torch.split(
            torch.arange(len(shown), dtype=torch.int64, device="cpu"), model.batch_size
        ):
            places = image[some].to(model.images.device)
            masks = shown[some].to(model.images.device, torch.float32)[:, self._cells]
            background = self._background
            if len(background) > 1:
                background = background[places]
            mixed = mask_blend(model.images[places], masks, background, memory_format=model.layout)
            found.append(model.of(mixed, places).double())
        return torch.cat(found).cpu()

    def hidden(self) -> torch.Tensor:
        """The outputs `[N, k]` with nothing shown."""
        count = len(self._model.images)
        cells = int(self._cells.max()) + 1
        return self.play(
            torch.zeros(count, cells, dtype=torch.bool, device="cpu"),
            torch.arange(count, dtype=torch.int64, device="cpu"),
        )
