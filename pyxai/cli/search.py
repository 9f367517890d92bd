"""`pyxai search build|query|evaluate|remove`: photos that a classifier finds alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from pyxai._locks import check_folder
from pyxai._outputs import OutputFolder
from pyxai._results import plain
from pyxai._text import text_table
from pyxai.classifier.features import Pooling
from pyxai.cli._layers import check_layers
from pyxai.cli._options import AllowRemoval, Architecture, AsJson, Device, ModelName
from pyxai.cli._photos import free_name, report_left_out, whole_name
from pyxai.images.errors import printable
from pyxai.neighbors.distances import METRICS
from pyxai.search.index import ImageIndex
from pyxai.zoo import load_classifier

_LISTED = 10  # results of a query in the terminal

search = typer.Typer(
    help="Find photos that a classifier finds alike, in an index of its features.",
    no_args_is_help=True,
)

IndexFolder = Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of the index.")]
MetricOption = Annotated[str, typer.Option(help=", ".join(METRICS) + ".")]
LayerOption = Annotated[str | None, typer.Option(help="By default the last of the index.")]


@search.command()
def build(
    photos: Annotated[list[Path], typer.Argument(help="Folders of photos, or photos.")],
    model: ModelName = "demo",
    architecture: Architecture = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="May be given several times; by default up to 8.")
    ] = None,
    pooling: Annotated[str, typer.Option(help="average, max, gem or flatten.")] = "average",
    dtype: Annotated[str, typer.Option(help="float32, or float16 for half the space.")] = "float32",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the index.")] = Path(
        "pyxai-index"
    ),
    allow_removal: AllowRemoval = False,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Make an index of photos, or have one be of these photos and no others.

    Goes on where it was interrupted. Photos that are new or have changed are looked at; those that
    are not there any more are taken out, and named.
    """
    check_folder("--output", output)
    classifier = load_classifier(model, architecture=architecture, device=device)
    check_layers(classifier, layer, model)
    index = ImageIndex.build(
        classifier,
        photos,
        directory=output,
        layers=layer or None,
        pooling=cast(Pooling, pooling),
        dtype=cast(Literal["float32", "float16"], dtype),
        allow_removal=allow_removal,
    )
    record = {
        "index": str(output),
        "photos": len(index),
        "networks": [
            {"name": network.name, "layers": [[each.name, each.width] for each in network.layers]}
            for network in index.networks
        ],
        "failures": plain(index.failures),
        "removed": list(index.removed),
    }
    if as_json:
        typer.echo(json.dumps(record, indent=2))
    else:
        rows = [("network", "layer", "kind", "features")]
        rows += [
            (network.name, each.name, each.kind, str(each.width))
            for network in index.networks
            for each in network.layers
        ]
        typer.echo(text_table(rows))
        typer.echo(f"{len(index)} photos in {output}/")
    report_left_out(index.failures, index.removed)


@search.command()
def remove(
    folder: IndexFolder,
    photos: Annotated[list[Path], typer.Argument(help="Photos, or folders with all below them.")],
) -> None:
    """Take photos out of an index and of its files, whether they exist or not."""
    index = ImageIndex.load(folder).remove(photos)
    report_left_out((), index.removed)
    typer.echo(f"{len(index)} photos in {folder}/")


@search.command()
def query(
    folder: IndexFolder,
    photos: Annotated[
        list[Path] | None, typer.Argument(help="Photos; or none, with --photo-id.")
    ] = None,
    photo_id: Annotated[
        list[int] | None, typer.Option(help="Photos of the index by their ids.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many to find.")] = 50,
    metric: MetricOption = "cosine",
    p: Annotated[float | None, typer.Option(help="Order of minkowski, by default 3.")] = None,
    layer: LayerOption = None,
    network: Annotated[str | None, typer.Option(help="Its name in the index.")] = None,
    box: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(help="Search by this piece: x0 y0 x1 y1, in pixels of the photo."),
    ] = None,
    backend: Annotated[str, typer.Option(help="exact, faiss or lancedb.")] = "exact",
    model: Annotated[
        str, typer.Option(help="The index's network, to look at new photos: see build.")
    ] = "demo",
    architecture: Architecture = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for a sheet of each query.")
    ] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """List the photos nearest to each query."""
    queries: list[Any] = [*(photos or ()), *(photo_id or ())]
    if not queries:
        raise ValueError("query: expected photos, or ids with --photo-id, got none")
    looks = bool(photos) or box is not None
    known = load_classifier(model, architecture=architecture, device=device) if looks else None
    found = ImageIndex.load(folder, known).search(
        queries, k, metric=metric, p=p, layer=layer, model=network, box=box, backend=backend
    )
    names: set[str] = set()
    if output is not None:
        place = OutputFolder(output, "--output", by="pyxai search query")
        for each in found:
            of = whole_name(each.query)
            name = f"{free_name(each.query, names, place, ['.alike.png'], of=of)}.alike.png"
            with place.writing(name, of=of) as path:
                each.figure().save(path)
    if as_json:
        typer.echo(json.dumps([each.to_dict() for each in found], indent=2))
        return
    for each in found:
        rows = [(each.metric, "similarity", "id", "class", "photo")]
        for row in [*each][:_LISTED]:
            share, label = f"{row.similarity:.1f} %", printable(row.label or "-")
            distance = f"{row.distance:.4g}"
            rows.append((distance, share, str(row.id), label, printable(row.path)))
        typer.echo(f"{printable(each.query)}, {each.network} {each.layer}:\n{text_table(rows)}")
        if len(each) > _LISTED:
            typer.echo(f"and {len(each) - _LISTED} more (--json lists all)")


@search.command()
def evaluate(
    folder: IndexFolder,
    k: Annotated[list[int] | None, typer.Option("-k", help="Of P@k; several times.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help=", ".join(METRICS) + "; several times.")
    ] = None,
    layer: Annotated[list[str] | None, typer.Option(help="Several times; by default all.")] = None,
    queries: Annotated[int, typer.Option(help="Photos that search, at most.")] = 1000,
    bootstrap: Annotated[int, typer.Option(help="Samples for the intervals; 0, none.")] = 1000,
    classes: Annotated[bool, typer.Option(help="Also a line for each class.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say how well photos find others of their class (folder), by layer and metric."""
    report = ImageIndex.load(folder).evaluate(
        k or (1, 5, 10, 50),
        metrics=metric or ("cosine", "euclidean"),
        layers=layer or None,
        queries=queries,
        bootstrap=bootstrap,
    )
    text = json.dumps(report.to_dict(), indent=2) if as_json else report.table(classes=classes)
    typer.echo(text)
