"""What was found out about the windows of a photo, for all classes at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image

from pyxai._errors import argument_error, check_count
from pyxai._results import Rows, Table, plain
from pyxai.attribution.windows.overlap import apart
from pyxai.classifier.outputs import class_index
from pyxai.classifier.reading import Reading
from pyxai.draw.scale import with_scale
from pyxai.draw.windows import window_map
from pyxai.images.errors import printable
from pyxai.ops import window_heatmap


@dataclass(frozen=True)
class TopWindow:
    """One of the best windows of a class.

    Attributes:
        index: its place in `WindowScores.boxes`.
        box: (x0, y0, x1, y1) in pixels of the photo.
        probability: of the class.
        logit: of the class.
    """

    index: int
    box: tuple[int, int, int, int]
    probability: float
    logit: float


@dataclass(frozen=True)
class Agreement:
    """How far scores are from those of an exhaustive search, on a sample of the windows.

    Attributes:
        rank_correlation: Spearman's, between the target's probabilities; NaN where all windows of
            the sample have the same.
        difference: mean absolute difference of the target's probability.
        difference_all: the same over all classes.
        same_class: share of windows with the same top class.
        windows: how many were compared.
    """

    rank_correlation: float
    difference: float
    difference_all: float
    same_class: float
    windows: int


@dataclass(frozen=True, eq=False, repr=False)
class WindowScores(Table):
    """Logits of windows in rows and columns over one photo; see `pyxai.sliding_window`.

    Attributes:
        boxes: `[n, 4]` int64 on the CPU: x0, y0, x1, y1 in pixels of the photo, row by row.
        logits: `[n, K]` float32 on the model's device, without a graph.
        size: (height, width) of the photo.
        rows: rows of windows.
        columns: columns of windows; n = rows × columns.
        target: the index of the class that `scores` and `heatmap()` are about.
        class_names: one name a class, or None.
        mode: "exhaustive", "shared" or "dense".
        layer: the layer up to which windows shared the network, or from which "dense" took its
            class maps; None for "exhaustive".
        exhaustive: boxes `[m, 4]` -> logits `[m, K]` by exhaustive search; it holds the model and
            the photo.
        photo: gives the photo, for the figure.
        reading: how probabilities are made of logits.
    """

    boxes: torch.Tensor
    logits: torch.Tensor
    size: tuple[int, int]
    rows: int
    columns: int
    target: int
    class_names: tuple[str, ...] | None
    mode: str
    layer: str | None
    exhaustive: Callable[[torch.Tensor], torch.Tensor]
    photo: Callable[[], Image.Image]
    reading: Reading = field(default_factory=Reading)

    def _facts(self) -> str:
        x0, y0, x1, y1 = self.boxes[0].tolist()
        return (
            f"{self.rows} × {self.columns} windows of {y1 - y0} × {x1 - x0} on "
            f"{self.size[0]} × {self.size[1]} pixels, {self.logits.shape[1]} classes, "
            f"target={self.target}, mode={self.mode!r}"
        )

    def __len__(self) -> int:
        return len(self.boxes)

    def to_dict(self) -> dict[str, Any]:
        """The settings, and of each window its box, the target's probability and its logit."""
        return {
            "size": [*self.size],
            "rows": self.rows,
            "columns": self.columns,
            "target": {"index": self.target, "name": self._name(self.target)},
            "mode": self.mode,
            "layer": self.layer,
            "boxes": plain(self.boxes),
            "probabilities": plain(self.scores.flatten()),
            "logits": plain(self.logits[:, self.target]),
        }

    def figure(
        self, target: int | str | None = None, *, top: int = 3, colormap: str = "ember"
    ) -> Image.Image:
        """The heat map over the photo, with frames around the best windows.

        Args:
            target: None, the target of the search, or a class.
            top: how many windows get a frame; of those that overlap by more than a half, one.
            colormap: see `pyxai.draw.color_table`.

        Raises:
            ValueError: no such class.
        """
        index = self.class_index(target)
        best = self.top(max(top, 1), index, max_overlap=0.5)
        heatmap = self.heatmap(index).nan_to_num()
        boxes = [each.box for each in best[:top]]
        drawn = window_map(self.photo(), heatmap, boxes, colormap=colormap)
        title = f"{printable(self._name(index))}: best window {best[0].probability:.3f}"
        what = f"{self.rows} × {self.columns} windows, mode {self.mode}"
        name = "mean probability of the windows over a pixel"
        return with_scale(
            drawn, title=f"{title}\n{what}", low="0", high="1", name=name, colormap=colormap
        )

    def _table(self) -> Rows:
        columns = ("x0", "y0", "x1", "y1", "probability", "logit")
        numbers = zip(
            self.boxes.tolist(),
            self.scores.flatten().tolist(),
            self.logits[:, self.target].tolist(),
            strict=True,
        )
        return columns, [(*box, probability, logit) for box, probability, logit in numbers]

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {"boxes": self.boxes, "logits": self.logits}

    def _name(self, index: int) -> str:
        return f"class {index}" if self.class_names is None else self.class_names[index]

    @property
    def probabilities(self) -> torch.Tensor:
        """The probability of each class in each window, `[n, K]`.

        Softmax of the logits; the sigmoid of a single logit, and of each where the network itself
        ends in a sigmoid.
        """
        return self.reading.probabilities(self.logits)

    @property
    def log_probabilities(self) -> torch.Tensor:
        """Their logarithms in float64, which tell apart probabilities that round to 1, `[n, K]`."""
        return self.reading.log_probabilities(self.logits.double())

    @property
    def scores(self) -> torch.Tensor:
        """The probability of the target in each window, `[rows, columns]`."""
        return self._logs([self.target])[0].exp().reshape(self.rows, self.columns)

    def heatmap(self, target: int | str | Sequence[int | str] | None = None) -> torch.Tensor:
        """The probability of a class around each pixel.

        Args:
            target: None, the target of the search; a class; a sequence of k classes; or "all".

        Returns:
            `[H, W]`, or `[k, H, W]` for several classes, float32 on the model's device: the mean
            probability of the windows that cover a pixel, NaN where none does (only without
            `cover`, or with a stride larger than the window).

        Raises:
            ValueError: no such class.
        """
        single = False
        if isinstance(target, str) and target == "all" and "all" not in (self.class_names or ()):
            classes = list(range(self.logits.shape[1]))
        elif isinstance(target, str) or not isinstance(target, Sequence):
            single, classes = True, [self.class_index(target)]
        else:
            classes = [self.class_index(each) for each in target]
        boxes = self.boxes.to(self.logits.device)
        maps = window_heatmap(self._logs(classes).exp(), boxes, self.size)
        return maps[0] if single else maps

    def top(
        self, k: int = 9, target: int | str | None = None, *, max_overlap: float | None = None
    ) -> list[TopWindow]:
        """The windows with the highest probability of a class, the best first.

        Args:
            k: how many; fewer come back where there are no more.
            target: None, the target of the search, or a class.
            max_overlap: leave out windows whose overlap with a better one that was taken
                (intersection over union) is larger; None keeps all, 0 only disjoint ones.

        Raises:
            ValueError: no such class, k below 1, or an overlap outside [0, 1].
        """
        k = check_count("k", k)
        if max_overlap is not None and not 0 <= max_overlap <= 1:
            raise argument_error("max_overlap", "None or a number in [0, 1]", max_overlap)
        index = self.class_index(target)
        # Logarithms tell apart probabilities that round to 1; equal ones stay in reading order.
        logs = self._logs([index])[0].cpu()
        order = logs.argsort(descending=True, stable=True)
        chosen = order[:k].tolist()
        if max_overlap is not None:
            chosen = apart(order, self.boxes, k, max_overlap)
        boxes, logits = self.boxes.tolist(), self.logits[:, index].tolist()
        return [
            TopWindow(each, tuple(boxes[each]), float(logs[each].exp()), logits[each])
            for each in chosen
        ]

    def agreement(self, sample: int = 64, *, seed: int = 0) -> Agreement:
        """Compares these scores with exhaustive ones on some of the windows, drawn at random.

        Runs the model on the sample, so neither it nor a photo given as a tensor must have changed
        since. For mode "exhaustive" nothing runs: the scores agree with themselves.

        Args:
            sample: how many windows; all, if there are fewer.
            seed: of the draw; the global random state is left alone.

        Raises:
            ValueError: a sample below 2.
        """
        check_count("sample", sample, least=2)
        generator = torch.Generator(device="cpu").manual_seed(seed)
        chosen = (
            torch.randperm(len(self.boxes), generator=generator, device="cpu")[:sample]
            .sort()
            .values
        )
        ours = self.logits[chosen.to(self.logits.device)]
        theirs = ours if self.mode == "exhaustive" else self.exhaustive(self.boxes[chosen])
        return compare(ours, theirs, self.target, self.reading)

    def class_index(self, target: int | str | None) -> int:
        """The index of a class given by index or name; None is the target of the search.

        Raises:
            ValueError: no such class.
        """
        if target is None:
            return self.target
        index, classes = class_index(target, self.class_names), self.logits.shape[1]
        if not -classes <= index < classes:
            raise argument_error("target", f"class indices below {classes}", index)
        return index % classes

    def _logs(self, classes: list[int]) -> torch.Tensor:
        """Logarithms of the probabilities of k classes, `[k, n]`."""
        return self.reading.log_probabilities(self.logits)[:, classes].T


