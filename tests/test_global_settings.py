"""Torch's settings for the whole program change no answer, and pyxai changes no setting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import SmallViT
from networks.capabilities import Result, photos_in
from networks.habits import Net, lively
from public_calls import CALLS, SIDE, Prepared
from torch import nn


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
    batch = torch.randn(3, 3, SIDE, SIDE, generator=generator)
    photo = torch.randn(3, SIDE * 3 // 2, SIDE * 3 // 2, generator=generator)
    model, transformer = lively(Net()), lively(SmallViT(depth=2))
    if not autocast:
        model, transformer = in_float32(model), in_float32(transformer)
    return Prepared(model, batch, photos, photo=photo, transformer=transformer)


plain: dict[tuple[str, Any], Result] = {}


def expected(name: str, photos: Path, autocast: bool = False) -> Result:
    """The answer without a setting, found once."""
    if (name, autocast) not in plain:
        plain[name, autocast] = run(name, subject_of(photos, autocast))
    return plain[name, autocast]


def run(name: str, subject: Prepared) -> Result:
    torch.manual_seed(0)
    return CALLS[name](subject)


def differences(found: Result, wanted: Result, tolerance: float) -> list[str]:
    """Where results differ, in words; of pictures a level of brightness does not count."""
    assert found.keys() == wanted.keys()
    wrong = []
    for name, mine in found.items():
        theirs = wanted[name]
        if not isinstance(theirs, torch.Tensor):
            if mine != theirs:
                wrong.append(f"{name}: {str(mine)[:200]} is not {str(theirs)[:200]}")
            continue
        if mine.dtype != theirs.dtype or mine.shape != theirs.shape or mine.is_meta:
            wrong.append(
                f"{name}: {mine.dtype} {[*mine.shape]} {mine.device} is not {theirs.dtype}"
            )
            continue
        one, other = (torch.nan_to_num(each.detach().double()) for each in (mine, theirs))
        allowed = (
            2
            if theirs.dtype == torch.uint8
            else tolerance * max([1.0, *other.abs().flatten().tolist()])
        )
        gap = float((one - other).abs().max()) if other.numel() else 0.0
        if not gap <= allowed:
            wrong.append(f"{name}: {gap:.1e} apart")
    return wrong


ROUGH = ("training", "preprocessing and a small network")  # autocast reaches layers of these
PICKED = ("gallery", "galleries", "duplicates", "audit", "exciting")  # rounding may pick others


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_answer_is_that_without_the_setting(setting, name, photos, one_thread):
    wanted, subject = expected(name, photos), subject_of(photos)
    with SETTINGS[setting]():
        before = state()
        found = run(name, subject)
        assert state() == before
    rough = setting == "autocast" and name.startswith(ROUGH)
    assert not differences(found, wanted, 0.1 if rough else 1e-4)


@pytest.mark.parametrize("name", CALLS)
def test_networks_under_autocast(name, photos, one_thread):
    """Their layers round to three digits, so do answers; nothing else is lost."""
    wanted, subject = expected(name, photos, autocast=True), subject_of(photos, autocast=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = run(name, subject)
    assert not differences(found, wanted, 5e-2)
