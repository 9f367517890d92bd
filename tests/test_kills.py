"""Jobs that are killed and started again; a few kills, hundreds by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))  # last, so that what is installed comes first

from benchmarks.torture import kills


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(kills.os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_jobs_that_are_killed():
    said = []
    done = kills.torture(8, 0, said.append)
    assert done["kills"] >= 8
    assert done["runs"] >= len(kills.JOBS)
    assert done["faults"] == 0, said
