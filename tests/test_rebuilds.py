"""A folder that changes, its index and its site, with builds that are killed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))  # last, so that what is installed comes first

from benchmarks.torture import kills, rebuilds


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(kills.os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_rebuilds_that_are_killed():
    said = []
    done = rebuilds.torture(4, 0, said.append)
    assert done["kills"] >= 4
    assert done["changes"] > 0
    assert done["faults"] == 0, said
