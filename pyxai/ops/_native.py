"""Finds the compiled modules and says why one is missing.

The only module that reads environment variables: `PYXAI_SIMD` (baseline, avx2, avx512 or
avx512vbmi) forces the instruction set of the CPU kernels.
"""

from __future__ import annotations

import functools
import os
from types import ModuleType
from typing import Any

import torch  # before _cpu, so that both share torch's OpenMP runtime

try:
    from pyxai.ops import _cpu
except ImportError as error:  # pragma: no cover - a broken installation
    raise ImportError(
        "pyxai: the compiled module pyxai.ops._cpu does not import; pyxai was not installed, or "
        "was built for another Python: run `pip install .` in its folder (and do not start Python "
        f"in a checkout that is not an editable install). Cause: {error}"
    ) from error

cpu = _cpu

# The numbers of csrc/common/dtype.h.
DTYPE_CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}

if os.environ.get("PYXAI_SIMD"):
    try:
        cpu.set_simd_level(os.environ["PYXAI_SIMD"])
    except ValueError as error:
        raise ImportError(f"environment variable PYXAI_SIMD: {error}") from None


class CudaUnavailableError(RuntimeError):
    """The CUDA kernels cannot run; the message says why and what to do."""


@functools.cache
def _load_cuda() -> ModuleType | ImportError:
    try:
        from pyxai.ops import _cuda
    except ImportError as error:
        return error
    return _cuda


def runs_on(architectures: str, capability: tuple[int, int]) -> bool:
    """Whether code for CMake's architectures ("80-real 90-real 120") runs on such a device.

    Machine code runs on devices of its major version that are not older; PTX, which only `-real`
    leaves out, on all that are not older. Names of CMake's ("all", "native") count as fitting.
    """
    for each in architectures.split():
        number, _, kind = each.partition("-")
        if not number[:-1].isdigit():
            return True
        if not number.isdigit():  # 90a: for that device alone
            if divmod(int(number[:-1]), 10) == capability:
                return True
            continue
        built = divmod(int(number), 10)
        if built <= capability and (kind != "real" or built[0] == capability[0]):
            return True
    return False


def cuda_status() -> dict[str, Any]:
    """What is known of the CUDA half: build, driver, devices, and why it is unusable, if it is.

    Returns:
        A dictionary with `built`, `toolkit`, `architectures`, `driver_version`, `device_count`,
        `devices` and `problem` (None when the kernels can run).
    """
    status: dict[str, Any] = dict.fromkeys(
        ("toolkit", "architectures", "driver_version", "device_count", "problem")
    )
    status["devices"] = []
    module = _load_cuda()
    status["built"] = not isinstance(module, ImportError)
    if isinstance(module, ImportError):
        status["problem"] = (
            "the CUDA kernels were not built: install again with a CUDA compiler (nvcc) on the "
            "PATH, or with PYXAI_CUDA=ON in the environment to see why it is not found"
        )
        return status
    status.update(module.build_info())
    device = module.device_status()
    status["driver_version"] = device["driver_version"]
    status["device_count"] = device["device_count"]
    if device["error"] is not None:
        status["problem"] = device["error"]
    elif torch.version.cuda is None:
        status["problem"] = "this torch was built without CUDA: install a CUDA build of torch"
    elif torch.cuda.is_available():
        devices = range(torch.cuda.device_count())
        status["devices"] = [torch.cuda.get_device_name(index) for index in devices]
        capabilities = [torch.cuda.get_device_capability(index) for index in devices]
        if not any(runs_on(status["architectures"], each) for each in capabilities):
            major, minor = capabilities[0]
            status["problem"] = (
                f"the CUDA kernels were built for the architectures {status['architectures']}, but "
                f"{status['devices'][0]} has compute capability {major}.{minor}: install again "
                f"with CUDAARCHS={major}{minor}-real in the environment"
            )
    else:
        status["problem"] = "torch finds no usable CUDA device (torch.cuda.is_available() is False)"
    return status


@functools.cache
def cuda() -> Any:
    """The module with the CUDA kernels.

    Raises:
        CudaUnavailableError: it is not there or cannot run; never falls back to the CPU.
    """
    problem = cuda_status()["problem"]
    if problem is not None:
        raise CudaUnavailableError(f"pyxai cannot run its CUDA kernels: {problem}")
    return _load_cuda()
