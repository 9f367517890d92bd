"""The matrix of habits and capabilities: what comes of each pair."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pyxai
from networks.capabilities import CAPABILITIES, NAMES, Subject, differences
from networks.habits import Habit
from pyxai.attribution.cam import BlankMapWarning

# Pairs of habit and capability that are refused, with a part of the reason. The twin answers.
REFUSALS: dict[tuple[str, str], str] = {
    ("changes its input in place, but not always", "CamModel, exported"): "data-dependent",
    ("detached features", "cam: refinecam"): "expected one that the scores depend on",
}

# Why a capability refuses a network and its twin alike: it is about what the network is.
NOT_ABOUT_HABITS = (
    "is not global average pooling and one linear layer",
    "global average pooling and linear layers after",
    "expected a transformer whose blocks have one global attention each",
    "expected targets that are classes, at least 2",
    "expected a network with two logits or more",
    "of the layers through which everything passes, none gives",
    "does not run on the whole photo",
    "functions of the outputs have no SHAP values",
    "masks need probabilities of classes",
)

# What torch says of a network with the habit, also without pyxai.
OF_TORCH = ("None of the inputs have requires_grad", "The .grad attribute of a Tensor that is not")


@dataclass(frozen=True)
class Cell:
    """What came of one pair.

    Attributes:
        state: "same"; "different"; "refused", where the twin answers; "neither", where the twin is
            refused as well: it is not about the habit.
        text: how they differ, or why it was refused.
    """

    state: str
    text: str


def compare_on(habit: Habit, capability: str, folder: Path) -> Cell:
    """Runs a capability on a network with a habit and on its twin."""
    one, other = habit.pair()
    generator = torch.Generator().manual_seed(1)
    shape = (3, habit.channels, habit.size, habit.size)
    images = (torch.randn(shape, generator=generator) + 0.3).to(habit.dtype)
    kept = images.clone()
    results: list[Any] = []
    for model in (one, other):
        subject = Subject(_given(model, habit), images, folder, habit.target)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BlankMapWarning)
            for message in OF_TORCH:
                warnings.filterwarnings("ignore", message)
            try:
                results.append(CAPABILITIES[capability](subject))
            except ValueError as error:
                results.append(error)
        assert torch.equal(images, kept), "the user's images were changed"
    mine, theirs = results
    if isinstance(theirs, Exception):
        if isinstance(mine, Exception):
            return Cell("neither", str(mine))
        return Cell("different", f"the twin is refused: {theirs}")
    if isinstance(mine, Exception):
        return Cell("refused", str(mine))
    found = differences(mine, theirs, habit.tolerance)
    return Cell("different", "; ".join(found)) if found else Cell("same", "")


def _given(model: nn.Module, habit: Habit) -> nn.Module | pyxai.Classifier:
    if habit.class_names is None:
        return model
    return pyxai.Classifier(model, class_names=NAMES[: habit.class_names])
