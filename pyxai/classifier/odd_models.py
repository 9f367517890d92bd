"""Models that cannot be explained as they are: what is said of them, and how to wrap them.

Only what others commonly bring is recognized; docs/your_model.md has a recipe for each.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from pyxai._errors import argument_error, describe
from pyxai._precision import is_autocast

_SEE = "docs/your_model.md shows how to wrap it"
_VOLUMES = (nn.Conv1d, nn.Conv3d)
_FIXED_BATCH = ("shape[0] to be equal to", "size()[0] ==", "Guard failed: x.shape[0]")
_NO_TENSOR = ("too many indices for tensor of dimension 4", "'Tensor' object has no attribute")


class WrongSizeError(ValueError, RuntimeError):
    """Images of a size that a network does not take.

    Also what the network raised, a `RuntimeError`, for those who try sizes.
    """


def check_model(model: object, or_else: str = "") -> nn.Module:
    """The model, if it is one that may be called with images.

    Args:
        model: what was given for one.
        or_else: what else would do, for the message.

    Raises:
        ValueError: it is something else, saying what to pass in its place.
    """
    expected = "a torch.nn.Module" + (
        f", pyxai.Classifier or {or_else}" if or_else else " or pyxai.Classifier"
    )
    hint = ""
    if isinstance(model, torch.export.ExportedProgram):
        hint = "; pass program.module()"
    elif isinstance(model, type) and issubclass(model, nn.Module):
        hint = f"; make one: {model.__name__}(...)"
    elif isinstance(model, str):
        hint = "; load it: pyxai.load_classifier(...)"
    elif isinstance(model, dict):
        hint = "; load weights into their network first: module.load_state_dict(...)"
    elif _is_predictor(model):
        inner = type(getattr(model, "model", None)).__name__
        hint = f"; that one predicts and draws: pass its network, .model (a {inner}). {_SEE}"
    elif isinstance(model, nn.Module):
        return model
    got = "a class" if isinstance(model, type) else describe(model)
    raise ValueError(f"model: expected {expected}, got {got}{hint}")


def _is_predictor(model: object) -> bool:
    """Whether this is an object of ultralytics that holds a network, and is no network itself."""
    ours = any(kind.__module__.startswith("ultralytics.engine") for kind in type(model).__mro__)
    return ours and isinstance(getattr(model, "model", None), nn.Module)


def check_numbers(model: nn.Module, images: torch.Tensor | None = None) -> None:
    """Refuses tensors that have a shape and no numbers.

    Raises:
        ValueError: the images or weights are on the device "meta".
    """
    bare = next((name for name, each in model.named_parameters() if each.is_meta), None)
    if bare is not None:
        raise ValueError(
            f"model: expected weights with numbers, got {bare!r} on the device 'meta', which has "
            "shapes alone; load the weights: module.to_empty(device='cpu'), then load_state_dict"
        )
    if images is not None and images.is_meta:
        raise argument_error("images", "tensors with numbers", images)


def check_embeds(model: nn.Module) -> None:
    """Refuses models that embed images and texts, where their embeddings are taken for logits.

    Raises:
        ValueError: it is one, such as CLIP.
    """
    if callable(getattr(model, "encode_image", None)):
        raise ValueError(
            f"model: expected one that returns logits, got {type(model).__name__}, which embeds "
            "images (encode_image); its classes are texts that they are compared with. "
            f"{_SEE}, or pass target as a function outputs -> scores [N]"
        )


def in_words(model: nn.Module, images: torch.Tensor, error: Exception) -> ValueError | None:
    """What an error of a model that was called with images is about, None if that is not known."""
    said = str(error)
    if isinstance(error, TypeError) and not _takes_images_alone(model):
        return ValueError(
            f"model: expected a module that is called with images alone, got {type(model).__name__}"
            f", whose forward is {_signature(model)}; {_SEE}"
        )
    if isinstance(error, (IndexError, AttributeError)) and any(each in said for each in _NO_TENSOR):
        return ValueError(
            f"model: expected a module that is called with a tensor of images, got "
            f"{type(model).__name__}, which takes its argument for something else "
            f"({type(error).__name__}: {said[:120]}); {_SEE}"
        )
    main = getattr(model, "main_input_name", "pixel_values")
    if isinstance(main, str) and main != "pixel_values":
        return ValueError(
            f"model: expected a module whose first argument is images, got {type(model).__name__}, "
            f"whose first is {main!r}; {_SEE}"
        )
    if any(each in said for each in _FIXED_BATCH):
        return ValueError(
            "model: expected one that takes any number of images, got a program that was exported "
            f"for a fixed number, and {len(images)} images ({said.splitlines()[0][:120]}); export "
            "it with dynamic_shapes, or pass batch_size=1 where that is offered"
        )
    if isinstance(error, RuntimeError):
        found = _about_input(model, images)
        if found is None and "shapes cannot be multiplied" in said:
            return WrongSizeError(
                f"images: expected the size that {type(model).__name__} was made for, got "
                f"{[*images.shape]} ({said.splitlines()[0][:120]}); photos come to that size by "
                "Classifier(model, preprocessing=pyxai.Preprocessing(resize=(height, width)))"
            )
        return found
    return None


def _about_input(model: nn.Module, images: torch.Tensor) -> ValueError | None:
    """What is wrong with the input, by the first layers of the model."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if (
        parameter is not None
        and parameter.dtype != images.dtype
        and not is_autocast(images.device.type)
    ):
        name = str(parameter.dtype).removeprefix("torch.")
        return argument_error("images", f"dtype {name}, the model's", images)
    layers = (each for each in model.modules() if isinstance(each, (nn.Conv2d, *_VOLUMES)))
    first: Any = next(layers, None)
    if isinstance(first, _VOLUMES):
        what = "video or volumes" if isinstance(first, nn.Conv3d) else "signals"
        return ValueError(
            f"model: expected a network of images [N, C, H, W], got {type(model).__name__}, which "
            f"begins with a {type(first).__name__} ({what}); {_SEE}"
        )
    if first is not None and images.ndim == 4 and images.shape[1] != first.in_channels:
        error = argument_error("images", f"a tensor [N, {first.in_channels}, H, W]", images)
        if images.shape[1] != 3:
            return error
        return ValueError(f"{error}; photos have three channels, so make such tensors of them")
    return None


def _takes_images_alone(model: nn.Module) -> bool:
    try:
        inspect.signature(model.forward).bind(None)
    except TypeError:
        return False
    except ValueError:  # it has no signature that Python knows
        return True
    return True


def _signature(model: nn.Module) -> str:
    return f"forward{inspect.signature(model.forward)}"[:160]


def quantized_hint(network: nn.Module) -> str:
    """A note for networks whose layers compute with small integers, "" for others."""
    kinds = (type(each).__module__ for each in network.modules())
    if any(".quantized" in kind for kind in kinds):
        return " (its layers are quantized: explain the float network that it was made from)"
    return ""
