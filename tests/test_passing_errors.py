"""An error about the moment (no memory left) passes through, and changes nothing that comes later.

The network runs out of memory at each of its calls in turn: it must be seen, and the same call
made again must give what it gives of a network that never did.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from networks.capabilities import CAPABILITIES, Subject, differences, photos_in
from networks.habits import SIZE, FunctionalReLU, lively

from pyxai.attribution.cam import BlankMapWarning

ERRORS = {
    "memory": MemoryError("no memory left"),
    "device": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "allocator": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"),
}
CALLS = (
    *("logits", "cam: auto", "cam: gradcam", "cam: fullgrad", "cam: scorecam", "cam: shapleycam"),
    *("all classes, exact", "CamModel", "accelerate", "features"),
    *("windows: exhaustive", "windows: shared", "windows: dense"),
    *("gallery", "index", "duplicates", "audit", "novelty", "SHAP", "learned masks"),
)
MOST = 12  # calls at which it is tried


class Forgetful(FunctionalReLU):
    """Raises at one of its calls, where it begins: some passes end before the last layer."""

    def __init__(self):
        super().__init__()
        self.calls, self.fails_at, self.error = 0, -1, None

    def forward(self, x):
        self.calls += 1
        if self.calls - 1 == self.fails_at:
            raise self.error
        return super().forward(x)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos_in(tmp_path_factory.mktemp("photos"))


@pytest.fixture
def images():
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ERRORS)
def test_it_passes_and_leaves_nothing(call, kind, images, folder, one_thread):
    run = CAPABILITIES[call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BlankMapWarning)
        counted = lively(Forgetful())
        expected = run(Subject(counted, images, folder))
        steps = range(counted.calls)
        tried = sorted({*steps[:8], *steps[:: max(1, counted.calls // 4)], *steps[-2:]})[:MOST]
        for number in tried:
            model = lively(Forgetful())
            model.fails_at, model.error = number, ERRORS[kind]
            subject = Subject(model, images, folder)
            with pytest.raises(type(ERRORS[kind]), match=str(ERRORS[kind])[:12].strip("[")):
                run(subject)
            assert not differences(run(subject), expected, 1e-5), f"after call {number}"
