"""Each recipe of docs/your_model.md runs as it stands there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

DOCUMENT = Path(__file__).parents[1] / "docs" / "your_model.md"
RECIPES = {
    title: code
    for section in DOCUMENT.read_text(encoding="utf-8").split("\n## ")[1:]
    for title, code in [
        (f"{section.splitlines()[0]} {number}", code)
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
    ]
}
NEEDS = re.compile(r"^# needs (\w+)$", re.MULTILINE)


def test_every_section_has_a_recipe():
    titles = re.findall(r"^## (.*)$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert {title.rsplit(" ", 1)[0] for title in RECIPES} == set(titles)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning")
@pytest.mark.parametrize("title", RECIPES)
def test_recipe_runs(title, tmp_path, monkeypatch, one_thread):
    code = RECIPES[title]
    for package in NEEDS.findall(code):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Image, "open", Image.open)  # ultralytics replaces it for good
    torch.manual_seed(0)
    found: dict = {"__name__": title}
    exec(compile(code, title, "exec"), found)
    if "maps" in found:
        assert found["maps"].shape[-1] in (64, 128, 224, 320)
        assert float(found["maps"].max()) > 0
