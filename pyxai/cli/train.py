"""`pyxai train`: a folder of photos for each class in; a classifier for them out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, TypeAlias, cast

import typer

from pyxai._files import refuse_other_file, write_json
from pyxai._locks import check_folder
from pyxai.cli._options import Architecture, AsJson, Checkpoint, Device, ModelName
from pyxai.images.errors import printable
from pyxai.train.fine_tune import fine_tune
from pyxai.train.result import FineTuned
from pyxai.zoo import load_classifier
from pyxai.zoo.head import HeadKind
from pyxai.zoo.weights_file import check_is_free

_SHOWN = 20  # photos that were left out

Folder: TypeAlias = Annotated[
    Path,
    typer.Argument(help="A folder for each class, or a CSV file: path, label, perhaps split."),
]
Unfreeze: TypeAlias = Annotated[
    str,
    typer.Option(
        help="head, all, a number of last layers, 'from LAYER', or names separated by commas."
    ),
]
Valid: TypeAlias = Annotated[
    str | None,
    typer.Option(help="A folder or CSV file to judge by, or the share held out for that."),
]


def train(
    folder: Folder,
    model: ModelName = "demo",
    architecture: Architecture = None,
    head: Annotated[str, typer.Option(help="linear or mlp.")] = "linear",
    hidden: Annotated[int, typer.Option(help="Width of the hidden layer of mlp.")] = 2048,
    unfreeze: Unfreeze = "head",
    crop: Annotated[
        int | None, typer.Option(help="Side in pixels of random crops; by default whole photos.")
    ] = None,
    augment: Annotated[str, typer.Option(help="mirror, affine or none.")] = "mirror",
    epochs: Annotated[int, typer.Option(help="Passes over the photos.")] = 10,
    batch_size: Annotated[int, typer.Option(help="Photos in each step.")] = 32,
    learning_rate: Annotated[
        float | None, typer.Option(help="By default 1e-3 for a head, else 1e-4.")
    ] = None,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Weigh classes by how few photos they have.")
    ] = False,
    valid: Valid = None,
    early_stopping: Annotated[
        int | None, typer.Option(help="Stop after so many epochs without a better one; keep that.")
    ] = None,
    checkpoint: Checkpoint = None,
    seed: Annotated[int, typer.Option(help="Of all that is drawn at random.")] = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File for the classifier (safetensors).")
    ] = Path("tuned.safetensors"),
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Train a classifier to tell the classes of a folder of photos apart.

    Writes the classifier, and beside it a JSON file with all figures.
    """
    record = _record_beside(output)  # refused before the training, not after it
    found = fine_tune(
        load_classifier(model, architecture=architecture, device=device),
        folder,
        head=cast(HeadKind, head),
        hidden=hidden,
        unfreeze=_layers(unfreeze),
        crop=crop,
        augment=augment,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        class_weight="balanced" if balanced else None,
        valid=_share_or_path(valid),
        early_stopping=early_stopping,
        seed=seed,
        checkpoint=checkpoint,
        out=output,
    )
    _report(found, output, record, as_json)


def _record_beside(output: Path) -> Path:
    """The file for the figures; its folder is made.

    Raises:
        ValueError: a file of that name cannot be written, or is not of an earlier run.
    """
    if output.suffix == ".json" or not output.name or output.is_dir():
        got = repr(str(output))
        raise ValueError(f"--output: expected a name for a safetensors file, got {got}")
    record = output.with_suffix(".json")
    check_is_free(output, "--output")
    refuse_other_file("--output", record, "the figures of a classifier", _has_figures)
    check_folder("--output", output.parent)
    output.parent.mkdir(parents=True, exist_ok=True)
    return record


def _report(found: FineTuned, output: Path, record: Path, as_json: bool) -> None:
    """Writes the figures, and says what came out and what was left out."""
    report = found.to_dict()
    write_json(record, report)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        typer.echo(str(found))
        typer.echo(f"\n{output} and {record}")
    for path, reason in found.failures[:_SHOWN]:
        typer.echo(f"pyxai: not read: {printable(path)}: {reason}", err=True)
    for what, photos in (
        ("smaller than the crop", found.too_small),
        ("not readable", found.failures),
    ):
        if photos:
            typer.echo(f"pyxai: photos {what}: {len(photos)}", err=True)


def _has_figures(path: Path) -> bool:
    """Whether a file is what an earlier run has written beside its classifier."""
    return {"history", "confusion", "balanced_accuracy"} <= {*json.loads(path.read_bytes())}


def _layers(unfreeze: str) -> str | int | list[str]:
    if re.fullmatch(r"\d+", unfreeze):
        return int(unfreeze)
    return unfreeze.split(",") if "," in unfreeze else unfreeze


def _share_or_path(valid: str | None) -> str | float | None:
    if valid is None or Path(valid).exists():
        return valid
    try:
        return float(valid)
    except ValueError:
        return valid
