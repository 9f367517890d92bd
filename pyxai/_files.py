"""Files that are written all or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_json(path: Path, record: dict[str, Any], *, indent: int | None = 1) -> None:
    """Writes all or nothing: another file first, which then takes the place."""
    partial = path.with_name(f"{path.name}.part")
    partial.write_text(json.dumps(record, indent=indent) + "\n", encoding="utf-8")
    partial.replace(path)
