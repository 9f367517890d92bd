"""What the public operators share: which way a call goes, and checks of their arguments."""

from __future__ import annotations

from typing import Any

import torch

from pyxai._errors import describe
from pyxai.ops import reference


def operators() -> Any:
    """The operators registered with torch, or the references where those would not do.

    Torch can neither batch an operator from Python nor differentiate it in function transforms
    (vmap, grad), and ONNX has no such operators.
    """
    if torch._C._are_functorch_transforms_active():
        return reference
    # ONNX export either compiles or traces. Asking it first would cost more than all else here.
    if (torch.compiler.is_compiling() or torch._C._is_tracing()) and (
        torch.onnx.is_in_onnx_export()
    ):
        return reference
    return torch.ops.pyxai


def is_direct(*tensors: torch.Tensor) -> bool:
    """Whether the kernel may be called by address; the first tensor's dtype chooses the kernel."""
    # Whoever records or transforms operators (torch.compile, torch.jit.trace, ONNX export, vmap,
    # dispatch modes) must see them.
    if (
        torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
    ):
        return False
    for tensor in tensors:
        if type(tensor) is not torch.Tensor and type(tensor) is not torch.nn.Parameter:
            return False
        if tensor.requires_grad and torch.is_grad_enabled():
            return False
        if not tensor.is_cpu and not tensor.is_cuda:
            return False
    return tensors[0].dtype is not torch.float64


def check_same_device(**tensors: torch.Tensor) -> None:
    """Raises ValueError if the tensors, given by the names of the arguments, lie apart."""
    devices = {name: tensor.device for name, tensor in tensors.items()}
    if len(set(devices.values())) > 1:
        listed = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ValueError(f"{', '.join(devices)}: expected one device, got {listed}")


def check_out(
    out: torch.Tensor,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    *inputs: torch.Tensor,
    or_channels_last: bool = False,
) -> None:
    """Raises ValueError unless `out` can take a result of this shape and dtype from `inputs`."""
    dense = out.is_contiguous() or (
        or_channels_last and out.is_contiguous(memory_format=torch.channels_last)
    )
    device = inputs[0].device
    if out.shape != shape or out.dtype is not dtype or out.device != device or not dense:
        name = str(dtype).removeprefix("torch.")
        layout = "contiguous or channels_last" if or_channels_last else "contiguous"
        expected = f"a {layout} {name} tensor {list(shape)} on {device}"
        suffix = "" if dense else ", not contiguous"
        raise ValueError(f"out: expected {expected}, got {describe(out)}{suffix}")
    needed = torch.is_grad_enabled() and any(each.requires_grad for each in inputs)
    if out.requires_grad or needed:
        raise ValueError("out: expected no gradient to be needed, got requires_grad=True")
