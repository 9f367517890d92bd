"""HTML pages that need neither a server nor a script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from pyxai.images.errors import printable

STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 75rem; padding: 1rem; }
nav a { display: inline-block; margin: 0 1rem 0.5rem 0; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: 0.15rem 0.8rem 0.15rem 0; text-align: right; }
th:first-child, td:first-child { text-align: left; }
.crops { display: grid; gap: 0.6rem; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); }
.all { grid-template-columns: repeat(auto-fill, minmax(5rem, 1fr)); margin-bottom: 1rem; }
figure { margin: 0; }
img { display: block; height: auto; max-width: 100%; width: 100%; }
figcaption, .note { font-size: 0.85rem; opacity: 0.8; }
summary { cursor: pointer; margin: 0.8rem 0; }
h2 { border-top: 1px solid #8888; margin-top: 2rem; padding-top: 1rem; }
"""


def text(value: object) -> str:
    """Anything as HTML that shows as it is, in one line."""
    return escape(printable(str(value)))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table whose cells show as they are."""
    head = "".join(f"<th>{text(each)}</th>" for each in columns)
    lines = ("".join(f"<td>{text(each)}</td>" for each in row) for row in rows)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table>\n<tr>{head}</tr>\n{body}\n</table>"


def page(title: str, body: str, *, style: str = "") -> str:
    """A whole HTML document."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n"
        f"{body}\n</body>\n</html>\n"
    )
