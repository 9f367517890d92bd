"""Model files: exported programs, TorchScript, and weights alone.

What a file holds is told by its content and never by trying to unpickle it. Weights are read by
safetensors or by `torch.load(weights_only=True)`, TorchScript by torch's own reader, which knows no
Python objects. `torch.export.load` does unpickle, evaluate and execute parts of a file; so an
exported program is first reduced to plain data (see `pyxai.zoo.program`).
"""

from __future__ import annotations

import errno
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from pyxai._errors import argument_error, closest, describe
from pyxai.zoo import hubs
from pyxai.zoo.head import head_of, put_head
from pyxai.zoo.hubs import Loaded
from pyxai.zoo.model_file import CLASS_NAMES_FILE, ModelFileError, names_in
from pyxai.zoo.program import load_program
from pyxai.zoo.weights_file import State, Weights, read_weights

_NESTED = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_INSTEAD = (
    "save the weights alone (torch.save(model.state_dict(), FILE), or safetensors) and load them "
    "with architecture=, or save a program (torch.export.save)"
)


def load_file(
    path: str, architecture: str | nn.Module | None, *, with_preprocessing: bool = True
) -> Loaded:
    """Loads a model file.

    Args:
        path: the file.
        architecture: what the weights are for, where the file holds weights only.
        with_preprocessing: whether to work out that of the architecture.

    Raises:
        FileNotFoundError: there is no such file.
        ModelFileError: the file cannot be read, is refused, or does not fit the architecture.
        ValueError: an architecture is missing, unknown, or given where none is needed.
    """
    kind = _kind(path)
    if kind in ("program", "torchscript"):
        if architecture is not None:
            raise argument_error("architecture", f"None for {path}, a whole model", architecture)
        model, names = (load_program if kind == "program" else _torchscript)(path)
        return Loaded(model, names, None, None)
    if architecture is None:
        raise argument_error(
            "architecture",
            f"'torchvision:NAME', 'timm:NAME', 'demo' or a module for the weights in {path}",
            architecture,
        )
    found = read_weights(path) if kind == "safetensors" else Weights(_state_dict(path))
    return _with_weights(found, architecture, path, with_preprocessing)


def _with_weights(
    weights: Weights, architecture: str | nn.Module, path: str, with_preprocessing: bool
) -> Loaded:
    """The network that weights are for, filled with them."""
    state, names, preprocessing, head = weights
    if isinstance(architecture, nn.Module):
        model = architecture
    else:
        with_preprocessing = with_preprocessing and preprocessing is None
        built = _build(architecture, None, with_preprocessing)
        preprocessing, model = preprocessing or built.preprocessing, built.model
        state = _without_prefix(state, model)
        count = None if head is not None else _other_class_count(model, state)
        if count is not None:
            model = _build(architecture, count, False).model
    if head is not None and head.features * (head.hidden or head.classes) > _numbers(state):
        raise ModelFileError(path, "its head is larger than all that the file holds")
    if head is not None and head_of(model) != head:
        try:
            with torch.random.fork_rng(devices=[]):
                model = put_head(model, head)
        except ValueError as error:
            reason = f"its head does not fit the architecture ({error})"
            raise ModelFileError(path, reason) from error
    _fill(model, state, path)
    return Loaded(model, names, preprocessing, None)


# --------------------------------------------------------------------------------------------------
# What a file is


def _kind(path: str) -> str:
    """ "program", "torchscript", "safetensors" or "state dict" (also what is pickled otherwise)."""
    if not path or not Path(path).exists():
        raise FileNotFoundError(errno.ENOENT, "no such model file", path)
    if not Path(path).is_file():
        found = "a folder; one of save_pretrained is 'hf:FOLDER'"
        found = found if Path(path).is_dir() else "a device, pipe or socket"
        raise ModelFileError(path, f"expected a model file, found {found}")
    with Path(path).open("rb") as file:
        start = file.read(9)
    if start[:4] == b"PK\x03\x04":
        return _kind_of_zip(path)
    if start[8:] == b"{":
        return "safetensors"
    if start[:1] == b"\x80":
        return "state dict"
    if not start:
        raise ModelFileError(path, "the file is empty")
    raise ModelFileError(path, f"in no known format; it begins with {start!r}")


