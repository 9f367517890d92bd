"""Files whose parts carry digests, so that a damaged one is an error and never other content."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open

from pyxai._files import replacing, write_json

_KEY = "digest"
_DIGESTS = "digests"  # of the metadata of a safetensors file: those of its parts, and of the rest
_REST = ""
_CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}


class DamagedError(ValueError):
    """A file that is not as it was written; the message names the file and the part."""

    def __init__(self, path: object, part: str) -> None:
        super().__init__(f"{path} is damaged: {part} is not as it was written")
        self.part = part


def digest(parts: Iterable[Any]) -> str:
    """Of bytes, one after the other: 32 hexadecimal digits."""
    found = _hash()
    for part in parts:
        found.update(part)
    return str(found.hexdigest())


def file_digest(path: Path) -> str:
    """Of the bytes of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return digest(iter(lambda: file.read(1 << 20), b""))


# ---- records: JSON ----


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of JSON values with its digest, under a key that it must not have itself."""
    plain = json.loads(json.dumps(record))  # keys are texts then, as they are when it is read
    if _KEY in plain:
        raise ValueError(f"record: expected one without {_KEY!r}, which is that of the record")
    return {**plain, _KEY: _of_record(plain)}


def unsealed(record: Any, name: object) -> dict[str, Any]:
    """What was sealed.

    Args:
        record: as JSON gave it back.
        name: of the file, for the error.

    Raises:
        DamagedError: it is not what was sealed.
    """
    if not isinstance(record, dict) or _KEY not in record:
        raise DamagedError(name, "the record")
    rest = {key: value for key, value in record.items() if key != _KEY}
    if record[_KEY] != _of_record(rest):
        raise DamagedError(name, "the record")
    return rest


def write_record(path: Path, record: Mapping[str, Any], *, indent: int | None = None) -> None:
    """Writes a sealed record, all or nothing."""
    write_json(path, sealed(record), indent=indent)


def read_record(path: Path) -> dict[str, Any]:
    """Reads what `write_record` wrote.

    Raises:
        DamagedError: it is something else.
        OSError: it cannot be read.
    """
    try:
        record = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DamagedError(path, "the record") from error
    return unsealed(record, path)


def _of_record(record: Mapping[str, Any]) -> str:
    return digest([json.dumps(record, sort_keys=True, separators=(",", ":")).encode("ascii")])


# ---- tensors: safetensors ----


def save_tensors(
    path: Path,
    tensors: Mapping[str, torch.Tensor | Sequence[torch.Tensor]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a safetensors file, all or nothing; equal content gives equal bytes.

    Args:
        path: of the file.
        tensors: by name; or pieces `[n_i, ...]`, which are written as one `[n, ...]` and of which
            no more than one is copied.
        metadata: texts.

    Raises:
        ValueError: safetensors has no such type.
    """
    pieces = {
        name: [value] if isinstance(value, torch.Tensor) else list(value)
        for name, value in tensors.items()
    }
    # Wide numbers first: each tensor then begins at a multiple of the size of its numbers.
    order = sorted(pieces, key=lambda name: (-pieces[name][0].element_size(), name))
    entries: dict[str, Any] = {}
    offset = 0
    for name in order:
        entries[name], offset = _entry(name, pieces[name], offset)
    said = dict(sorted((metadata or {}).items()))
    digests = dict.fromkeys(sorted(entries), "0" * 32)
    digests[_REST] = _of_rest(said, entries)
    with replacing(path) as partial, partial.open("wb") as file:
        _write_header(file, said, digests, entries)
        for name in order:
            found = _hash()
            for piece in pieces[name]:
                data = _bytes(piece)
                found.update(data)
                file.write(data)
            digests[name] = found.hexdigest()
        file.seek(0)
        _write_header(file, said, digests, entries)  # as long as the first time


