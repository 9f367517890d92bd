"""`pyxai undesirable`: photos in; figures of what stands in a class's way, and JSON files, out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image

import pyxai
from pyxai._text import text_table
from pyxai.attribution.masks import Factor, undesirable_pixels
from pyxai.attribution.masks.settings import MaskSettings
from pyxai.classifier import Classifier
from pyxai.cli._options import Architecture, AsJson, Device, ModelName, Output, Photos, Target
from pyxai.cli._photos import Result, class_of, process
from pyxai.images.errors import printable
from pyxai.zoo import load_classifier

_FACTORS: dict[str, Factor | None] = {
    "target": "target",
    "non-target": "non_target",
    "none": None,
}


def undesirable(
    photos: Photos = None,
    model: ModelName = "demo",
    architecture: Architecture = None,
    target: Target = None,
    factor: Annotated[
        str, typer.Option(help="target (F-TC), non-target (F-NTC) or none (Eq. 3).")
    ] = "target",
    steps: Annotated[int, typer.Option(min=1, help="Steps of the optimisation.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the first mask.")] = 0,
    tv_weight: Annotated[float, typer.Option(min=0, help="What rough masks cost.")] = 1.7,
    l1_weight: Annotated[float, typer.Option(min=0, help="What hiding costs.")] = 3.0,
    output: Output = Path("pyxai-undesirable"),
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Show which pixels stand in the way of a class: a figure and a JSON file for each photo."""
    if factor not in _FACTORS:
        raise ValueError(f"--factor: expected target, non-target or none, got {factor!r}")
    classifier = load_classifier(model, architecture=architecture, device=device)
    wanted = class_of(target, classifier)
    settings = MaskSettings(steps=steps, tv_weight=tv_weight, l1_weight=l1_weight)
    process(
        "undesirable",
        photos,
        output,
        lambda photo: learn_photo(
            classifier,
            photo,
            wanted,
            factor=_FACTORS[factor],
            seed=seed,
            settings=settings,
        ),
        as_json=as_json,
        summary=lambda found: f"{_table(found)}\n{len(found)} figures and JSON files in {output}/",
    )


def learn_photo(
    classifier: Classifier,
    photo: Image.Image,
    target: int | str | None,
    *,
    factor: Factor | None,
    seed: int,
    settings: MaskSettings,
) -> Result:
    """One photo: what goes into its JSON file, and its figure.

    Args:
        classifier: the model.
        photo: the photo.
        target: the class; None, the photo's top class.
        factor: see `pyxai.undesirable_pixels`.
        seed: of the first mask.
        settings: of the learning.
    """
    start = time.perf_counter()
    inputs = classifier.to_input(photo)
    found = undesirable_pixels(
        classifier, inputs, target, factor=factor, seed=seed, settings=settings
    )
    seconds = time.perf_counter() - start
    index = int(found.classes[0])
    before, after = float(found.before[0]), float(found.after[0])
    preprocessing = classifier.preprocessing
    name = classifier.class_name(index)
    area = float(found.area()[0])
    return {
        "model": classifier.name,
        "target": {"index": index, "name": name},
        "factor": factor,
        "seed": seed,
        "tv_weight": settings.tv_weight,
        "l1_weight": settings.l1_weight,
        "before": round(before, 6),
        "after": round(after, 6),
        "improvement_percent": round(float(found.improvement()[0]), 4),
        "area": round(area, 6),
        "loss": round(float(found.losses[found.steps[0] - 1, 0]), 6),
        "steps": int(found.steps[0]),
        "region": dict(
            zip(("x0", "y0", "x1", "y1"), preprocessing.region(photo.size), strict=True)
        ),
        "mask": [[round(value, 4) for value in row] for row in found.mask[0].tolist()],
        "seconds": round(seconds, 3),
        "pyxai": pyxai.__version__,
    }, {"figure": found.figure(cell=320)}


def _table(results: list[dict[str, Any]]) -> str:
    rows = [("photo", "target", "before", "after", "area", "factor")]
    for result in results:
        rows.append(
            (
                printable(Path(result["photo"]).name),
                result["target"]["name"],
                f"{result['before']:.3f}",
                f"{result['after']:.3f}",
                f"{result['area']:.4f}",
                result["factor"] or "none",
            )
        )
    table = text_table(rows)
    if any(not result["area"] for result in results):
        table += (
            "\nWhere the area is 0, hiding costs more than it gains: try a smaller --l1-weight."
        )
    return table
