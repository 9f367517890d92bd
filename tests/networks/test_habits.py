"""Every capability gives the same for a network with a habit and for its twin without it.

The table of `docs/hand_written_networks.md` is made from these by `tools/hand_written_networks.py`.
"""

from __future__ import annotations

import pytest

from networks.capabilities import CAPABILITIES, PHOTO_CAPABILITIES, photos_in
from networks.habits import HABITS
from networks.matrix import NOT_ABOUT_HABITS, REFUSALS, Cell, compare_on

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


def test_a_difference_would_be_seen(folder):
    """Networks that are not twins differ in what is compared."""
    import dataclasses

    from networks.habits import AMax, Net

    wrong = dataclasses.replace(HABITS[0], habit=AMax, twin=Net)
    for name in ("cam: gradcam", "features", "windows: dense", "novelty", "SHAP"):
        assert compare_on(wrong, name, folder).state in ("different", "refused"), name
    assert Cell("same", "") != Cell("different", "")