def _kind_of_zip(path: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {each.partition("/")[2] for each in archive.namelist()}
            top = {*archive.namelist()}
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise ModelFileError(path, f"the file is damaged or cut off ({error})") from error
    if "archive_format" in names:
        return "program"
    if "constants.pkl" in names or any(each.startswith("code/") for each in names):
        return "torchscript"
    if "data.pkl" in names:
        return "state dict"
    if "serialized_exported_program.json" in top:
        hint = "export it again with torch 2.8 or newer"
        raise ModelFileError(path, f"an exported program in an old, pickled format; {hint}")
    raise ModelFileError(path, "a zip file, but no model of torch")


# --------------------------------------------------------------------------------------------------
# Weights alone


def _state_dict(path: str) -> State:
    try:
        with warnings.catch_warnings():  # about the protocol of a pickle
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        what = f"asks for {asked[1]}" if asked else "holds more than tensors"
        raise ModelFileError(
            path,
            f"refused: the file {what}, so it is no plain state dict but pickled Python objects, "
            f"and reading those can run any code; {_INSTEAD}",
        ) from error
    except Exception as error:  # of the zip reader, of the unpickler, of tensors that lie
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelFileError(path, f"the file is damaged or cut off ({reason})") from error
    while isinstance(content, Mapping):
        inner = [key for key in _NESTED if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        content = content[inner[0]]
    if not isinstance(content, Mapping) or not content:
        raise ModelFileError(path, f"expected a state dict, found {describe(content)}")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            found = f"found {key!r} with {describe(value)}"
            raise ModelFileError(path, f"expected a state dict of tensors, {found}")
    return dict(content)


def _build(architecture: str, num_classes: int | None, with_preprocessing: bool) -> Loaded:
    """A network whose weights will be overwritten."""
    prefix, _, name = architecture.partition(":")
    with torch.random.fork_rng(devices=[]):
        if architecture == "demo":
            return hubs.demo(random=True, num_classes=num_classes)
        if prefix in ("torchvision", "timm"):
            build = hubs.LOADERS[prefix]
            return build(name, None, num_classes=num_classes, with_preprocessing=with_preprocessing)
    hint = closest(prefix, ["torchvision", "timm", "demo"])
    if prefix == "hf":
        hint = "; keep the weights with their config.json in a folder and load 'hf:FOLDER'"
    raise ValueError(
        "architecture: expected 'torchvision:NAME', 'timm:NAME', 'demo' or a module, "
        f"got {architecture!r}{hint}"
    )


def _without_prefix(state: State, model: nn.Module) -> State:
    """The state with the names that the model has: without what wrappers put before them."""
    expected = model.state_dict().keys()
    while not expected & state.keys():
        shared = [each for each in _PREFIXES if all(key.startswith(each) for key in state)]
        if not shared:
            break
        prefix = shared[0]
        state = {key[len(prefix) :]: value for key, value in state.items()}
    return state


def _other_class_count(model: nn.Module, state: State) -> int | None:
    """How many classes the weights have, if they fit but for that: all differ in axis 0 alike."""
    changes = set()
    for key, value in model.state_dict().items():
        given = state.get(key, value)
        if given.shape != value.shape:
            if not value.ndim or given.ndim != value.ndim or given.shape[1:] != value.shape[1:]:
                return None
            changes.add((value.shape[0], given.shape[0]))
    return changes.pop()[1] if len(changes) == 1 else None


def _numbers(state: State) -> int:
    return sum(each.numel() for each in state.values())


def _fill(model: nn.Module, state: State, path: str) -> None:
    """Copies the weights into a model, all of them or none."""
    state = _without_prefix(state, model)
    expected = model.state_dict()
    # Weights from before torch 0.4.1 do not count batches, and no network in use needs it.
    missing = [
        key for key in expected if key not in state and not key.endswith("num_batches_tracked")
    ]
    shapes = [
        f"{key} {[*state[key].shape]} for {[*value.shape]}"
        for key, value in expected.items()
        if key in state and isinstance(value, torch.Tensor) and state[key].shape != value.shape
    ]
    problems = [
        f"{len(found)} {what}: {', '.join(found[:3])}{', …' * (len(found) > 3)}"
        for what, found in (
            ("missing", missing),
            ("unexpected", [key for key in state if key not in expected]),
            ("of another shape", shapes),
        )
        if found
    ]
    if problems:
        reason = f"the weights do not fit the architecture ({'; '.join(problems)})"
        raise ModelFileError(path, reason)
    counters = {key: value for key, value in expected.items() if key not in state}
    model.load_state_dict({**state, **counters}, strict=True)


# --------------------------------------------------------------------------------------------------
# TorchScript


def _torchscript(path: str) -> tuple[nn.Module, tuple[str, ...] | None]:
    extra: dict[str, str | bytes] = {CLASS_NAMES_FILE: ""}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit.* (is deprecated|not supported)")
            load = cast(Any, torch.jit).load
            model = load(path, map_location="cpu", _extra_files=extra)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelFileError(path, f"the TorchScript file cannot be read ({reason})") from error
    return cast(nn.Module, model), names_in(extra[CLASS_NAMES_FILE], path)
