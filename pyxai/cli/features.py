"""`pyxai features`: pictures of what channels or classes respond to, beside crops of photos."""

from __future__ import annotations

import json
import re
import time
import warnings
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import torch
import typer
from PIL import Image

import pyxai
from pyxai._files import write_text
from pyxai._outputs import OutputFolder
from pyxai._results import plain
from pyxai._text import text_table
from pyxai.classifier import Classifier, Examined, typical_input
from pyxai.cli._layers import check_layers
from pyxai.cli._options import Architecture, AsJson, Device, ModelName, Output
from pyxai.cli._photos import class_of, free_name
from pyxai.draw import feature_sheet, to_pictures
from pyxai.feature_visualization import fourier
from pyxai.feature_visualization.exciting_crops import exciting_crops
from pyxai.feature_visualization.feature_visualization import visualize_features
from pyxai.feature_visualization.result import ExcitingCrop, FeaturePictures
from pyxai.feature_visualization.units import look_at_layer
from pyxai.images import PhotoFailure
from pyxai.images.errors import printable
from pyxai.zoo import load_classifier

_COUNT = 30  # channels, as in ConvNet Playground

Channels: TypeAlias = Annotated[
    str | None,
    typer.Option(help=f"Such as 0,5,10-19; by default {_COUNT} drawn at random by the seed."),
]
Classes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--class", help="A class in place of channels, or all; several times."),
]


