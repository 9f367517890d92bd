"""The pages of a playground site, read and not run: they hold nothing that names could get into."""

from __future__ import annotations

import re

from playground_site import SITE


def test_pages_hold_no_inline_script_and_ask_nobody() -> None:
    """By reading the sources: nothing is inline, nothing comes from elsewhere."""
    html = (SITE / "index.html").read_text()
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?![^>]*src=)", html)
    sources = [
        html,
        *(path.read_text() for path in SITE.rglob("*.js")),
        (SITE / "style.css").read_text(),
    ]
    for text in sources:
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text
        )
        links = set(re.findall(r"https?://[^\s\"'`)]+", text))
        assert links <= {"http://www.w3.org/2000/svg"}
    assert {f"scripts/{path.name}" for path in SITE.glob("scripts/*.js")} == set(
        re.findall(r'src="([^"]+)"', html)
    )
