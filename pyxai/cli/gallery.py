"""`pyxai gallery`: a folder of photos in; what each class looks like to the network out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from pyxai._text import text_table
from pyxai.cli._options import Architecture, AsJson, Checkpoint, Device, ModelName, Output
from pyxai.galleries.crop_size import choose_crop
from pyxai.galleries.gallery import ClassGallery
from pyxai.galleries.page import share
from pyxai.galleries.storage import GalleryFolder, folder_names
from pyxai.images.errors import printable
from pyxai.zoo import load_classifier

_SHOWN = 20  # photos that could not be read


def gallery(
    photos: Annotated[list[Path], typer.Argument(help="Folders of photos, or photos.")],
    model: ModelName = "demo",
    architecture: Architecture = None,
    crop: Annotated[
        int | None,
        typer.Option(help="Side of the crops in pixels; 160, or half a side of small photos."),
    ] = None,
    stride: Annotated[
        int | None, typer.Option(help="Pixels between windows; by default a quarter of the crop.")
    ] = None,
    resize: Annotated[
        int | None, typer.Option(help="Side that crops are resized to for the network.")
    ] = None,
    evidence: Annotated[str, typer.Option(help="cam or sliding_window.")] = "cam",
    per_class: Annotated[int, typer.Option(help="How many crops to keep of a class.")] = 100,
    clusters: Annotated[int, typer.Option(help="How many clusters a class has.")] = 9,
    labels: Annotated[
        str | None,
        typer.Option(help="folder: only photos in a folder named after a class stand for it."),
    ] = None,
    output: Output = Path("pyxai-gallery"),
    checkpoint: Checkpoint = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Show what each class looks like to a classifier: its best crops out of many photos."""
    # Before the work of hours, not after it.
    GalleryFolder(output, "--output").check("gallery.json", "index.html", "crops/x/0", "sheets/x")
    chosen, why = (crop, "") if crop is not None else choose_crop(photos)
    if why:
        typer.echo(f"crop {chosen}: {why}", err=as_json)
    found = ClassGallery(
        load_classifier(model, architecture=architecture, device=device),
        chosen,
        evidence=cast(Literal["cam", "sliding_window"], evidence),
        stride=stride,
        resize=resize,
        per_class=per_class,
        clusters=clusters,
        labels=cast(Literal["folder"] | None, labels),
    ).fit(photos, checkpoint=checkpoint)
    page = found.page(output)
    sheets = GalleryFolder(output, "--output")
    for index, name in enumerate(folder_names(found.class_names)):
        with sheets.writing(f"sheets/{name}.jpg") as path:
            found.figure(index).save(path, quality=92)
    report = found.to_dict()
    if as_json:
        typer.echo(json.dumps({"crop": chosen, **report}, indent=2))
    else:
        typer.echo(_summary(report))
        typer.echo(f"{report['photos']} photos; {page}, sheets/ and gallery.json in {output}/")
    _report_left_out(report)


def _report_left_out(report: dict[str, Any]) -> None:
    """Names the photos that could not be read, and counts those that gave nothing, on stderr."""
    for failure in report["failures"][:_SHOWN]:
        name = printable(failure["path"])
        typer.echo(f"pyxai: not read: {name}: {failure['reason']}", err=True)
    for count, what in (
        (report["smaller_than_crop"], "smaller than the crop"),
        (report["in_no_class_folder"], "in no folder of a class"),
        (report["unreadable"], "not readable"),
    ):
        if count:
            typer.echo(f"pyxai: photos {what}: {count}", err=True)


def _summary(report: dict[str, Any]) -> str:
    columns = ("crops", "photos", "clusters")
    rows: list[tuple[str, ...]] = [("class", *columns, "purity", "silhouette")]
    for name, row in [*report["classes"].items(), ("all", _sums(report, columns))]:
        counts = [str(row[column]) for column in columns]
        rows.append((printable(name), *counts, share(row["purity"]), share(row["silhouette"])))
    return text_table(rows)


def _sums(report: dict[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    """Sums and means over the classes; a photo may have given crops to several."""
    classes = report["classes"].values()
    counts = {column: sum(row[column] for row in classes) for column in columns}
    means = {name: report[name] for name in ("purity", "silhouette")}
    return {**counts, "photos": "", **means}
