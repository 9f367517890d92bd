"""`pyxai shap --summary`: folders of photos in; what speaks for each class, by region, out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from pyxai.attribution.shap.summary import shap_summary
from pyxai.attribution.shap.summary.result import summary_folder
from pyxai.classifier import Classifier
from pyxai.draw.shap import Palette
from pyxai.images.errors import printable


def summarize(
    classifier: Classifier,
    photos: list[Path],
    output: Path,
    palette: Palette,
    options: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Writes the files of a summary and reports.

    Args:
        classifier: what is explained.
        photos: files and folders.
        output: folder for the files.
        palette: of the picture.
        options: of `shap_summary`.
        as_json: print JSON, and not the table.
    """
    summary_folder(output, "--output")  # before the work of hours, not after it
    found = shap_summary(classifier, photos, **options)
    picture = found.save(output, palette=palette)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        typer.echo(str(found))
        typer.echo(f"{picture}, summary.json, photos.csv and regions.csv in {output}/")
    for name, reason in found.failures:
        typer.echo(f"pyxai: not explained: {printable(name)}: {reason}", err=True)
    if found.unnamed:
        typer.echo(f"pyxai: photos in no folder of a class: {found.unnamed}", err=True)
