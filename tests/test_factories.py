"""Tensors are made where and as pyxai says, and not as torch's defaults do."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pyxai

PACKAGE = Path(pyxai.__file__).parent
BOTH = {"dtype", "device"}
# What a call has to name, so that `set_default_dtype` and `set_default_device` change no answer.
NEEDED = {
    **dict.fromkeys(("zeros", "ones", "empty", "full", "eye", "tensor", "as_tensor"), BOTH),
    **dict.fromkeys(("asarray", "scalar_tensor", "empty_strided", "frombuffer"), BOTH),
    **dict.fromkeys(("arange", "linspace", "logspace", "range"), BOTH),
    **dict.fromkeys(("rand", "randn", "randint", "normal", "hann_window"), BOTH),
    **dict.fromkeys(("fft.fftfreq", "fft.rfftfreq"), BOTH),
    "randperm": {"device"},  # always int64
    "Generator": {"device"},
}


def lacking(code: str) -> Iterator[tuple[int, str]]:
    """The lines of a source with calls of factories that leave something to torch's defaults."""
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {each.arg for each in node.keywords}
        missing = NEEDED.get(called.removeprefix("torch."), set()) - given
        if called.startswith("torch.") and missing:
            yield node.lineno, f"{called} lacks {' and '.join(sorted(missing))}"


def test_every_tensor_is_made_with_its_dtype_and_device():
    found = [
        f"{path.relative_to(PACKAGE.parent)}:{line}: {what}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, what in lacking(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_what_is_lacking_is_seen():
    code = (
        "a = torch.zeros(3, device=d)\nb = torch.randperm(3)\nc = torch.eye(2, dtype=t, device=d)"
    )
    assert list(lacking(code)) == [
        (1, "torch.zeros lacks dtype"),
        (2, "torch.randperm lacks device"),
    ]
