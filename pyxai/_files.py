"""Files that are written all or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Another file to write to, which takes the place of the path unless an error comes first."""
    partial = path.with_name(f"{path.name}.part")
    yield partial
    partial.replace(path)


def write_json(path: Path, record: dict[str, Any], *, indent: int | None = 1) -> None:
    """Writes JSON, all or nothing."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(record, indent=indent) + "\n", encoding="utf-8")
