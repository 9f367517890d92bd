"""What all benchmarks share: a warm allocator, the number of threads, the machine on record."""

from __future__ import annotations

import os
import platform

import pytest
import torch
import workloads

import pyxai
from pyxai.ops import _native

collect_ignore = ["peers"]  # scripts, each for packages of its own


def pytest_configure(config):
    if workloads.is_allocator_warm():
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.stop_global_capturing()
    workloads.keep_allocator_warm()  # the process starts again


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["processor_model"] = _processor()
    machine_info["torch"] = torch.__version__
    machine_info["pyxai"] = pyxai.__version__
    machine_info["simd"] = _native.cpu.simd_level()
    machine_info["allocator"] = "warm" if "MALLOC_TOP_PAD_" in os.environ else "default"
    if torch.cuda.is_available():
        machine_info["gpu"] = torch.cuda.get_device_name()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:  # noqa: PTH123
            return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()


@pytest.fixture(params=[1, 2], ids="threads={}".format)
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
