"""Every capability gives the same for a network with a habit and for its twin without it.

The table of `docs/hand_written_networks.md` is made from these by `tools/hand_written_networks.py`.
"""

from __future__ import annotations

import dataclasses

import pytest
from torch import nn

from networks.capabilities import CAPABILITIES, PHOTO_CAPABILITIES, photos_in
from networks.habits import HABITS, Net
from networks.matrix import NOT_ABOUT_HABITS, REFUSALS, compare_on

FEWEST_HABITS = 40
MOST_REFUSED = 0.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos_in(tmp_path_factory.mktemp("photos"))


CELLS = [
    pytest.param(habit, name, id=f"{habit.name}: {name}")
    for habit in HABITS
    for name in CAPABILITIES
    if habit.channels == 3 or name not in PHOTO_CAPABILITIES
]


@pytest.mark.parametrize(("habit", "capability"), CELLS)
def test_habit_and_twin_agree(habit, capability, folder, one_thread):
    cell = compare_on(habit, capability, folder)
    reason = REFUSALS.get((habit.name, capability))
    if reason is None:
        assert cell.state in ("same", "neither"), cell.text
        if cell.state == "neither":
            assert any(each in cell.text for each in NOT_ABOUT_HABITS), cell.text
    else:
        assert cell.state == "refused", cell
        assert reason in cell.text


def test_there_are_enough_habits_and_few_refusals():
    assert len(HABITS) >= FEWEST_HABITS
    assert len({habit.name for habit in HABITS}) == len(HABITS)
    assert len(REFUSALS) <= MOST_REFUSED * len(CELLS)
    names = {habit.name for habit in HABITS}
    for name, capability in REFUSALS:
        assert name in names
        assert capability in CAPABILITIES


class Leaky(Net):
    """Not the twin of `Net`: another last activation, another pooling."""

    def __init__(self):
        super().__init__()
        self.r3, self.pool = nn.LeakyReLU(0.5), nn.AdaptiveMaxPool2d(1)


@pytest.mark.parametrize("name", CAPABILITIES)
def test_a_difference_would_be_seen(name, folder, one_thread):
    """Networks that are not twins differ in what is compared."""
    wrong = dataclasses.replace(HABITS[0], habit=Leaky, twin=Net)
    state = compare_on(wrong, name, folder).state
    if name == "cam: legrad":  # neither is a transformer
        assert state == "neither"
    elif name == "duplicates":  # the same photos are nearest to each other
        assert state == "same"
    else:
        assert state in ("different", "refused")
