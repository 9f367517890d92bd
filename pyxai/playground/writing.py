"""The folder of a site: files with data, pictures, and what an earlier run has left."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pyxai._files import replacing, write_json

_RECORD = "build.json"
_TYPES = {"uint8": "<u1", "uint16": "<u2", "uint32": "<u4", "float32": "<f4"}


class SiteFolder:
    """Writes below `data/` of a site; every file all or nothing.

    A build has steps, each with a key that says what its files are made from. Files of a step with
    the same key are trusted, so that a run which was interrupted goes on; those of another key are
    deleted. docs/playground_files.md describes the files.
    """

    def __init__(self, root: Path) -> None:
        """Opens the folder, which is made if need be.

        Raises:
            ValueError: it holds other files than those of a site.
        """
        self.root = root
        self._data = root / "data"
        record = self._data / _RECORD
        if root.exists() and (not root.is_dir() or (any(root.iterdir()) and not record.exists())):
            raise ValueError(
                f"out: expected a new or empty folder, or that of a site, got {root}, which holds "
                f"other files"
            )
        self._data.mkdir(parents=True, exist_ok=True)
        self._keys = _keys_of(record) if record.exists() else {}
        self._begun: set[str] = set()
        if not record.exists():
            self._save()

    def begin(self, step: str, **key: Any) -> None:
        """Starts or continues a step; files of the step that were made from something else go.

        Args:
            step: the address below `data/` of a folder, or of files that begin with it.
            **key: what its files are made from; as JSON.
        """
        text = json.dumps(key, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        self._begun.add(step)
        if self._keys.get(step) != digest:
            self._delete(step)
            self._keys[step] = digest
            self._save()

    def finish(self) -> None:
        """Deletes the files of steps that belong to earlier builds only."""
        for step in sorted(set(self._keys) - self._begun):
            self._delete(step)
            del self._keys[step]
        self._save()

    def has(self, address: str) -> bool:
        """Whether there is such a file of data or, with its suffix, such a picture."""
        name = address if address.endswith(".jpg") else f"{address}.js"
        return (self._data / name).exists()

    def write(self, address: str, record: dict[str, Any]) -> None:
        """Writes a file of data."""
        # JSON in ASCII is a JavaScript expression; "<" is escaped for whoever inlines it.
        text = json.dumps(record, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
        path = self._data / f"{address}.js"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_text(f"playground.receive({json.dumps(address)}, {text});\n", "ascii")

    def read(self, address: str) -> dict[str, Any]:
        """What `write` has written."""
        return read_data(self._data / f"{address}.js")

    def picture(self, address: str, picture: Image.Image, quality: int = 85) -> None:
        """Writes a picture as a JPEG file; the address ends in ".jpg"."""
        path = self._data / address
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            picture.save(partial, "JPEG", quality=quality, optimize=True)

    def _delete(self, step: str) -> None:
        parent, name = (self._data / step).parent, (self._data / step).name
        for path in parent.glob(f"{name}*") if parent.is_dir() else ():
            if path.is_dir() and path.name == name:
                shutil.rmtree(path)
            elif path.is_file():
                path.unlink()

    def _save(self) -> None:
        write_json(self._data / _RECORD, self._keys)


def _keys_of(record: Path) -> dict[str, str]:
    """The keys of the steps of an earlier build.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        found: dict[str, str] = dict(json.loads(record.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        expected = "the record that a build left (delete the folder to begin anew)"
        raise ValueError(f"out: expected {expected}, got a damaged {record}: {error}") from error
    return found


def read_data(path: Path) -> dict[str, Any]:
    """A file of data, as `SiteFolder.write` has written it.

    Raises:
        ValueError: it is something else.
        OSError: it cannot be read.
    """
    text = path.read_text("ascii")
    if not text.startswith("playground.receive("):
        raise ValueError(f"{path}: expected a file of data of a site, got something else")
    found: dict[str, Any] = json.loads(text[text.index(", ") + 2 : text.rindex(")")])
    return found


def packed(values: NDArray[Any], kind: str) -> dict[str, Any]:
    """An array as the pages read it: "uint8", "uint16", "uint32" or "float32"."""
    data = np.ascontiguousarray(values, dtype=_TYPES[kind]).tobytes()
    return {
        "type": kind,
        "shape": [*values.shape],
        "data": base64.b64encode(data).decode("ascii"),
    }
