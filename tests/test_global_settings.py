"""Torch's settings for the whole program change no answer, and pyxai changes no setting."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import public_calls
import pytest
import torch
from networks import SmallViT, capabilities
from networks.capabilities import Result, photos_in
from networks.habits import Net, lively
from public_calls import CALLS, SIDE, Prepared
from torch import nn

import pyxai
from pyxai import draw, feature_visualization, images, novelty, ops, zoo
from pyxai.playground import voting


class Float32Conv2d(nn.Conv2d):
    """A layer that autocast leaves alone, so that only pyxai's arithmetic could change."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x)


class Float32Linear(nn.Linear):
    """The same."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x)


def in_float32(model: nn.Module) -> nn.Module:
    """The model with such layers."""
    for module in model.modules():
        if type(module) in (nn.Conv2d, nn.Linear):
            module.__class__ = {nn.Conv2d: Float32Conv2d, nn.Linear: Float32Linear}[type(module)]
    return model


@contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


SETTINGS = {
    "float64 by default": default_dtype,
    "meta by default": default_device,
    "with meta": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
    "deterministic": deterministic,
}


def state() -> tuple[Any, ...]:
    """All that is set for the whole program or thread."""
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.are_deterministic_algorithms_enabled(),
    )


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    return photos_in(tmp_path_factory.mktemp("photos"))


def subject_of(photos: Path, autocast: bool = False) -> Prepared:
    """Networks and images as they come without settings."""
    generator = torch.Generator().manual_seed(1)
    batch, photo, known = (
        torch.randn(count, 3, side, side, generator=generator)
        for count, side in ((3, SIDE), (1, SIDE * 3 // 2), (60, SIDE))
    )
    model, transformer = lively(Net()), lively(SmallViT(depth=2))
    if not autocast:
        model, transformer = in_float32(model), in_float32(transformer)
    return Prepared(model, batch, photos, photo=photo[0], known=known, transformer=transformer)


plain: dict[tuple[str, Any], Result] = {}


def expected(name: str, photos: Path, autocast: bool = False) -> Result:
    """The answer without a setting, found once."""
    if (name, autocast) not in plain:
        plain[name, autocast] = run(name, subject_of(photos, autocast))
    return plain[name, autocast]


def run(name: str, subject: Prepared) -> Result:
    torch.manual_seed(0)
    return CALLS[name](subject)


def differences(
    found: Result, wanted: Result, tolerance: float, *, dtypes: bool = True
) -> list[str]:
    """Where results differ, in words; of pictures a level of brightness does not count."""
    assert found.keys() == wanted.keys()
    wrong = []
    for name, mine in found.items():
        theirs = wanted[name]
        if not isinstance(theirs, torch.Tensor):
            if mine != theirs:
                wrong.append(f"{name}: {str(mine)[:200]} is not {str(theirs)[:200]}")
            continue
        kinds = [
            (each.dtype if dtypes else None, each.shape, each.device) for each in (mine, theirs)
        ]
        if kinds[0] != kinds[1]:
            wrong.append(f"{name}: {kinds[0]} is not {kinds[1]}")
            continue
        one, other = (torch.nan_to_num(each.detach().double()) for each in (mine, theirs))
        allowed = tolerance * max([1.0, *other.abs().flatten().tolist()])
        if theirs.dtype == torch.uint8:
            allowed = max(2.0, 255 * tolerance)
        gap = float((one - other).abs().max()) if other.numel() else 0.0
        if not gap <= allowed:
            wrong.append(f"{name}: {gap:.1e} apart")
    return wrong


# Where autocast reaches layers: a new head, the bundled network, attention without a module.
ROUGH = ("training", "preprocessing and a small network", "cam: legrad")


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_answer_is_that_without_the_setting(setting, name, photos, one_thread):
    wanted, subject = expected(name, photos), subject_of(photos)
    with SETTINGS[setting]():
        before = state()
        found = run(name, subject)
        assert state() == before
        if setting == "inference mode":  # what was kept there serves outside, with gradients
            with torch.inference_mode(False):
                assert not differences(run(name, subject), wanted, 1e-4)
    rough = setting == "autocast" and name.startswith(ROUGH)
    assert not differences(found, wanted, 0.1 if rough else 1e-4)


# What three digits are too few for, so that only running is asked for.
AMPLIFIED = {
    "cam: refinecam": "products of scaled maps",
    "cam: fullgrad": "each layer's map is scaled by its own extremes",
    "learned masks": "Adam takes the sign of slopes that are nearly 0",
    "novelty: relative_mahalanobis": "a small difference of two distances",
    "windows, more of them": "the order of windows",
    "exciting crops": "the place of the largest",
}


@pytest.mark.parametrize("name", CALLS)
def test_networks_under_autocast(name, photos, one_thread):
    """Their layers round to three digits, so answers do; nothing else is lost."""
    wanted, subject = expected(name, photos, autocast=True), subject_of(photos, autocast=True)
    with torch.autocast("cpu", torch.bfloat16):
        if name == "all classes, exact":  # which asserts
            subject = replace(subject, images=subject.images.bfloat16())
        found = run(name, subject)
    assert found.keys() == wanted.keys()
    if name not in AMPLIFIED:
        assert not differences(found, wanted, 0.1, dtypes=False)


def of_inference(subject: Prepared) -> Prepared:
    names = ("images", "photo", "known")
    with torch.inference_mode():
        return replace(subject, **{name: getattr(subject, name).clone() for name in names})


def born_in_inference(subject: Prepared) -> Prepared:
    with torch.inference_mode():
        return replace(subject, model=lively(Net()), transformer=lively(SmallViT(depth=2)))


def in_float64(subject: Prepared) -> Prepared:
    names = ("model", "transformer", "images", "photo", "known")
    return replace(subject, **{name: getattr(subject, name).double() for name in names})


SUBJECTS = {
    "images of inference mode": of_inference,
    "a network of inference mode": born_in_inference,
    "a float64 network": in_float64,
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", SUBJECTS)
def test_the_answer_is_that_of_plain_tensors(kind, name, photos, one_thread):
    wanted, subject = expected(name, photos), SUBJECTS[kind](subject_of(photos))
    before = state()
    found = run(name, subject)
    assert state() == before
    assert not differences(found, wanted, 1e-4, dtypes=False)


# ---- all of it is tried ----

UNTRIED = {
    "playground": "a module; what it computes is what is tried here",
    "count_votes": "reads files of JSON",
    "class_folders": "lists folders",
    "split_folders": "lists folders",
    "BusyError": "an error",
    "DamagedError": "an error",
    "PhotoFailure": "a name and a reason",
    "cuda_status": "says what CUDA can do",
    "is_model_input": "looks at a type",
}


def test_all_public_functions_are_tried():
    files = (public_calls.__file__, capabilities.__file__)
    trees = [ast.parse(Path(file).read_text(encoding="utf-8")) for file in files]
    used = {
        node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)
    }
    public = {name for name in pyxai.__all__ if callable(getattr(pyxai, name))}
    for room in (images, draw, novelty, ops, feature_visualization, zoo):
        public |= {name for name in room.__all__ if inspect.isfunction(getattr(room, name))}
    public |= {voting.compare.__name__, voting.count_votes.__name__}
    assert public - used == UNTRIED.keys() & public
