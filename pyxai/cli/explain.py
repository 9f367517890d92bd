"""`pyxai explain`: photos in; overlay pictures, JSON files and a short table out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from PIL import Image

import pyxai
from pyxai._text import text_table
from pyxai.attribution.cam.methods import METHODS, cam_method
from pyxai.classifier import Classifier
from pyxai.cli._layers import check_layers
from pyxai.cli._options import Architecture, AsJson, Device, ModelName, Output, Photos, Target
from pyxai.cli._photos import Result, class_of, process
from pyxai.draw import color_table, overlay
from pyxai.images.errors import printable
from pyxai.zoo import load_classifier

_STATEMENTS = {
    "cam": "|mean(map) + bias - logit|",
    "hirescam": "|sum(map) + bias - logit|",
    "fullgrad": "|sum(input and bias gradients) - logit|",
}
_NO_STATEMENT = "none: this method, on this head, does not claim to add up to the logit"


def explain(
    photos: Photos = None,
    model: ModelName = "demo",
    architecture: Architecture = None,
    target: Target = None,
    method: Annotated[str, typer.Option(help=f"auto or one of: {', '.join(METHODS)}.")] = "auto",
    layer: Annotated[str | None, typer.Option(help="Layer to explain, by its dotted name.")] = None,
    output: Output = Path("pyxai-explain"),
    top: Annotated[int, typer.Option(min=1, help="How many classes to report.")] = 5,
    colormap: Annotated[str, typer.Option(help="Colours of the overlay.")] = "ember",
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Show where a classifier looked: an overlay picture and a JSON file for each photo."""
    color_table(colormap)  # a wrong name should not surface after the model has been loaded
    cam_method(method)
    classifier = load_classifier(model, architecture=architecture, device=device)
    check_layers(classifier, [layer], model)
    wanted = class_of(target, classifier)
    process(
        "explain",
        photos,
        output,
        lambda photo: explain_photo(
            classifier, photo, wanted, method=method, layer=layer, top=top, colormap=colormap
        ),
        as_json=as_json,
        summary=lambda found: f"{_table(found)}\n{len(found)} overlays and JSON files in {output}/",
    )


def explain_photo(
    classifier: Classifier,
    photo: Image.Image,
    target: int | str | None,
    method: str,
    layer: str | None,
    top: int,
    colormap: str,
) -> Result:
    """One photo: what goes into its JSON file, and its overlay."""
    start = time.perf_counter()
    inputs = classifier.to_input(photo)
    maps, logits, report = pyxai.cam(
        classifier,
        inputs,
        target,
        method=method,
        layer=layer,
        size=None,
        normalize=None,
        relu=False,
        return_logits=True,
        return_report=True,
    )
    heatmap, logits = maps[0], logits[0].to(torch.float32)
    seconds = time.perf_counter() - start
    (used, by_layer), *_ = report.items()
    (explained, accuracy), *_ = by_layer.items()
    region = classifier.preprocessing.region(photo.size)
    # The picture shows what speaks for the class; the JSON file has the negative values too.
    picture = overlay(photo, heatmap, region=region, colormap=colormap, relu=True)
    index = int(logits.argmax()) if target is None else classifier.class_index(target)
    probabilities = classifier.probabilities(logits[None])[0]
    best = probabilities.topk(min(top, len(probabilities))).indices.tolist()
    shown = {each: _class(classifier, each, probabilities, logits) for each in [index, *best]}
    return {
        "size": {"width": photo.width, "height": photo.height},
        "model": classifier.name,
        "method": used,
        "layer": explained,
        "target": shown[index],
        "top": [shown[each] for each in best],
        "evidence": _gap(used, accuracy.get("gap")),
        "map": {
            "region": dict(zip(("x0", "y0", "x1", "y1"), region, strict=True)),
            "height": heatmap.shape[0],
            "width": heatmap.shape[1],
            "values": [[round(value, 5) for value in row] for row in heatmap.tolist()],
        },
        "seconds": round(seconds, 4),
        "pyxai": pyxai.__version__,
    }, {"overlay": picture}


def _class(
    classifier: Classifier, index: int, probabilities: torch.Tensor, logits: torch.Tensor
) -> dict[str, Any]:
    return {
        "index": index,
        "name": classifier.class_name(index),
        "probability": round(float(probabilities[index]), 6),
        "logit": round(float(logits[index]), 5),
    }


def _gap(method: str, gap: torch.Tensor | None) -> dict[str, Any]:
    if gap is None:
        return {"statement": _NO_STATEMENT, "gap": None}
    return {"statement": _STATEMENTS[method], "gap": float(gap[0, 0])}


def _table(results: list[dict[str, Any]]) -> str:
    rows = [("photo", "target", "probability", "top class", "method", "layer", "gap")]
    for result in results:
        gap = result["evidence"]["gap"]
        rows.append(
            (
                printable(Path(result["photo"]).name),
                result["target"]["name"],
                f"{result['target']['probability']:.3f}",
                f"{result['top'][0]['name']} {result['top'][0]['probability']:.3f}",
                result["method"],
                result["layer"],
                "-" if gap is None else f"{gap:.1e}",
            )
        )
    return text_table(rows)
