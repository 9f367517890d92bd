"""`pyxai audit`: a folder of photos in; ranked lists to look at before training out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import pyxai
from pyxai.cli._layers import check_layers
from pyxai.cli._options import Architecture, AsJson, Checkpoint, Device, ModelName, Output
from pyxai.curate.audit_files import output_folder
from pyxai.zoo import load_classifier


def audit(
    folder: Annotated[
        Path, typer.Argument(help="Photos in a sub-folder for each class, or without classes.")
    ],
    model: ModelName = "demo",
    architecture: Architecture = None,
    layer: Annotated[
        str | None, typer.Option(help="Whose features are compared; the last with positions.")
    ] = None,
    unusual: Annotated[int, typer.Option(help="How many unusual photos to list of a class.")] = 12,
    folds: Annotated[int, typer.Option(help="Parts for the search for label errors.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of these parts.")] = 0,
    checkpoint: Checkpoint = None,
    output: Output = Path("pyxai-audit"),
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Look over a folder of photos before training: bad, odd, unusual and mislabelled ones.

    With --model none the pictures alone are looked at. Nothing is changed, moved or deleted.
    """
    output_folder(output, "--output")  # or an audit of hours ends in a refusal
    classifier = None
    if model != "none":
        classifier = load_classifier(model, architecture=architecture, device=device)
        check_layers(classifier, [layer], model)
    found = pyxai.audit(
        classifier,
        folder,
        layer=layer,
        unusual=unusual,
        folds=folds,
        seed=seed,
        checkpoint=checkpoint,
    )
    page = found.save(output)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
        return
    typer.echo(str(found))
    typer.echo(f"{page}, sheets/, findings.csv, photos.csv and audit.json in {output}/")
