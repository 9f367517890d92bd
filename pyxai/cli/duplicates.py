"""`pyxai duplicates`: photos in; groups of photos that show the same out, as lists and a sheet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pyxai.cli._options import Architecture, AsJson, Device, Output
from pyxai.images.errors import printable
from pyxai.train.duplicates import find_duplicates
from pyxai.zoo import load_classifier

_SHOWN = 20  # photos that could not be read


def duplicates(
    folder: Annotated[list[Path], typer.Argument(help="Folders of photos, or photos.")],
    model: Annotated[
        str | None,
        typer.Option(help="demo, torchvision:NAME, timm:NAME, hf:NAME, or a file: for features."),
    ] = None,
    architecture: Architecture = None,
    methods: Annotated[
        str | None, typer.Option(help="Some of exact,hash,features; by default what can be had.")
    ] = None,
    hash_kind: Annotated[str, typer.Option("--hash", help="phash or dhash.")] = "phash",
    max_bits: Annotated[int, typer.Option(help="Hashes that differ in so many bits match.")] = 7,
    orientations: Annotated[
        bool, typer.Option("--orientations", help="Also turned and mirrored photos, by hash.")
    ] = False,
    min_cosine: Annotated[
        float | None, typer.Option(help="Features at least so alike match; by default it is told.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Folder that keeps what was read, for later runs.")
    ] = None,
    move_to: Annotated[
        Path | None, typer.Option(help="Moves the copies that could go there. Nothing is deleted.")
    ] = None,
    output: Output = Path("pyxai-duplicates"),
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Find photos that show the same, and say which copy to keep; nothing is deleted."""
    classifier = None
    if model is not None:
        classifier = load_classifier(model, architecture=architecture, device=device)
    found = find_duplicates(
        folder[0] if len(folder) == 1 else folder,
        classifier,
        methods=None if methods is None else methods.split(","),
        hash=hash_kind,
        max_bits=max_bits,
        orientations=orientations,
        min_cosine=min_cosine,
        store=store,
    )
    output.mkdir(parents=True, exist_ok=True)
    found.save(output / "duplicates.json")
    found.save(output / "duplicates.csv")
    files = "duplicates.json, duplicates.csv"
    if found.groups:
        found.sheet().save(output / "sheet.png")
        files += ", sheet.png"
    moved = () if move_to is None else found.move_copies(move_to)
    if as_json:
        typer.echo(json.dumps({**found.as_dict(), "moved": [*moved]}, indent=2))
    else:
        typer.echo(str(found))
        if moved:
            typer.echo(f"{len(moved)} copies moved to {move_to}")
        typer.echo(f"{files} in {output}/")
    for name, reason in found.unreadable[:_SHOWN]:
        typer.echo(f"pyxai: not read: {printable(name)}: {reason}", err=True)
