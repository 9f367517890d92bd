"""`python -m benchmarks.torture server`, with few clients that are impatient."""

from __future__ import annotations

import importlib
import io
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("no benchmarks folder beside the tests", allow_module_level=True)
if sys.platform != "linux":
    pytest.skip("memory is read from /proc", allow_module_level=True)
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")


def load(name):
    """A module of the benchmarks, which are no part of the package."""
    sys.path.insert(0, str(ROOT))
    try:
        return importlib.import_module(f"benchmarks.torture.{name}")
    finally:
        sys.path.remove(str(ROOT))


torture = load("server")
IMPATIENT = {"head_seconds": 1, "idle_seconds": 1, "upload_seconds": 2}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return torture.make_site(tmp_path_factory.mktemp("torture"))


@pytest.fixture(scope="module")
def static(site):
    with torture.served(site[0], **IMPATIENT) as server:
        yield server


@pytest.fixture(scope="module")
def live(site):
    with torture.served(*site, **IMPATIENT) as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["static", "live"])
def test_hostile_requests(request, kind):
    """Each is answered as it may be, nothing is written, and the server lives."""
    server = request.getfixturevalue(kind)
    report = torture.watched(
        server, lambda it: torture.torment(server, it, clients=12, idle=40, seconds=1)
    )
    assert report.faults() == []
    assert report.statuses[408] > 12  # those that send a byte now and then, and others
    assert {200, 304, 400, 404} <= {*report.statuses}


def test_uploads_at_once(live):
    """Whole, slow and unfinished ones: few are in memory, the others are told to come back."""
    body = torture.photo_of_size(2)
    assert torture.upload(live.port, body, "whole", 60) == 200
    report = torture.watched(live, lambda it: torture.uploads(live.port, it, 24, body, 60))
    assert torture.upload(live.port, body, "whole", 60) == 200
    assert report.faults() == []
    assert report.statuses[503] >= 24 - 3 - 8  # of those that are whole, some may come in turn
    assert sum(report.statuses.values()) == 24


def test_a_photo_that_is_huge_for_the_network(live):
    """A hundred bytes, which were 512,000 × 256 pixels and gigabytes once."""
    strip = io.BytesIO()
    Image.new("RGB", (4000, 2)).save(strip, "PNG")
    assert torture.upload(live.port, strip.getvalue(), "whole", 60) == 413
    assert live.is_alive()
    assert live.output() == ""


def test_faults_are_found():
    report = torture.Report(wrong=["x: 500"], peak=201.0, written="Traceback", alive=False)
    assert len(report.faults()) == 4
    assert torture.Report(alive=True).faults() == []
