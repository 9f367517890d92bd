"""A copy of a model that computes the same function faster."""

from __future__ import annotations

from typing import Any, overload

import torch
from torch import nn

from pyxai._errors import argument_error
from pyxai.classifier import Classifier, as_classifier
from pyxai.classifier.borrow import unwrap
from pyxai.classifier.odd_models import check_model, check_numbers
from pyxai.engines.torch.graphs import Graphed
from pyxai.engines.torch.making import Wishes, make
from pyxai.engines.torch.probing import images_for

__all__ = ["accelerate"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@overload
def accelerate(
    model: Classifier,
    *,
    dtype: torch.dtype | None = None,
    channels_last: bool = True,
    compile: bool = False,
    graphs: bool = False,
    probe: torch.Tensor | None = None,
    tolerance: float | None = None,
) -> Classifier: ...


@overload
def accelerate(
    model: nn.Module,
    *,
    dtype: torch.dtype | None = None,
    channels_last: bool = True,
    compile: bool = False,
    graphs: bool = False,
    probe: torch.Tensor | None = None,
    tolerance: float | None = None,
) -> nn.Module: ...


def accelerate(
    model: nn.Module | Classifier,
    *,
    dtype: torch.dtype | None = None,
    channels_last: bool = True,
    compile: bool = False,
    graphs: bool = False,
    probe: torch.Tensor | None = None,
    tolerance: float | None = None,
) -> nn.Module | Classifier:
    """A frozen copy of a model that computes the same function faster.

    Batch norms are folded into the layer before them. On the CPU, convolutions keep their weights
    in oneDNN's own order. Layers keep their names, so `layer="layer4.1"` means the same, and their
    outputs; only a convolution into which a norm was folded gives what the norm gave.
    docs/acceleration.md has the measured gains, the cost in memory and the limits.

    Args:
        model: an `nn.Module` or a `Classifier`. It stays as it is: the copy shares nothing with it
            but what its code shares. torch.compile and DataParallel are taken off. The copy has
            none of its forward and backward hooks.
        dtype: float32, bfloat16 or float16 for weights and activations; None keeps those of the
            model. With a dtype, callers still pass float32 images and get float32 outputs.
        channels_last: lays out weights and images with the channels last, which is faster for
            convolutions nearly everywhere.
        compile: return the copy in `torch.compile`, which compiles at the first call.
            `pyxai.cam` needs the layers and so runs the copy inside, uncompiled.
        graphs: record calls on a CUDA device as CUDA graphs, one for each shape of images that
            comes twice (the last four are kept), and replay them: for small batches, where the
            host takes longer than the device. `pyxai.cam` replays too where it needs no gradients.
            Calls that cannot be replayed run as usual, so does everything on the CPU;
            docs/cuda.md says which. Not together with `compile`.
        probe: images `[N, C, H, W]` to check the copy with; by default two of noise, of the size
            that the preprocessing makes, or 224 x 224.
        tolerance: how far outputs on the probe may lie from the model's, as a share of the largest
            one; by default 1e-3, and 5e-2 for half precision.

    Returns:
        The same kind as given, in evaluation mode, no parameter of which needs a gradient. It can
        be copied, pickled (where the model can), moved, and used by several threads.

    Raises:
        ValueError: an argument does not fit; the model is TorchScript, cannot be copied or does not
            run on the probe; or the copy's outputs are too far from the model's.
    """
    network = _network_of(model)
    check_numbers(network)
    if dtype is not None and dtype not in _DTYPES:
        raise argument_error("dtype", "torch.float32, bfloat16, float16 or None", dtype)
    if tolerance is not None and not tolerance >= 0:
        raise argument_error("tolerance", "a number of at least 0", tolerance)
    if compile and graphs:
        raise ValueError(
            "graphs: expected False with compile=True, got True (torch.compile has graphs of its "
            'own: torch.compile(model, mode="reduce-overhead"))'
        )
    # Tensors made in inference mode could never be differentiated, as heads are by Grad-CAM.
    with torch.inference_mode(False), torch.no_grad():
        images = images_for(network, probe, as_classifier(model).preprocessing)
        fast = make(network, images, Wishes(dtype, channels_last, tolerance))
    result: Any = torch.compile(fast) if compile else Graphed(fast) if graphs else fast
    if isinstance(model, Classifier):
        return Classifier(
            result,
            class_names=model.class_names,
            preprocessing=model.preprocessing,
            output=model.output,
            name=model.name,
        )
    module: nn.Module = result
    return module


def _network_of(model: nn.Module | Classifier) -> nn.Module:
    """The module with the layers.

    Raises:
        ValueError: it is no module, or has TorchScript in it.
    """
    given = model.model if isinstance(model, Classifier) else model
    network = unwrap(check_model(given))
    scripted = next((m for m in network.modules() if isinstance(m, torch.jit.ScriptModule)), None)
    if scripted is not None:
        raise argument_error(
            "model",
            "a module in Python (TorchScript hides its layers; torch.jit.freeze optimises it)",
            scripted,
        )
    return network
