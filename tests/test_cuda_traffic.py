"""tools/cuda_traffic.py: what kernels ask of memory, counted on the host."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import cuda_on_host
import pytest
import torch

from pyxai.ops import cam_project, crop_windows, mask_blend

TOOL = Path(__file__).resolve().parent.parent / "tools" / "cuda_traffic.py"
if not TOOL.exists():
    pytest.skip("no tools folder beside the tests", allow_module_level=True)


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("cuda_traffic", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def counter(tool):
    try:
        return tool.Counter()
    except cuda_on_host.CannotBuild as error:
        pytest.skip(str(error))


def test_blending_asks_once_for_each_sector(counter):
    images, behind = torch.randn(2, 2, 3, 16, 128)
    (launch,) = counter.count(lambda: mask_blend(images, torch.rand(2, 4, 4), behind))
    sectors = images.nbytes // 32
    assert launch.kernel == "blend_kernel"
    assert launch.least_written == launch.asked("global write") == sectors
    assert 2 * sectors < launch.least_read < 2 * sectors + 20  # and masks
    (writes,) = (line for line in launch.lines if line.kind == "global write")
    rows = images[..., 0].numel()
    assert (writes.requests, writes.cycles) == (rows, 4 * rows)  # 512 bytes: four lines


def test_strides_cost_sectors(counter):
    photo = torch.rand(1, 64, 512)
    boxes = torch.tensor([[0, 0, 128, 64]])

    def asked(planes):
        (launch,) = counter.count(lambda: crop_windows(planes, boxes, (64, 128)))
        return launch.asked("global read")

    assert asked(photo[..., ::4]) > 2 * asked(photo)


def test_shared_memory_is_counted_and_shares_of_time(counter, tool):
    features, weights = torch.randn(1, 64, 8, 8), torch.randn(1, 40, 64)
    (launch,) = counter.count(lambda: cam_project(features, weights))
    assert launch.kernel == "project_many_kernel"
    assert any(line.kind == "shared read" for line in launch.lines)
    device = tool.Device(multiprocessors=1, clock=1.0, bandwidth=32.0)  # a sector each cycle
    expected = launch.cycles / (launch.least_read + launch.least_written)
    assert device.busy(launch) == pytest.approx(expected)


@pytest.mark.usefixtures("counter")  # skips where nothing can be built
def test_the_command_line(tool, monkeypatch, capsys, tmp_path):
    file = tmp_path / "counts.json"
    arguments = ["cuda_traffic", "--small", "--work", "one map", "--lines", "--json", str(file)]
    monkeypatch.setattr("sys.argv", arguments)
    tool.main()
    printed = capsys.readouterr().out
    assert "project_render_kernel" in printed
    assert "project_cuda.h" in printed
    assert list(json.loads(file.read_text())) == ["one map, batch 32"]
    monkeypatch.setattr("sys.argv", ["cuda_traffic", "--work", "no such work"])
    with pytest.raises(SystemExit):
        tool.main()
    assert "'no such work'" in capsys.readouterr().err
