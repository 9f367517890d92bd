"""`pyxai shap`: photos in; pictures of what speaks for and against classes, and JSON files, out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from PIL import Image

import pyxai
from pyxai._text import text_table
from pyxai.attribution.shap import Method, shap_values
from pyxai.attribution.shap.model import Output as ModelOutput
from pyxai.classifier import Classifier
from pyxai.cli._options import Architecture, AsJson, Device, ModelName, Output, Photos
from pyxai.cli._photos import Result, class_of, process
from pyxai.cli._shap_summary import summarize
from pyxai.draw.shap import Palette
from pyxai.images.errors import printable
from pyxai.zoo import load_classifier

_TOP = 2  # classes of each photo, where none are named


_GRID = 8  # rows and columns of a summary


def shap(
    photos: Photos = None,
    model: ModelName = "demo",
    architecture: Architecture = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="Class name or index, several times; by default the two top classes."),
    ] = None,
    method: Annotated[str, typer.Option(help="gradient, partition or kernel.")] = "partition",
    background: Annotated[
        str, typer.Option(help="blur, mean, or a folder of photos (for gradient).")
    ] = "blur",
    samples: Annotated[int, typer.Option(min=2, help="Evaluations for each photo.")] = 500,
    output_of: Annotated[
        str, typer.Option("--of", help="What is explained: logits or probability.")
    ] = "logits",
    palette: Annotated[str, typer.Option(help="red_blue or orange_purple.")] = "red_blue",
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
    summary: Annotated[
        bool, typer.Option("--summary", help="Sum up all photos by class and region instead.")
    ] = False,
    explain: Annotated[
        str, typer.Option(help="With --summary: the class of the folder, or the predicted one.")
    ] = "folder",
    grid: Annotated[int, typer.Option(help="With --summary: rows and columns of regions.")] = _GRID,
    per_folder: Annotated[
        int | None, typer.Option(help="With --summary: at most so many photos of each folder.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="With --summary: folder from which a stopped run goes on.")
    ] = None,
    output: Output = Path("pyxai-shap"),
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Show what speaks for classes and against them: a figure and a JSON file for each photo.

    With --summary, what speaks for each class in the regions of all photos of a folder.
    """
    classifier = load_classifier(model, architecture=architecture, device=device)
    wanted = None if not target else [class_of(each, classifier) for each in target]
    settings: dict[str, Any] = {
        "method": cast(Method, method),
        "background": background if background in ("blur", "mean") else Path(background),
        "samples": samples,
        "output": cast(ModelOutput, output_of),
        "seed": seed,
    }
    if summary:
        if not photos or target:
            raise typer.BadParameter("--summary takes folders of photos, and no --target")
        options = {"target": explain, "grid": grid, "per_folder": per_folder}
        options |= {"checkpoint": checkpoint, **settings}
        summarize(classifier, photos, output, cast(Palette, palette), options, as_json=as_json)
        return
    _refuse_options_of_a_summary(explain, grid, per_folder, checkpoint)
    process(
        "shap",
        photos,
        output,
        lambda photo: explain_photo(classifier, photo, wanted, cast(Palette, palette), **settings),
        as_json=as_json,
        summary=lambda found: f"{_table(found)}\n{len(found)} figures and JSON files in {output}/",
    )


def _refuse_options_of_a_summary(
    explain: str, grid: int, per_folder: int | None, checkpoint: Path | None
) -> None:
    for option, given in (
        ("--explain", explain != "folder"),
        ("--grid", grid != _GRID),
        ("--per-folder", per_folder is not None),
        ("--checkpoint", checkpoint is not None),
    ):
        if given:
            raise typer.BadParameter(f"{option} is for --summary alone")


def explain_photo(
    classifier: Classifier,
    photo: Image.Image,
    wanted: list[Any] | None,
    palette: Palette,
    **settings: Any,
) -> Result:
    """One photo: what goes into its JSON file, and its figure."""
    start = time.perf_counter()
    inputs = classifier.to_input(photo)
    if wanted is None:
        logits = classifier(inputs)
        wanted = logits.topk(min(_TOP, logits.shape[1])).indices[0].tolist()
    found = shap_values(classifier, inputs, target=[wanted], **settings)
    seconds = time.perf_counter() - start
    maps, names = found.maps()[0], [classifier.class_name(int(each)) for each in found.classes[0]]
    rows: list[dict[str, Any]] = []
    for index, name in enumerate(names):
        rows.append(
            {
                "target": {"index": int(found.classes[0, index]), "name": name},
                "output": round(float(found.outputs[0, index]), 6),
                "base_value": round(float(found.base_values[0, index]), 6),
                "additivity_gap": round(float(found.additivity_gap[0, index]), 6),
                "speaks_for": round(float(maps[index].clamp(min=0).sum()), 6),
                "speaks_against": round(float(maps[index].clamp(max=0).sum()), 6),
            }
        )
    figure = found.figure(palette=palette, cell=320)
    return {
        "model": classifier.name,
        **{name: str(value) for name, value in settings.items()},
        "classes": rows,
        "evaluations": found.evaluations,
        "seconds": round(seconds, 3),
        "pyxai": pyxai.__version__,
    }, {"figure": figure}


def _table(results: list[dict[str, Any]]) -> str:
    rows = [("photo", "class", "output", "base value", "for", "against", "gap")]
    for result in results:
        for row in result["classes"]:
            rows.append(
                (
                    printable(Path(result["photo"]).name),
                    row["target"]["name"],
                    f"{row['output']:.3f}",
                    f"{row['base_value']:.3f}",
                    f"{row['speaks_for']:+.3f}",
                    f"{row['speaks_against']:+.3f}",
                    f"{row['additivity_gap']:+.4f}",
                )
            )
    return text_table(rows)
