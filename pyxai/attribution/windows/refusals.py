"""Networks that do not take a size: errors that say so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pyxai._errors import REFUSALS, argument_error, passes_through
from pyxai.classifier import Classifier

# Of pooling, convolutions, padding, linear layers and reshaping, in torch's words.
_ABOUT_SIZE = re.compile(
    r"too small|can't be greater|should be less than|cannot be multiplied|invalid for input of size"
)


@contextmanager
def taking_windows(classifier: Classifier, windows: torch.Tensor) -> Iterator[None]:
    """Turns what networks say of a size that they do not take into an error about the window.

    That is a failed assertion of vision transformers, and an error of torch in others.

    Raises:
        ValueError: with what the network said.
    """
    try:
        yield
    except (AssertionError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _ABOUT_SIZE.search(str(error)):
            raise
        expected = f"a size that {classifier.name} takes, or resize= to one ({_said(error)})"
        raise argument_error("window", expected, tuple(windows.shape[-2:])) from error


@contextmanager
def taking_whole_photo(classifier: Classifier, whole: torch.Tensor, mode: str) -> Iterator[None]:
    """Turns errors of a network that is run on the whole photo into one about the mode.

    Raises:
        ValueError: naming the size and what the network said.
    """
    try:
        yield
    except REFUSALS as error:  # networks refuse sizes in every way there is
        if passes_through(error):
            raise
        expected = (
            f"'exhaustive' for {classifier.name}, which does not run on the whole photo, "
            f"{[*whole.shape]} ({type(error).__name__}: {_said(error)})"
        )
        raise argument_error("mode", expected, mode) from error


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
