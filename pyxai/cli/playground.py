"""`pyxai playground build|serve`: a web site to explore what classifiers see in photos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from pyxai._locks import check_folder
from pyxai.classifier import Classifier
from pyxai.cli._options import AllowRemoval, Device
from pyxai.cli._photos import report_left_out
from pyxai.neighbors.distances import METRICS
from pyxai.playground.builder import build as build_site
from pyxai.playground.server import LOOPBACK
from pyxai.playground.server import serve as serve_site
from pyxai.playground.settings import SiteSettings
from pyxai.train.listing import read_table
from pyxai.zoo import load_classifier

playground = typer.Typer(
    help="A web site to explore what classifiers see in photos.", no_args_is_help=True
)

ModelNames = Annotated[
    list[str] | None,
    typer.Option("--model", help="demo, torchvision:NAME, timm:NAME, hf:NAME, or a file; several."),
]
Architectures = Annotated[
    list[str] | None,
    typer.Option("--architecture", help="For files of weights, in their order: torchvision:NAME."),
]
IndexFolder = Annotated[
    Path | None,
    typer.Option(help="Folder for the features; by default beside the site, NAME.index."),
]
Layers = Annotated[
    list[str] | None, typer.Option(help="Several times; by default up to 8 of each network.")
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(help=f"{', '.join(METRICS)}; several times. By default the first four of these."),
]
LabelTable = Annotated[
    Path | None,
    typer.Option(help="CSV with the columns path and label, in place of folder names."),
]
Maps = Annotated[
    list[str] | None, typer.Option("--map", help="pca, umap; by default what is installed.")
]


@playground.command()
def build(
    photos: Annotated[list[Path], typer.Argument(help="Folders of photos, each a data set.")],
    model: ModelNames = None,
    architecture: Architectures = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the site.")] = Path(
        "pyxai-playground"
    ),
    index: IndexFolder = None,
    title: Annotated[str | None, typer.Option(help="Of the site.")] = None,
    layer: Layers = None,
    metric: Metrics = None,
    labels: LabelTable = None,
    map_: Maps = None,
    units: Annotated[int, typer.Option(help="Channels of a layer that get a picture.")] = 30,
    unit_size: Annotated[int, typer.Option(help="Side of these pictures in pixels.")] = 128,
    unit_steps: Annotated[int, typer.Option(help="Of their optimisation.")] = 128,
    crops: Annotated[int, typer.Option(help="Pieces of photos beside each picture.")] = 6,
    explained: Annotated[
        int | None, typer.Option(help="How many photos have explanations; by default all.")
    ] = None,
    windows: Annotated[bool, typer.Option(help="Whether these include sliding windows.")] = True,
    undesirable: Annotated[
        int, typer.Option(help="Photos with a map of undesirable pixels, the slowest.")
    ] = 16,
    undesirable_steps: Annotated[int, typer.Option(help="Of learning these.")] = 200,
    galleries: Annotated[bool, typer.Option(help="Whether classes get a page.")] = True,
    seed: Annotated[int, typer.Option(help="Of all that is drawn at random.")] = 0,
    allow_removal: AllowRemoval = False,
    device: Device = None,
) -> None:
    """Compute a site from photos, or one that is there anew; goes on where it was interrupted.

    Photos that are not there any more go, and are named.
    """
    check_folder("--output", output)
    settings = SiteSettings(
        title=title,
        layers=layer or None,
        metrics=metric or METRICS[:4],
        maps=cast(Any, map_ or None),
        units=units,
        unit_size=unit_size,
        unit_steps=unit_steps,
        crops=crops,
        explained=explained,
        windows=windows,
        undesirable=undesirable,
        undesirable_steps=undesirable_steps,
        galleries=galleries,
    )
    site = build_site(
        _classifiers(model, architecture, device),
        _named(photos),
        output,
        settings=settings,
        labels="folder" if labels is None else _by_path(read_labels(labels)),
        index=_index(output) if index is None else index,
        allow_removal=allow_removal,
        seed=seed,
    )
    report_left_out(site.failures, site.removed)
    typer.echo(f"{site.page}: open it, or run: pyxai playground serve {output}")


@playground.command()
def serve(
    site: Annotated[Path, typer.Argument(help="Folder of a site.")] = Path("pyxai-playground"),
    port: Annotated[int, typer.Option(help="0 for any that is free.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Others than this let other machines in, without a password.")
    ] = LOOPBACK,
    live: Annotated[
        bool, typer.Option("--live", help="Let visitors try their own photos (extra serve).")
    ] = False,
    model: ModelNames = None,
    architecture: Architectures = None,
    index: Annotated[
        Path | None, typer.Option(help="Of --live: the folder of features that build used.")
    ] = None,
    device: Device = None,
) -> None:
    """Serve a site to this machine."""
    serve_site(
        site,
        host=host,
        port=port,
        models=_classifiers(model, architecture, device) if live else None,
        index=(index or _index(site)) if live else None,
        ready=lambda address: typer.echo(f"{address}  (Ctrl-C ends it)"),
    )


def read_labels(path: Path) -> dict[str, str]:
    """The class of each photo by its path; those in the file are relative to it.

    Raises:
        ValueError: it is no such table.
        OSError: it cannot be read.
    """
    parts = read_table(path, argument="--labels").values()
    pairs = [pair for part in parts for pair in zip(part.paths, part.names, strict=True)]
    return {str(photo.resolve()): name for photo, name in pairs}


def _by_path(labels: dict[str, str]) -> Callable[[str], str | None]:
    return lambda path: labels.get(str(Path(path).resolve()))


def _index(site: Path) -> Path:
    """Where the features of a site are by default: beside it."""
    folder = site.resolve()
    return folder.with_name(f"{folder.name}.index")


def _classifiers(
    models: list[str] | None, architectures: list[str] | None, device: str | None
) -> list[Classifier]:
    """The networks; architectures are for the files of weights in their order."""
    names = models or ["demo"]
    given = list(architectures or [])
    found = []
    for name in names:
        is_file = ":" not in name and name != "demo"
        architecture = given.pop(0) if given and is_file else None
        found.append(load_classifier(name, architecture=architecture, device=device))
    if given:
        raise ValueError(f"--architecture: expected one for each file of weights, {given} are over")
    return found


def _named(folders: list[Path]) -> dict[str, Any]:
    """Data sets by the names of their folders; a second one of a name gets a number."""
    found: dict[str, Any] = {}
    for folder in folders:
        name = folder.resolve().name or "photos"
        free, number = name, 2
        while free in found:
            free, number = f"{name} ({number})", number + 1
        found[free] = folder
    return found
