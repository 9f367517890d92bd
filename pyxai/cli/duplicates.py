"""`pyxai duplicates`: photos in; groups of photos that show the same out, as lists and a sheet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from pyxai._errors import argument_error
from pyxai._outputs import OutputFolder
from pyxai._results import plain
from pyxai.cli._options import Architecture, AsJson, Device, Output
from pyxai.curate.duplicates import Duplicates, Moves, find_duplicates, move_back
from pyxai.curate.duplicates.moving import refuse_inside
from pyxai.images.errors import printable
from pyxai.zoo import load_classifier

_SHOWN = 20  # photos that could not be read
MethodNames: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Some of exact,hash,features; by default the first two, with --model all."),
]
_FILES = ("duplicates.json", "duplicates.csv", "sheet.png")


def duplicates(
    folder: Annotated[
        list[Path] | None, typer.Argument(help="Folders of photos, or photos.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="demo, torchvision:NAME, timm:NAME, hf:NAME, or a file: for features."),
    ] = None,
    architecture: Architecture = None,
    methods: MethodNames = None,
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
    back: Annotated[
        Path | None,
        typer.Option("--move-back", help="Undoes --move-to this folder; takes no photos."),
    ] = None,
    output: Output = Path("pyxai-duplicates"),
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Find photos that show the same, and say which copy to keep; nothing is deleted."""
    if back is not None:
        _undo(back, folder, as_json)
        return
    if not folder:
        raise typer.BadParameter("expected folders of photos, or photos, got none")
    if move_to is not None:
        refuse_inside(move_to, folder)  # or a search of hours ends in a refusal
    results = OutputFolder(output, "--output", by="pyxai duplicates")
    results.check(*_FILES)
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
    files = _write(found, results)
    moved = Moves() if move_to is None else found.move_copies(move_to)
    _report(found, files, output, moved, move_to, as_json)


def _report(
    found: Duplicates,
    files: list[str],
    output: Path,
    moved: Moves,
    move_to: Path | None,
    as_json: bool,
) -> None:
    """Says what was found, written and moved, and what could not be read."""
    if as_json:
        told = {"moved": [*moved], "not_moved": plain(moved.failures)}
        typer.echo(json.dumps({**found.to_dict(), **told}, indent=2))
    else:
        typer.echo(str(found))
        if moved:
            typer.echo(f"{len(moved)} copies moved to {printable(str(move_to))}")
        typer.echo(f"{', '.join(files)} in {printable(str(output))}/")
    for name, reason in found.failures[:_SHOWN]:
        typer.echo(f"pyxai: not read: {printable(name)}: {reason}", err=True)


def _write(found: Duplicates, results: OutputFolder) -> list[str]:
    """Writes the files of results; their names."""
    names = [*_FILES] if found.groups else [*_FILES[:2]]
    for name in _FILES:
        if name not in names:
            results.remove(name)  # of an earlier search
            continue
        with results.writing(name) as path:
            found.save(path)
    return names


def _undo(moved_to: Path, folder: list[Path] | None, as_json: bool) -> None:
    if folder:
        raise argument_error("--move-back", "no photos beside it", [*map(str, folder)])
    back = move_back(moved_to)
    if as_json:
        typer.echo(json.dumps({"back": [*back]}, indent=2))
    else:
        where = printable(str(moved_to))
        done = f"{len(back)} photos are back where they came from"
        typer.echo(done if back else f"no copies to move back in {where}")
