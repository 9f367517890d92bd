"""Model files: exported programs, TorchScript, and weights alone.

What a file holds is told by its content and never by trying to unpickle it. Weights are read by
safetensors or by `torch.load(weights_only=True)`, TorchScript by torch's own reader, which knows no
Python objects. `torch.export.load` does unpickle, evaluate and execute parts of a file; so an
exported program is first reduced to plain data (see `_reduced`).
"""

from __future__ import annotations

import errno
import io
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.export.pt2_archive import PT2ArchiveReader, PT2ArchiveWriter

from pyxai._errors import argument_error, closest, describe
from pyxai.zoo import hubs
from pyxai.zoo.hubs import Loaded

State = dict[str, torch.Tensor]

CLASS_NAMES_FILE = "class_names.json"
"""Extra file of an exported program or of TorchScript with the class names, a JSON list."""

_NESTED = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_INSTEAD = (
    "save the weights alone (torch.save(model.state_dict(), FILE), or safetensors) and load them "
    "with architecture=, or save a program (torch.export.save)"
)


class ModelFileError(ValueError):
    """A model file that cannot be read, is refused, or does not fit; the message names it."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


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
        model, names = (_program if kind == "program" else _torchscript)(path)
        return Loaded(model, names, None, None)
    if architecture is None:
        raise argument_error(
            "architecture",
            f"'torchvision:NAME', 'timm:NAME', 'demo' or a module for the weights in {path}",
            architecture,
        )
    state, names = (_safetensors if kind == "safetensors" else _state_dict)(path)
    if isinstance(architecture, nn.Module):
        _fill(architecture, state, path)
        return Loaded(architecture, names, None, None)
    found = _build(architecture, None, with_preprocessing)
    state = _without_prefix(state, found.model)
    count = _other_class_count(found.model, state)
    if count is not None:
        preprocessing = found.preprocessing
        found = _build(architecture, count, False)._replace(preprocessing=preprocessing)
    _fill(found.model, state, path)
    return Loaded(found.model, names, found.preprocessing, None)


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


def _names(text: str | bytes | None, path: str) -> list[str] | None:
    """Class names from a JSON list."""
    if not text:
        return None
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise ModelFileError(path, "its class names are not a JSON list of strings")
    return names


# --------------------------------------------------------------------------------------------------
# Weights alone


def _safetensors(path: str) -> tuple[State, list[str] | None]:
    try:
        with safe_open(path, framework="pt") as file:
            names = (file.metadata() or {}).get("class_names")
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelFileError(path, f"the file is damaged or cut off ({error})") from error
    return state, _names(names, path)


def _state_dict(path: str) -> tuple[State, None]:
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
    return dict(content), None


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


def _torchscript(path: str) -> tuple[nn.Module, list[str] | None]:
    extra: dict[str, str | bytes] = {CLASS_NAMES_FILE: ""}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit.* (is deprecated|not supported)")
            load = cast(Any, torch.jit).load
            model = load(path, map_location="cpu", _extra_files=extra)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelFileError(path, f"the TorchScript file cannot be read ({reason})") from error
    return cast(nn.Module, model), _names(extra[CLASS_NAMES_FILE], path)


# --------------------------------------------------------------------------------------------------
# Exported programs


def _program(path: str) -> tuple[nn.Module, list[str] | None]:
    archive, names = _reduced(path)
    try:
        with _quiet():
            return torch.export.unflatten(torch.export.load(archive)), names
    except Exception as error:  # SerializeError, KeyError, AssertionError, ...
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = "; it may come from another version of torch: export it again"
        raise ModelFileError(path, f"the program cannot be read ({reason}){hint}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warning about its own use of a deprecated class."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        yield


_PROGRAM = "models/model.json"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_TENSORS = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_IGNORED = re.compile(
    r"archive_format|archive_version|version|byteorder|\.\w+|\.data/\w+"
    r"|extra/.*|data/sample_inputs/model\.pt"
)
_NAME = re.compile(r"[\w.@-]*", re.ASCII)  # of modules too: "block1.block1-0", "relu@1"
_PLAIN = re.compile(r"[\w.@:>, -]*", re.ASCII)  # "bchw,kc->bkhw" for einsum
_ARITHMETIC = re.compile(
    r"_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_)"
    r"|math\.(floor|ceil|trunc|sqrt)|torch\.sym_(int|float|max|min|not|ite|sum|sqrt)"
)
_SYMBOL = re.compile(r"z?[suf]+\d+", re.ASCII)  # a size that is not fixed: "s77", "u0"
_FUNCTION = re.compile(  # of sizes, as sympy spells them
    r"Symbol|Integer|Rational|Add|Mul|Pow|integer|positive|nonnegative|True|False"
    r"|FloorDiv|ModularIndexing|Where|PythonMod|Mod|CleanDiv|CeilToInt|FloorToInt|CeilDiv"
    r"|PowByNatural|FloatPow|FloatTrueDiv|IntTrueDiv|TruncToInt|TruncToFloat|RoundToInt|ToFloat"
    r"|Identity|Max|Min|floor|ceiling|Equality|Unequality|StrictLessThan|LessThan"
    r"|StrictGreaterThan|GreaterThan|And|Or|Not|Eq|Ne|Lt|Le|Gt|Ge"
)
_CONTAINERS = ("builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")


class _Refused(Exception):
    """What is in a program that has no place in a classifier; the message says it."""


def _reduced(path: str) -> tuple[io.BytesIO, list[str] | None]:
    """A copy of an exported program without anything that torch would unpickle, evaluate or run.

    `torch.export.load` unpickles sample inputs, weights and constants where the file says that they
    are pickled, opens compiled libraries, evaluates symbolic sizes as Python, imports modules that
    containers name, and looks operators up among all that is reachable from `torch` (its verifier
    objects to most others, later); the names of nodes become Python source. So only what is known
    goes into the copy, as plain data: raw tensors, aten operators, and names that are names.
    Tensors of other devices come on the CPU.
    """
    try:
        with PT2ArchiveReader(path) as reader:
            records = [*reader.get_file_names()]
            unknown = [
                each
                for each in records
                if each not in (_PROGRAM, *_CONFIGS)
                and not _TENSORS.fullmatch(each)
                and not _IGNORED.fullmatch(each)
            ]
            if unknown:
                raise _Refused(f"it holds {unknown[0]!r}")
            copy = io.BytesIO()
            with PT2ArchiveWriter(cast(Any, copy)) as writer:
                program = _checked_program(json.loads(reader.read_bytes(_PROGRAM)))
                writer.write_string(_PROGRAM, json.dumps(program))
                for each in _CONFIGS:
                    config = _checked_config(json.loads(reader.read_bytes(each)))
                    writer.write_string(each, json.dumps(config))
                for each in filter(_TENSORS.fullmatch, records):
                    writer.write_bytes(each, reader.read_bytes(each))
                writer.write_bytes("data/sample_inputs/model.pt", b"")
            extra = f"extra/{CLASS_NAMES_FILE}"
            names = reader.read_bytes(extra) if extra in records else None
    except _Refused as error:
        raise ModelFileError(
            path, f"refused: {error}, which is more than the tensors and operators of a classifier"
        ) from error
    except Exception as error:  # the reader's RuntimeError, AssertionError; JSON; missing keys
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelFileError(path, f"the program is damaged or cut off ({reason})") from error
    copy.seek(0)
    return copy, _names(names, path)


def _checked_program(program: dict[str, Any]) -> dict[str, Any]:
    graph = {**program["graph_module"], "metadata": {}, "treespec_namedtuple_fields": {}}
    kept = ("opset_version", "range_constraints", "schema_version", "verifiers", "torch_version")
    # The guards of inputs are Python source; they only word errors earlier.
    program = {each: program[each] for each in kept} | {"graph_module": graph, "guards_code": []}
    return cast(dict[str, Any], _checked(program, "program"))


def _checked_config(config: dict[str, Any]) -> dict[str, Any]:
    for name, payload in config["config"].items():
        if payload["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", payload["path_name"]):
            raise _Refused(f"{name!r} is a pickled object")
    return cast(dict[str, Any], _checked(config, "config"))


def _checked(value: Any, key: str) -> Any:
    """The same JSON, once every string in it is known to be harmless; what is under `key`."""
    if isinstance(value, Mapping):
        if {*value} == {"type", "index"}:  # a device
            return {"type": "cpu", "index": None}
        if key == "metadata":
            stack = value.get("nn_module_stack")
            return {} if stack is None else {"nn_module_stack": _checked_stack(stack)}
        return {_checked_name(each): _checked(inner, each) for each, inner in value.items()}
    if isinstance(value, list):
        return [_checked(each, key) for each in value]
    if not isinstance(value, str):
        return value
    if key == "expr_str":
        return _checked_expression(value)
    if key in ("in_spec", "out_spec"):
        return json.dumps(_checked_spec(json.loads(value)))
    if key == "target":
        return _checked_operator(value)
    if key in ("as_string", "torch_version"):
        if not _PLAIN.fullmatch(value.replace("+", "")):
            raise _Refused(f"it holds the text {value[:80]!r}")
        return value
    if key in ("name", "as_name") and not value.isidentifier() and value:  # becomes Python source
        raise _Refused(f"it holds the name {value[:80]!r}")
    return _checked_name(value)


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name) or any(part.startswith("__") for part in name.split(".")):
        raise _Refused(f"it holds the name {name[:80]!r}")
    return name


def _checked_stack(stack: str) -> str:
    """Which modules an operator was called in: "key,path,class;…"; the class is only for show."""
    levels = []
    for level in stack.split(";"):
        key, path, *_ = level.split(",")
        levels.append(f"{_checked_name(key)},{_checked_name(path)},Module")
    return ";".join(levels)


def _checked_operator(target: str) -> str:
    if _ARITHMETIC.fullmatch(target):
        return target
    found = re.fullmatch(r"torch\.ops\.aten\.(\w+)\.(\w+)", target, re.ASCII)
    if found and found[1] != "from_file":
        operator = getattr(getattr(torch.ops.aten, found[1], None), found[2], None)
        if isinstance(operator, torch._ops.OpOverload):
            return target
    raise _Refused(f"it calls {target[:80]!r}")


def _checked_expression(text: str) -> str:
    """A size such as "Mul(Integer(2), Symbol('s77'))", which sympy evaluates as Python."""
    bare = re.sub(rf"'({_SYMBOL.pattern})'", r"\1", text, flags=re.ASCII)
    words = re.findall(r"[^\W\d]\w*", bare)
    known = all(_SYMBOL.fullmatch(each) or _FUNCTION.fullmatch(each) for each in words)
    if not known or not re.fullmatch(r"[\w\s(),=+*/%<>&|~-]*", bare, re.ASCII):
        raise _Refused(f"it computes a size as {text[:80]!r}")
    return text


def _checked_spec(spec: Any) -> Any:
    """How arguments or results are nested."""
    if isinstance(spec, list):
        return [each if isinstance(each, int) else _checked_spec(each) for each in spec]
    if spec["type"] is not None and spec["type"] not in _CONTAINERS:
        raise _Refused(f"it takes or returns {str(spec['type'])[:80]!r}")
    context = None if spec["context"] is None else json.loads(spec["context"])
    keys: Sequence[Any] = context or []
    if not isinstance(keys, list) or not all(isinstance(each, (str, int)) for each in keys):
        raise _Refused("it takes or returns a container with odd keys")
    children = [_checked_spec(each) for each in spec["children_spec"]]
    return {"type": spec["type"], "context": spec["context"], "children_spec": children}


__all__ = ["CLASS_NAMES_FILE", "ModelFileError", "load_file"]
