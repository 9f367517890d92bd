"""Exported programs, without the parts of their files that torch would unpickle or execute."""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from pyxai.zoo.model_file import CLASS_NAMES_FILE, ModelFileError, names_in
from pyxai.zoo.operators import is_known, without_shortcuts


def load_program(path: str) -> tuple[nn.Module, tuple[str, ...] | None]:
    """A program that `torch.export.save` wrote, with its modules, and its class names if any.

    Raises:
        ModelFileError: the file is damaged, of another version, or holds more than a classifier.
    """
    from torch.export.pt2_archive._package import load_pt2  # and with it the compiler: for seconds

    archive, names = _reduced(path)
    try:
        with _quiet():
            program = load_pt2(archive).exported_programs["model"]
            without_shortcuts(program.graph_module)
            return torch.export.unflatten(program), names
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
_SYMBOL = re.compile(r"z?[suf]+\d+", re.ASCII)  # a size that is not fixed: "s77", "u0"
_FUNCTION = re.compile(  # of sizes, as sympy spells them
    r"Symbol|Integer|Rational|Add|Mul|Pow|integer|positive|nonnegative|True|False"
    r"|FloorDiv|ModularIndexing|Where|PythonMod|Mod|CleanDiv|CeilToInt|FloorToInt|CeilDiv"
    r"|PowByNatural|FloatPow|FloatTrueDiv|IntTrueDiv|TruncToInt|TruncToFloat|RoundToInt|ToFloat"
    r"|Identity|Max|Min|floor|ceiling|Equality|Unequality|StrictLessThan|LessThan"
    r"|StrictGreaterThan|GreaterThan|And|Or|Not|Eq|Ne|Lt|Le|Gt|Ge"
)
_STRIDED = 7  # the layout of plain tensors, by torch's number in these files
_CONTAINERS = ("builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")


class _Refused(Exception):
    """What is in a program that has no place in a classifier; the message says it."""


def _reduced(path: str) -> tuple[io.BytesIO, tuple[str, ...] | None]:
    """A copy of an exported program without anything that torch would unpickle, evaluate or run.

    `torch.export.load` unpickles sample inputs, weights and constants where the file says that they
    are pickled, opens compiled libraries, evaluates symbolic sizes as Python, imports modules that
    containers name, and looks operators up among all that is reachable from `torch` (its verifier
    objects to most others, later); the names of nodes become Python source. So only what is known
    goes into the copy, as plain data: raw tensors, aten operators, and names that are names.
    Tensors of other devices come on the CPU.
    """
    from torch.export.pt2_archive import PT2ArchiveReader, PT2ArchiveWriter

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
                empty = set()
                for each in filter(_TENSORS.fullmatch, records):
                    content = reader.read_bytes(each)
                    writer.write_bytes(each, content)
                    if not content:
                        empty.add(each.rpartition("/")[2])
                for each in _CONFIGS:
                    config = _checked_config(json.loads(reader.read_bytes(each)), empty)
                    writer.write_string(each, json.dumps(config))
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
    return copy, names_in(names, path)


def _checked_program(program: dict[str, Any]) -> dict[str, Any]:
    graph = {**program["graph_module"], "metadata": {}, "treespec_namedtuple_fields": {}}
    kept = ("opset_version", "range_constraints", "schema_version", "verifiers", "torch_version")
    # The guards of inputs are Python source; they only word errors earlier.
    program = {each: program[each] for each in kept} | {"graph_module": graph, "guards_code": []}
    return cast(dict[str, Any], _checked(program, "program"))


def _checked_config(config: dict[str, Any], empty: set[str]) -> dict[str, Any]:
    for name, payload in config["config"].items():
        path = payload["path_name"]
        if payload["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", path):
            raise _Refused(f"{name!r} is a pickled object")
        # torch would take zeros.
        if path in empty and {"as_int": 0} not in payload["tensor_meta"]["sizes"]:
            raise ValueError(f"{name!r} has no numbers")
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
    if key in ("layout", "as_layout") and value not in (None, _STRIDED):
        raise _Refused("it makes tensors that are not dense")
    return _checked_text(value, key) if isinstance(value, str) else value


def _checked_text(value: str, key: str) -> str:
    """A string of the JSON, known to be harmless for what is read from under its key."""
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
    if not is_known(target):
        raise _Refused(f"it calls {target[:80]!r}")
    return target


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
