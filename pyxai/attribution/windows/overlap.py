"""Boxes of which none overlaps a better one by too much."""

from __future__ import annotations

import torch


def apart(order: torch.Tensor, boxes: torch.Tensor, count: int, max_overlap: float) -> list[int]:
    """The first `count` places of which none overlaps an earlier one of them by more than allowed.

    Args:
        order: `[m]` int64, places in `boxes`, the best first.
        boxes: `[n, 4]` int64: x0, y0, x1, y1.
        count: how many; fewer come back where there are no more.
        max_overlap: intersection over union.
    """
    chosen: list[int] = []
    while len(order) and len(chosen) < count:
        best = int(order[0])
        chosen.append(best)
        order = order[1:]
        order = order[overlaps(boxes[best], boxes[order]) <= max_overlap]
    return chosen


def overlaps(box: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Intersection over union of one box `[4]` with each of others `[n, 4]`: `[n]`."""
    corners = torch.maximum(box[:2], boxes[:, :2]), torch.minimum(box[2:], boxes[:, 2:])
    common = (corners[1] - corners[0]).clamp(min=0).prod(dim=1)
    area, areas = (box[2:] - box[:2]).prod(), (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    return common / (area + areas - common)
