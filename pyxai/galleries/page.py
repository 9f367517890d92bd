"""A gallery as an HTML page that needs neither a server nor a script."""

from __future__ import annotations

from html import escape
from typing import Any
from urllib.parse import quote

from pyxai.draw.page import page, text
from pyxai.galleries.contents import Contents, GalleryCrop
from pyxai.images.errors import printable


def gallery_page(
    contents: Contents, files: list[list[str]], description: str, report: dict[str, Any]
) -> str:
    """The page of a gallery: representatives of each class, and all crops.

    Args:
        contents: of the gallery.
        files: of the crops of each class, as seen from the page.
        description: of its settings.
        report: of the gallery.
    """
    links = "".join(
        f'<a href="#class-{index}">{text(name)}</a>\n'
        for index, name in enumerate(contents.class_names)
    )
    parts = [
        f"<h1>{text(contents.model)}: what each class looks like to it</h1>",
        f"<p>{text(description)}</p>",
        f"<nav>\n{links}</nav>",
        _table(report),
    ]
    parts += [_section(contents, index, each) for index, each in enumerate(files)]
    failures = contents.tally.failures
    if failures:
        listed = "".join(f"<li>{text(name)}: {text(reason)}</li>\n" for name, reason in failures)
        count = contents.tally.unreadable
        parts.append(f"<h2>Photos that could not be read: {count}</h2>\n<ul>\n{listed}</ul>")
    return page(f"{contents.model}: class gallery", "\n".join(parts))


def _table(report: dict[str, Any]) -> str:
    rows = [
        f"<tr><td>{text(name)}</td><td>{row['crops']}</td><td>{row['photos']}</td>"
        f"<td>{row['clusters']}</td><td>{share(row['purity'])}</td>"
        f"<td>{share(row['silhouette'])}</td></tr>"
        for name, row in report["classes"].items()
    ]
    heads = ("class", "crops", "photos", "clusters", "purity", "silhouette")
    head = "".join(f"<th>{each}</th>" for each in heads)
    photos = f"{report['photos']} photos, {report['smaller_than_crop']} smaller than the crop"
    lines = "\n".join(rows)
    return f"<table>\n<tr>{head}</tr>\n{lines}\n</table>\n<p>{photos}.</p>"


def share(value: float | None) -> str:
    """A number with two decimals, or a dash."""
    return "–" if value is None else f"{value:.2f}"


def _section(contents: Contents, index: int, files: list[str]) -> str:
    found, name = contents.classes[index], text(contents.class_names[index])
    head = f'<h2 id="class-{index}">{name}</h2>'
    if not found.crops:
        return f'{head}\n<p class="note">No crop speaks for this class.</p>'
    addresses = {id(crop): quote(file) for crop, file in zip(found.crops, files, strict=True)}
    clusters = found.clusters
    best = "\n".join(
        _figure(group[0], addresses, f"{len(group)} crops, up to {group[0].score:.2f}")
        for group in clusters
    )
    note = f'<p class="note">{text(found.note)}</p>\n' if found.note else ""
    every = "\n".join(
        _cluster(f"cluster {number}, {len(group)} crops", group, addresses)
        for number, group in enumerate(clusters, 1)
    )
    if found.noise:
        every += "\n" + _cluster("in no cluster", found.noise, addresses)
    summary = f"all {len(found.crops)} crops by cluster"
    return (
        f'{head}\n{note}<div class="crops">\n{best}\n</div>\n'
        f"<details>\n<summary>{summary}</summary>\n{every}\n</details>"
    )


def _cluster(title: str, group: list[GalleryCrop], addresses: dict[int, str]) -> str:
    figures = "\n".join(_figure(crop, addresses, f"{crop.score:.2f}") for crop in group)
    return f'<h3>{title}</h3>\n<div class="crops all">\n{figures}\n</div>'


def _figure(crop: GalleryCrop, addresses: dict[int, str], caption: str) -> str:
    width, height = crop.size
    where = f"{printable(crop.name)}, box {crop.box}"
    if crop.label is not None:
        where = f"{where}, folder of {printable(crop.label)}"
    title = escape(where)
    return (
        f'<figure><img src="{addresses[id(crop)]}" alt="{title}" title="{title}" width="{width}" '
        f'height="{height}" loading="lazy"><figcaption>{caption}</figcaption></figure>'
    )
