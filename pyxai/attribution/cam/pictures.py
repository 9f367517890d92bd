"""Pictures of class activation maps: how they are drawn, and those of all images put together."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch

from pyxai._errors import argument_error, describe
from pyxai.attribution.cam.evidence import CamEvidence
from pyxai.attribution.cam.methods import AUTO, CamMethod, cam_method
from pyxai.classifier import Target
from pyxai.ops import cam_project, cam_project_render, cam_render

_NETWORK = "network"  # in place of a layer, for methods that are about all of it


class BlankMapWarning(UserWarning):
    """A map has the same value everywhere, and so shows nothing."""


@dataclass(frozen=True)
class Style:
    """How maps become pictures."""

    size: tuple[int, int] | None
    normalize: str | None
    relu: bool | None
    reported: bool  # whether anybody asks how exact the maps are

    def check(self, methods: dict[str, CamMethod]) -> None:
        if self.normalize not in ("minmax", "softmax", None):
            raise argument_error("normalize", "'minmax', 'softmax' or None", self.normalize)
        if self.normalize == "softmax" and not set(methods) <= {"auto", "cam"}:
            raise argument_error("normalize", "'minmax' or None for methods but 'cam'", "softmax")

    def draw(
        self,
        method: CamMethod,
        evidence: CamEvidence,
        found: torch.Tensor,
        out: torch.Tensor | None,
    ) -> torch.Tensor:
        """Pictures `[N, k, H, W]` of channel weights `[N or 1, k, C]` or maps `[N or 1, k, h, w]`.

        Fills the report of the evidence.
        """
        if self.normalize == "softmax":
            shares = evidence.probabilities()
            return self._render(shares, relu=False, minmax=False, out=out)
        relu = method.relu if self.relu is None else self.relu
        minmax = self.normalize is not None
        if found.ndim == 3 and self.size is not None and minmax:
            pictures, maps = cam_project_render(
                evidence.activations, found, self.size, relu=relu, out=out
            )
        else:
            maps = found if found.ndim == 4 else cam_project(evidence.activations, found)
            pictures = self._render(maps, relu=relu, minmax=minmax, out=out)
        evidence.check(maps)
        blank = _is_blank(maps, relu)
        if bool(blank.any()):
            evidence.report["blank"] = blank.expand(len(evidence.inputs), -1)
        if minmax:
            evidence.constant = _is_blank(maps, False) if relu else blank
        gap = evidence.gap(method, maps) if self.reported else None
        if gap is not None:
            evidence.report["gap"] = gap
        return pictures

    def _render(
        self, maps: torch.Tensor, *, relu: bool, minmax: bool, out: torch.Tensor | None
    ) -> torch.Tensor:
        if self.size is None and not relu and not minmax:
            if out is None:
                return maps
            if out.shape != maps.shape:
                raise argument_error("out", f"shape {[*maps.shape]}", out)
            return out.copy_(maps)
        size = maps.shape[-2:] if self.size is None else self.size
        return cam_render(maps, size, relu=relu, minmax=minmax, out=out)


def _is_blank(maps: torch.Tensor, relu: bool) -> torch.Tensor:
    """Which maps `[N, k, h, w]` show nothing, `[N, k]`: all values are equal but for rounding."""
    values = (maps.relu() if relu else maps).flatten(2)
    if not values.numel():
        return values.new_zeros(values.shape[:2], dtype=torch.bool)
    high, low = values.amax(dim=2), values.amin(dim=2)
    return high - low <= 1e-6 * torch.maximum(high.abs(), low.abs())


class Collected:
    """Maps, logits and reports of all images, put together from parts of them."""

    def __init__(self, images: int, out: torch.Tensor | None) -> None:
        self._images = images
        self._out = out
        self._maps: dict[tuple[str, str], torch.Tensor] = {}
        # By method (not "auto" but what it stands for) and layer: what was reported, and of whom.
        self._reports: dict[tuple[str, str], dict[str, list[tuple[list[int], torch.Tensor]]]] = {}
        self._blank: dict[str, list[int]] = {}
        self._logits: list[tuple[list[int], torch.Tensor]] = []

    def add(
        self,
        label: str,
        method: CamMethod,
        evidence: list[CamEvidence],
        style: Style,
        rows: list[int],
    ) -> None:
        """Draws the images in these places by one method."""
        if not self._logits or self._logits[-1][0] != rows:
            self._logits.append((rows, evidence[0].logits))
        for each in evidence[:1] if method.fuses or not method.layer else evidence:
            each = each.reporting_anew()
            chosen = method
            if method is AUTO:
                chosen = cam_method("gradcam" if each.linear_head is None else "cam")
            found = chosen.compute(evidence if method.fuses else each, **chosen.options)
            layer = each.layer if method.layer and not method.fuses else _NETWORK
            kept = self._maps.get((label, layer), self._out)
            place = None if kept is None else self._place(kept, rows, each.single)
            pictures = style.draw(chosen, each, found, place)
            if place is None:
                self._keep((label, layer), pictures[:, 0] if each.single else pictures, rows)
            elif kept is self._out and kept is not None:
                self._maps[label, layer] = kept
            named = label if method is not AUTO else chosen.name
            texts = self._reports.setdefault((named, layer), {})
            for name, values in each.report.items():
                texts.setdefault(name, []).append((rows, values))
            if each.constant is not None and bool(each.constant.any()):
                some = torch.nonzero(each.constant.all(dim=1)).flatten().tolist()
                self._blank.setdefault(named, []).extend(rows[at] for at in some)

    def _place(self, kept: torch.Tensor, rows: list[int], single: bool) -> torch.Tensor | None:
        """Where in the result these images go, if they lie side by side."""
        fits = kept.ndim == (3 if single else 4) and kept.shape[0] == self._images
        if not fits or kept.dtype != torch.float32 or not kept.is_contiguous():
            axes = f"[{self._images}, {'' if single else 'k, '}H, W]"
            strides = "" if kept.is_contiguous() else ", not contiguous"
            expected = f"a contiguous float32 tensor {axes}"
            raise ValueError(f"out: expected {expected}, got {describe(kept)}{strides}")
        first = rows[0] if rows else 0
        if rows != list(range(first, first + len(rows))):
            return None
        part = kept[first : first + len(rows)]
        return part[:, None] if single else part

    def _keep(self, key: tuple[str, str], some: torch.Tensor, rows: list[int]) -> None:
        """Keeps maps; where there will be more, in memory for all of them."""
        whole = self._maps.get(key, self._out)
        if whole is None and len(some) == self._images:
            whole = some
        elif whole is None:
            whole = some.new_empty((self._images, *some.shape[1:]))
            whole[rows] = some
        else:
            whole[rows] = some
        self._maps[key] = whole

    def logits(self, target: Target) -> torch.Tensor:
        """The logits `[N, K]`, or the scores `[N]` of a callable target."""
        logits = self._joined(self._logits)
        return logits[:, 0] if callable(target) else logits

    def _joined(self, parts: list[tuple[list[int], torch.Tensor]]) -> torch.Tensor:
        """Values of all images, in their order; NaN (or False) for those without any."""
        if len(parts) == 1 and len(parts[0][1]) == self._images:
            return parts[0][1]
        first = parts[0][1]
        empty = torch.nan if first.is_floating_point() else 0
        whole = first.new_full((self._images, *first.shape[1:]), empty)
        for rows, values in parts:
            whole[rows] = values
        return whole

    def reports(self) -> dict[str, dict[str, dict[str, torch.Tensor]]]:
        """What was reported, by method and layer."""
        found: dict[str, dict[str, dict[str, torch.Tensor]]] = {}
        for (named, layer), texts in self._reports.items():
            joined = {name: self._joined(parts) for name, parts in texts.items()}
            found.setdefault(named, {})[layer] = joined
        return found

    def warn_of_blank_maps(self) -> None:
        """Says which maps show nothing."""
        for named, rows in self._blank.items():
            if not rows:
                continue
            several = f"{rows[:8]}{'...' if len(rows) > 8 else ''}"
            warnings.warn(
                f"method {named!r}: the maps of images {several} show nothing: they have the same "
                "value everywhere, as nothing at this layer speaks for the target "
                "(return_report=True says which)",
                BlankMapWarning,
                stacklevel=3,
            )

    def nested(self, many_methods: bool, many_layers: bool) -> Any:
        """The maps, by method and layer where there are several."""
        by_method: dict[str, Any] = {}
        for (label, layer), maps in self._maps.items():
            if many_layers and layer != _NETWORK:
                by_method.setdefault(label, {})[layer] = maps
            else:
                by_method[label] = maps
        return by_method if many_methods else next(iter(by_method.values()))