@dataclass(frozen=True)
class TensorFile:
    """What `save_tensors` wrote, mapped into memory.

    Attributes:
        path: of the file.
        metadata: texts.
        tensors: by name; those that `checked` has not seen may be damaged.
    """

    path: Path
    metadata: dict[str, str]
    tensors: dict[str, torch.Tensor]
    _digests: dict[str, str] | None

    @property
    def sealed(self) -> bool:
        """Whether it has digests; in a file of others nothing can be checked."""
        return self._digests is not None

    def checked(self, name: str) -> torch.Tensor:
        """A tensor that is as it was written; reads all of it.

        Raises:
            DamagedError: it is not.
        """
        tensor = self.tensors[name]
        if self._digests is not None and digest([_bytes(tensor)]) != self._digests[name]:
            raise DamagedError(self.path, repr(name))
        return tensor


def map_tensors(path: Path, *, of_others: bool = False) -> TensorFile:
    """Opens what `save_tensors` wrote; what names, shapes and metadata say is checked.

    Args:
        path: of the file.
        of_others: also takes a safetensors file without digests.

    Raises:
        DamagedError: it is something else.
        OSError: it cannot be read.
    """
    found = _open(path)
    if not (found.sealed or of_others):
        raise DamagedError(path, "the header")
    return found


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors and metadata of what `save_tensors` wrote, all of it checked.

    Raises:
        DamagedError: it is something else.
        OSError: it cannot be read.
    """
    file = map_tensors(path)
    return {name: file.checked(name) for name in file.tensors}, file.metadata


def _open(path: Path) -> TensorFile:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except (SafetensorError, ValueError, OverflowError, RuntimeError) as error:
        raise DamagedError(path, "the header") from error
    if _DIGESTS not in metadata:
        return TensorFile(path, metadata, tensors, None)
    try:
        digests = dict(json.loads(metadata.pop(_DIGESTS)))
    except (ValueError, TypeError) as error:
        raise DamagedError(path, "the header") from error
    shapes = {
        name: {"dtype": _CODES.get(each.dtype), "shape": [*each.shape]}
        for name, each in tensors.items()
    }
    if digests.get(_REST) != _of_rest(metadata, shapes) or {*digests} != {_REST, *tensors}:
        raise DamagedError(path, "the header")
    return TensorFile(path, metadata, tensors, digests)


def _entry(name: str, pieces: Sequence[torch.Tensor], offset: int) -> tuple[dict[str, Any], int]:
    """What the header says of a tensor, and where the next one begins."""
    first = pieces[0]
    if first.dtype not in _CODES or any(piece.dtype != first.dtype for piece in pieces):
        raise ValueError(f"{name}: expected a type of safetensors, got {first.dtype}")
    shape = [*first.shape]
    if len(pieces) > 1:
        shape[0] = sum(len(piece) for piece in pieces)
    end = offset + sum(piece.numel() for piece in pieces) * first.element_size()
    return {"dtype": _CODES[first.dtype], "shape": shape, "data_offsets": [offset, end]}, end


def _write_header(
    file: BinaryIO,
    metadata: Mapping[str, str],
    digests: Mapping[str, str],
    entries: Mapping[str, Any],
) -> None:
    said = {**metadata, _DIGESTS: json.dumps(digests)}
    text = json.dumps({"__metadata__": said, **entries}).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)


def _of_rest(metadata: Mapping[str, str], entries: Mapping[str, Any]) -> str:
    """The digest of all that is not in a tensor."""
    shapes = {name: [entry["dtype"], entry["shape"]] for name, entry in entries.items()}
    return _of_record({"metadata": dict(metadata), "tensors": shapes})


def _bytes(tensor: torch.Tensor) -> Any:
    plain = tensor.detach().to("cpu").contiguous()
    plain = plain.as_strided((plain.numel(),), (1,))  # a single number may have another stride
    return plain.view(torch.uint8).numpy().data


def _hash() -> Any:
    return hashlib.blake2b(digest_size=16)