def compare(
    ours: torch.Tensor, theirs: torch.Tensor, target: int, reading: Reading | None = None
) -> Agreement:
    """How far logits `[n, K]` are from exhaustive ones, see `Agreement`."""
    reading = Reading() if reading is None else reading
    logs = [reading.log_probabilities(each.double()).cpu() for each in (ours, theirs)]
    gaps = (logs[0].exp() - logs[1].exp()).abs()
    same = logs[0].argmax(dim=1) == logs[1].argmax(dim=1)
    return Agreement(
        rank_correlation=_rank_correlation(logs[0][:, target], logs[1][:, target]),
        difference=float(gaps[:, target].mean()),
        difference_all=float(gaps.mean()),
        same_class=float(same.double().mean()),
        windows=len(ours),
    )


def _rank_correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Spearman's: Pearson's of the ranks; NaN where all values of one side are equal."""
    ranks = [_ranks(each) for each in (a, b)]
    ranks = [each - each.mean() for each in ranks]
    products = [(x * y).sum() for x, y in ((ranks[0], ranks[1]), (ranks[0],) * 2, (ranks[1],) * 2)]
    return float(products[0] / (products[1] * products[2]).sqrt())


def _ranks(values: torch.Tensor) -> torch.Tensor:
    """Ranks `[n]` from 1, float64; equal values share the mean of theirs."""
    values = values.contiguous()
    order = values.sort().values
    first, last = (torch.searchsorted(order, values, right=right) for right in (False, True))
    return (first + last + 1).double() / 2
