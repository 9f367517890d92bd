"""`pyxai windows`: photos in; sheets of windows, overlays, JSON files and a short table out."""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

import pyxai
from pyxai._errors import passes_through
from pyxai._text import text_table
from pyxai.attribution.windows.grid import USUAL, usual_window
from pyxai.attribution.windows.result import WindowScores
from pyxai.classifier import Classifier
from pyxai.cli._options import Architecture, AsJson, Device, ModelName, Output, Photos
from pyxai.cli._photos import Result, class_of, process
from pyxai.draw import overlay, window_sheet
from pyxai.images import ImageError
from pyxai.images.errors import printable
from pyxai.zoo import load_classifier

_LENGTHS = "pixels, one number or HEIGHTxWIDTH"


def windows(
    photos: Photos = None,
    model: ModelName = "demo",
    architecture: Architecture = None,
    window: Annotated[
        str | None,
        typer.Option(help=f"Size of a window: {_LENGTHS}; 160, or half a side of small photos."),
    ] = None,
    stride: Annotated[
        str | None, typer.Option(help="Step, one number or DOWNxACROSS; a quarter of the window.")
    ] = None,
    resize: Annotated[
        str | None, typer.Option(help=f"What windows become before the network: {_LENGTHS}.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Class name or index; by default each photo's most probable.")
    ] = None,
    mode: Annotated[str, typer.Option(help="exhaustive, shared or dense.")] = "exhaustive",
    output: Output = Path("pyxai-windows"),
    top: Annotated[int, typer.Option(min=1, help="How many of the best windows to report.")] = 5,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Show which pieces of a photo look like a class: a sheet, an overlay and a JSON file each."""
    options: dict[str, Any] = {"mode": mode}
    for name, text in (("window", window), ("stride", stride), ("resize", resize)):
        options[name] = None if text is None else _lengths(name, text)
    classifier = load_classifier(model, architecture=architecture, device=device)
    options["target"] = class_of(target, classifier)
    process(
        "windows",
        photos,
        output,
        lambda photo: search_photo(classifier, photo, options, top),
        as_json=as_json,
        summary=lambda found: (
            f"{_table(found)}\n{len(found)} sheets, overlays and JSON files in {output}/"
        ),
    )


def search_photo(
    classifier: Classifier, photo: Image.Image, options: dict[str, Any], top: int
) -> Result:
    """One photo: what goes into its JSON file, its sheet and its overlay.

    Raises:
        ImageError: it is smaller than the window, or so small that the network refuses its pieces.
    """
    height, width = options["window"] or (0, 0)
    if photo.height < height or photo.width < width:
        found = f"found {photo.height} × {photo.width}; without --window one that fits is taken"
        raise ImageError("photo", f"expected at least the window, {height} × {width}, {found}")
    start = time.perf_counter()
    scores = _search(classifier, photo, options)
    seconds = time.perf_counter() - start
    x0, y0, x1, y1 = scores.boxes[0].tolist()
    means = scores.probabilities.mean(dim=0)
    probabilities = scores.scores.flatten().tolist()
    pictures = {
        "windows": window_sheet(photo, scores.boxes, scores.scores),
        # Where the stride leaves gaps, no window tells anything.
        "overlay": overlay(photo, scores.heatmap().nan_to_num(0.0)),
    }
    return {
        "size": {"width": photo.width, "height": photo.height},
        "model": classifier.name,
        "mode": scores.mode,
        "layer": scores.layer,
        "target": {
            "index": scores.target,
            "name": classifier.class_name(scores.target),
            "mean_probability": round(float(means[scores.target]), 6),
        },
        "window": {"height": y1 - y0, "width": x1 - x0},
        "rows": scores.rows,
        "columns": scores.columns,
        "boxes": scores.boxes.tolist(),
        "probabilities": [round(each, 6) for each in probabilities],
        "top": [
            {"box": best.box, "probability": round(best.probability, 6)}
            for best in scores.top(top, max_overlap=0.5)
        ],
        "agreement": _agreement(scores),
        "seconds": round(seconds, 4),
        "pyxai": pyxai.__version__,
    }, pictures


def _search(classifier: Classifier, photo: Image.Image, options: dict[str, Any]) -> WindowScores:
    """The scores; where windows were made smaller for this photo, what fails is the photo's."""
    try:
        found: WindowScores = pyxai.sliding_window(classifier, photo, **options)
        return found
    except (ValueError, RuntimeError) as error:
        window = usual_window(min(photo.size))
        chosen = not options["window"] and window < USUAL
        if not chosen or not _is_about_size(error, options["mode"]):
            raise
        said = " ".join(str(error).split())[:300]
        tried = f"so small that windows of {window} × {window} pixels were tried ({said})"
        raise ImageError("photo", f"{photo.height} × {photo.width}, {tried}") from error


def _is_about_size(error: Exception, mode: str) -> bool:
    """Whether another window might have done; arguments that are wrong anyway are not."""
    if isinstance(error, RuntimeError):
        return not passes_through(error)
    of_mode = mode in ("shared", "dense") and str(error).startswith("mode: ")
    return of_mode or str(error).startswith("window: ")


def _agreement(scores: WindowScores) -> dict[str, Any] | None:
    """How far the scores are from exhaustive ones; None where they are these, or for one window."""
    if scores.mode == "exhaustive":
        return None
    found = dataclasses.asdict(scores.agreement())
    # NaN is no JSON.
    return {name: None if value != value else round(value, 5) for name, value in found.items()}


def _lengths(argument: str, text: str) -> tuple[int, int]:
    """Two lengths from "160" or "120x160".

    Raises:
        ValueError: it is something else.
    """
    found = re.fullmatch(r"(\d+)(?:[x×](\d+))?", text.strip())
    if found is None:
        raise ValueError(f"{argument}: expected pixels such as 160 or 120x160, got {text!r}")
    return int(found[1]), int(found[2] or found[1])


def _table(results: list[dict[str, Any]]) -> str:
    rows = [("photo", "target", "mean", "best window", "windows", "size", "mode", "agreement")]
    for result in results:
        best, agreement = result["top"][0], result["agreement"]
        correlation = agreement and agreement["rank_correlation"]
        box = ", ".join(map(str, best["box"]))
        rows.append(
            (
                printable(Path(result["photo"]).name),
                result["target"]["name"],
                f"{result['target']['mean_probability']:.3f}",
                f"{best['probability']:.3f} at ({box})",
                f"{result['rows']} × {result['columns']}",
                f"{result['window']['height']} × {result['window']['width']}",
                result["mode"],
                "-" if correlation is None else f"{correlation:.3f}",
            )
        )
    return text_table(rows)