def features(
    photos: Annotated[
        list[Path] | None,
        typer.Argument(help="Photos or folders, to find the crops that excite each unit most."),
    ] = None,
    model: ModelName = "demo",
    architecture: Architecture = None,
    layer: Annotated[
        str | None, typer.Option(help="Layer; by default the last one with positions.")
    ] = None,
    channels: Channels = None,
    classes: Classes = None,
    size: Annotated[int, typer.Option(min=2, help="Side of the pictures in pixels.")] = 128,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the optimisation.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    negative: Annotated[bool, typer.Option(help="What they respond to least.")] = False,
    variants: Annotated[int, typer.Option(min=1, help="Different pictures of each unit.")] = 1,
    crops: Annotated[int, typer.Option(min=1, help="Crops of photos beside each unit.")] = 9,
    output: Output = Path("pyxai-features"),
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Show what channels or classes of a network respond to: pictures, crops and a sheet."""
    if classes and (layer is not None or channels is not None):
        raise ValueError("--class: expected without --layer and --channels, got both")
    folder = OutputFolder(output, "--output", by="pyxai features")
    folder.check("features.json", "sheet.png")  # before the work of minutes, not after it
    classifier = load_classifier(model, architecture=architecture, device=device)
    check_layers(classifier, [layer], model)
    layer, chosen = _chosen(classifier, layer, channels, classes, seed)
    wishes: dict[str, Any] = {"size": size, "steps": steps, "seed": seed, "negative": negative}
    start = time.perf_counter()
    made = _visualized(classifier, layer, chosen, variants=variants, **wishes)
    seconds = time.perf_counter() - start
    failures: tuple[PhotoFailure, ...] = ()
    found: list[tuple[ExcitingCrop, ...]] = [() for _ in chosen]
    if photos:
        excited = exciting_crops(
            classifier, photos, layer, chosen, per_channel=crops, negative=negative
        )
        found, failures = [*excited], excited.failures
    units = _save(folder, made, found, chosen, layer)
    result = {
        "model": classifier.name,
        "layer": layer,
        **wishes,
        "network_size": made.network_size,
        "view": made.view,
        "units": units,
        "failures": plain(failures),
        "seconds": round(seconds, 3),
        "pyxai": pyxai.__version__,
    }
    _report(result, folder, as_json)


def _visualized(*what: Any, **wishes: Any) -> FeaturePictures:
    """The pictures; units that responded to nothing are in the table, so no warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*responded to nothing")
        return visualize_features(*what, **wishes)


def _report(result: dict[str, Any], folder: OutputFolder, as_json: bool) -> None:
    """Writes what came out, and says it."""
    text = json.dumps(result, indent=2)
    with folder.writing("features.json") as path:
        write_text(path, text + "\n")
    if as_json:
        typer.echo(text)
    else:
        units, layer = result["units"], result["layer"] or "the logits"
        typer.echo(_table(units))
        typer.echo(f"{len(units)} units of {layer}; sheet.png in {folder.path}/")
    for failure in result["failures"]:
        name = printable(failure["path"])
        typer.echo(f"pyxai: not read: {name}: {failure['reason']}", err=True)


def parse_channels(text: str) -> list[int]:
    """Indices such as "0,5,10-12".

    Raises:
        ValueError: it is something else.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?", part)
        if match is None or int(match[2] or match[1]) - int(match[1]) not in range(100_000):
            raise ValueError(f"--channels: expected indices such as 0,5,10-19, got {text!r}")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return list(dict.fromkeys(found))


def _chosen(
    classifier: Classifier,
    layer: str | None,
    channels: str | None,
    classes: list[str] | None,
    seed: int,
) -> tuple[str | None, list[int]]:
    """The layer, None for classes; and which of its channels, or which classes."""
    if classes == ["all"] and classifier.class_names is not None:
        return None, list(range(len(classifier.class_names)))
    if classes:
        return None, [classifier.class_index(class_of(name, classifier) or 0) for name in classes]
    examined = Examined(classifier, typical_input(classifier))
    layer = examined.layer() if layer is None else layer
    count = look_at_layer(examined, layer).channels
    if channels is not None:
        return layer, parse_channels(channels)
    order = torch.randperm(count, generator=fourier.stream(seed, "channels"), device="cpu")
    return layer, sorted(order[:_COUNT].tolist())


def _save(
    output: OutputFolder,
    made: FeaturePictures,
    found: list[tuple[ExcitingCrop, ...]],
    chosen: list[int],
    layer: str | None,
) -> list[dict[str, Any]]:
    """Writes pictures, crops and the sheet; the facts about each unit."""
    units, rows, pieces, taken = [], [], [], set[str]()
    kind = "class" if layer is None else "channel"
    responses, dead = made.responses.cpu(), made.dead.cpu()
    for place, index in enumerate(chosen):
        pictures = to_pictures(made.pictures[place].cpu(), (0, 0, 0), (1, 1, 1))
        stems = [free_name(f"{kind}-{index:05}", taken, output, [".png"]) for _ in pictures]
        files = [f"{stem}.png" for stem in stems]
        for file, picture in zip(files, pictures, strict=True):
            with output.writing(file) as path:
                picture.save(path)
        cut: list[Image.Image] = [each.picture() for each in found[place]]
        crops = []
        for rank, (each, piece) in enumerate(zip(found[place], cut, strict=True)):
            stem = free_name(f"{kind}-{index:05}-crop-{rank}", taken, output, [".jpg"])
            file = f"{stem}.jpg"
            with output.writing(file) as path:
                piece.save(path, quality=92)
            facts = {"photo": each.name, "box": each.box, "response": round(each.response, 5)}
            crops.append({**facts, "file": file})
        rows.append(pictures)
        pieces.append(cut)
        units.append(
            {
                "index": index,
                "name": made.units[place],
                "files": files,
                "first_response": [round(value, 5) for value in responses[0, place].tolist()],
                "last_response": [round(value, 5) for value in responses[-1, place].tolist()],
                "dead": dead[place].tolist(),
                "crops": crops,
            }
        )
    shown = pieces if any(pieces) else None
    picture = feature_sheet(rows, shown, captions=made.units)
    with output.writing("sheet.png") as path:
        picture.save(path)
    return units


def _table(units: list[dict[str, Any]]) -> str:
    rows = [("unit", "first response", "last response", "strongest crop", "")]
    for unit in units:
        crop = unit["crops"][0] if unit["crops"] else None
        rows.append(
            (
                unit["name"],
                f"{unit['first_response'][0]:.3f}",
                f"{unit['last_response'][0]:.3f}",
                f"{crop['response']:.3f}" if crop else "",
                "responded to nothing" if all(unit["dead"]) else "",
            )
        )
    return text_table(rows)
