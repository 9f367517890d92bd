"""Whether two runs are one: what their results depend on, compared word by word."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plain(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity as JSON gives it back: keys are texts, tuples are lists."""
    return dict(json.loads(json.dumps(identity)))


def check_identity(
    argument: str, name: str, directory: Path, there: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """Refuses to go on with the run of another model, or of other settings.

    Args:
        argument: what the folder is called.
        name: of the run, with its article.
        directory: the folder.
        there: the identity of the run in the folder.
        now: that of the run which is to go on.

    Raises:
        ValueError: they are not equal; the message says what differs.
    """
    names = sorted({*there, *now})
    other = [each for each in names if there.get(each) != now.get(each)]
    if other:
        raise ValueError(
            f"{argument}: expected {name} of the same model and settings, got {directory}, where "
            f"these differ: {', '.join(other)}"
        )
