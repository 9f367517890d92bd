"""What every result can do: show itself, become data or a table, and be written to a file."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pyxai._errors import MissingExtraError, argument_error
from pyxai._files import refuse_other_file, replacing, write_json, write_table
from pyxai._sealed import map_tensors, save_tensors
from pyxai.draw.page import table, text

if TYPE_CHECKING:
    import pandas as pd

Rows: TypeAlias = "tuple[Sequence[str], Sequence[Sequence[Any]]]"
"""The names of the columns, and the rows."""

_NOTEBOOK = 200_000  # bytes of what a notebook is handed; it keeps all of it in its file
_PICTURE, _LISTED, _CELL = 90_000, 50, 120  # of an HTML table: bytes, rows, characters of a cell
_LINE = 200  # characters of a repr
_MARK = "pyxai"


class Result(ABC):
    """What a public call returns beside tensors: `frozen`, compared by identity.

    A subclass is a dataclass with `frozen=True, eq=False, repr=False`. Its public fields are what
    was found out; `failures`, where it is about many photos, names those that could not be used.
    """

    @abstractmethod
    def _facts(self) -> str:
        """A few words for the repr."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """What was found, as JSON takes it.

        Numbers that are not finite become None. What has a value for every pixel is told by its
        shape and range; `save("x.safetensors")` writes all of it.
        """

    @abstractmethod
    def figure(self) -> Image.Image:
        """The result as a picture with its labels."""

    def __repr__(self) -> str:
        line = f"{type(self).__name__}({self._facts()})"
        return line if len(line) <= _LINE else f"{line[: _LINE - 2]}…)"

    def _repr_png_(self) -> bytes:
        """What a notebook shows: `figure()` in fewer than 200 kB."""
        return png_of(self.figure())

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes one file; its suffix says what is in it.

        Args:
            path: `.png`, the figure; `.json`, `to_dict()`; `.csv`, the table, where there is one;
                `.safetensors`, the tensors, where there are any. What an earlier call has written
                there for a result of the same kind is replaced.

        Returns:
            The path.

        Raises:
            ValueError: the suffix is another one, or something else has this path.
        """
        file = Path(path)
        writers = self._writers()
        if file.suffix.lower() not in writers:
            raise argument_error("path", f"a file of {' or '.join(writers)}", str(file))
        kind = type(self).__name__
        refuse_other_file("path", file, f"a saved {kind}", self._wrote)
        writers[file.suffix.lower()](file)
        return file

    def _writers(self) -> dict[str, Callable[[Path], None]]:
        """What can be written, by suffix."""
        writers: dict[str, Callable[[Path], None]]
        writers = {".png": self._write_picture, ".json": self._write_record}
        if self._tensors():
            writers[".safetensors"] = self._write_tensors
        return writers

    def _tensors(self) -> dict[str, torch.Tensor]:
        """What a file of tensors holds; nothing for results that are not made of them."""
        return {}

    def _write_picture(self, path: Path) -> None:
        said = PngInfo()
        said.add_text(_MARK, type(self).__name__)
        picture = self.figure()
        with replacing(path) as partial:
            picture.save(partial, pnginfo=said)

    def _write_record(self, path: Path) -> None:
        write_json(path, {_MARK: type(self).__name__, **self.to_dict()})

    def _write_tensors(self, path: Path) -> None:
        record = json.dumps(self.to_dict())
        save_tensors(path, self._tensors(), {_MARK: type(self).__name__, "result": record})

    def _wrote(self, path: Path) -> bool:
        """Whether a file is a result of this kind, or empty."""
        if path.stat().st_size == 0:
            return True
        suffix, said = path.suffix.lower(), None
        if suffix == ".png":
            with Image.open(path) as picture:
                said = picture.info.get(_MARK)
        elif suffix == ".json":
            said = json.loads(path.read_bytes()).get(_MARK)
        elif suffix == ".safetensors":
            said = map_tensors(path).metadata.get(_MARK)
        return said == type(self).__name__


class Table(Result):
    """A result that is also a table."""

    @abstractmethod
    def _table(self) -> Rows:
        """Its columns and rows."""

    def to_pandas(self) -> pd.DataFrame:
        """The table as a data frame.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingExtraError("to_pandas", "pandas", "pandas") from error
        columns, rows = self._table()
        return pd.DataFrame([[*row] for row in rows], columns=[*columns])

    def _writers(self) -> dict[str, Callable[[Path], None]]:
        return {**super()._writers(), ".csv": self._write_table}

    def _write_table(self, path: Path) -> None:
        columns, rows = self._table()
        write_table(path, columns, ([_cell(each) for each in row] for row in rows))

    def _wrote(self, path: Path) -> bool:
        if path.suffix.lower() != ".csv" or path.stat().st_size == 0:
            return super()._wrote(path)
        head = io.StringIO(newline="")
        csv.writer(head).writerow(self._table()[0])
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            return file.readline() == head.getvalue()


class Report(Table):
    """A table that a notebook shows as such, below its picture."""

    def _repr_html_(self) -> str:
        """The figure and the first rows, in fewer than 200 kB; names are escaped."""
        columns, rows = self._table()
        picture = base64.b64encode(png_of(self.figure(), _PICTURE)).decode()
        head = f"<p>{text(repr(self))}</p>"
        image = f'<img alt="{text(type(self).__name__)}" src="data:image/png;base64,{picture}">'
        left = _NOTEBOOK - len(head) - len(image) - 200
        listed = [[_shown(each) for each in row] for row in rows[:_LISTED]]
        while listed and len(table(columns, listed)) > left:
            listed.pop()
        more = len(rows) - len(listed)
        note = f"<p>{more} more rows in to_pandas().</p>" if more else ""
        return "\n".join([head, image, table(columns, listed) if listed else "", note])


def png_of(picture: Image.Image, most: int = _NOTEBOOK) -> bytes:
    """A picture as PNG of fewer bytes than `most`.

    Colors go first, down to 256, as text stays sharp without them; then pixels.
    """
    data = _encoded(picture)
    whole, side = picture.convert("RGB"), 1.0
    while len(data) >= most:
        size = (max(1, round(whole.width * side)), max(1, round(whole.height * side)))
        small = whole if side == 1 else whole.resize(size, Image.Resampling.LANCZOS)
        data = _encoded(small.quantize(256))
        side *= min(0.9, math.sqrt(most / len(data)))
    return data


def _encoded(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def plain(value: Any) -> Any:
    """Anything that results hold, as JSON takes it; numbers that are not finite become None."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (np.generic, np.ndarray, torch.Tensor)):
        return plain(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if is_dataclass(value):
        names = [each.name for each in fields(value) if not each.name.startswith("_")]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, Iterable):
        return [plain(each) for each in value]
    raise argument_error("value", "numbers, texts, and collections of these", value)


def described(values: torch.Tensor) -> dict[str, Any]:
    """What has a value for every pixel, by its shape and range."""
    numbers = values.detach().double()
    return {
        "shape": [*values.shape],
        "dtype": str(values.dtype).removeprefix("torch."),
        **plain({"min": numbers.min(), "mean": numbers.mean(), "max": numbers.max()}),
    }


def _cell(value: Any) -> Any:
    """A cell of a CSV file, with all digits: nothing where there is no number."""
    known = plain(value)
    return "" if known is None else known


def _shown(value: Any) -> str:
    known = _cell(value)
    known = f"{known:.6g}" if isinstance(known, float) else str(known)
    return known if len(known) <= _CELL else f"{known[: _CELL - 1]}…"
