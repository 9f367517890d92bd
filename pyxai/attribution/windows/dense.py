"""One forward pass over the whole photo; a window's logits are the mean of the class maps there."""

from __future__ import annotations

import torch

from pyxai._errors import argument_error
from pyxai.attribution.cam.evidence import CamEvidence, gather
from pyxai.attribution.windows.exhaustive import check_finite
from pyxai.attribution.windows.grid import Grid
from pyxai.attribution.windows.pixels import Pixels
from pyxai.attribution.windows.refusals import taking_whole_photo
from pyxai.classifier import Examined, LinearHead


class DenseMode:
    """Logits of windows by mode "dense"; windows of one scale share the forward pass."""

    def __init__(self, windows: Examined, pixels: Pixels) -> None:
        self._windows = windows
        self._pixels = pixels
        self._known: dict[tuple[int, int], CamEvidence] = {}

    def __call__(self, grid: Grid) -> tuple[torch.Tensor, str]:
        """The logits `[n, K]` float32 of the grid's windows, and the layer of the class maps.

        Raises:
            ValueError: the network has no linear head, or does not take the whole photo.
        """
        size = grid.whole_size
        if size not in self._known:
            self._known[size] = self._run(size)
        evidence = self._known[size]
        rows = coverage(grid.tops, grid.window[0], grid.size[0], evidence.features.shape[2])
        columns = coverage(grid.lefts, grid.window[1], grid.size[1], evidence.features.shape[3])
        logits = pooled_logits(evidence.features[0], rows, columns, evidence.head)
        return check_finite(logits), evidence.layer

    def _run(self, size: tuple[int, int]) -> CamEvidence:
        whole = self._pixels.whole(size)
        examined = self._windows.on(whole)
        with taking_whole_photo(examined.classifier, whole, "dense"):
            layer = examined.layer()
            (evidence,) = gather(examined, 0, layers=[layer], gradients=False)
        if evidence.linear_head is None:
            expected = (
                f"'exhaustive' or 'shared' for {examined.classifier.name}, whose head after "
                f"{layer!r} is not global average pooling and one linear layer"
            )
            raise argument_error("mode", expected, "dense")
        return evidence


def coverage(starts: tuple[int, ...], window: int, length: int, cells: int) -> torch.Tensor:
    """What share of each window every cell of a layer has, along one axis.

    Cells divide the photo evenly; one that a window covers in part counts with that part.

    Args:
        starts: the first pixel of each window.
        window: pixels of a window.
        length: pixels of the photo.
        cells: of the layer.

    Returns:
        `[windows, cells]` float32; the rows add up to 1.
    """
    edges = torch.arange(cells + 1, dtype=torch.float64, device="cpu") * (length / cells)
    first = torch.tensor(starts, dtype=torch.float64, device="cpu")[:, None]
    from_left = (edges - first).clamp(0, window)  # how much of the window lies before each edge
    return (from_left.diff(dim=1) / window).to(torch.float32)


def pooled_logits(
    features: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, head: LinearHead
) -> torch.Tensor:
    """The head's logits of the mean features of each window, `[rows * columns, K]`.

    Averaging and projecting are both linear: whichever order needs fewer multiplications runs.

    Args:
        features: `[C, h, w]` float32.
        rows: `[rows, h]`, see `coverage`.
        columns: `[columns, w]`.
        head: the linear head.
    """
    rows, columns = rows.to(features.device), columns.to(features.device)
    channels, height, width = features.shape
    classes, windows = len(head.weight), len(rows) * len(columns)
    pooling = len(rows) * height * width + windows * width  # of one map
    pooling_first = channels * pooling + classes * channels * windows
    projecting_first = classes * channels * height * width + classes * pooling
    if pooling_first <= projecting_first:
        means = (rows @ features @ columns.T).reshape(channels, windows)
        return torch.addmm(head.bias, means.T, head.weight.T)
    maps = (head.weight @ features.flatten(1)).reshape(classes, height, width)
    means = (rows @ maps @ columns.T).reshape(classes, windows)
    return (means + head.bias[:, None]).T.contiguous()
