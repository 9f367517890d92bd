"""`pyxai novelty`: a detector fitted on known photos, scores of others, and how good they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias, cast

import numpy as np
import typer
from PIL import Image

import pyxai
from pyxai._files import write_json, write_table
from pyxai._locks import check_folder
from pyxai._outputs import OutputFolder
from pyxai._results import plain
from pyxai._text import text_table
from pyxai.cli._layers import check_layers
from pyxai.cli._options import Architecture, AsJson, Device, ModelName, Output
from pyxai.draw import histogram, sheet
from pyxai.images import ImageError, PhotoFailure, open_photo
from pyxai.images.errors import printable
from pyxai.novelty import METHODS, NoveltyDetector
from pyxai.novelty.storage import check_is_free
from pyxai.zoo import load_classifier

_FILES = ("scores.csv", "scores.json", "sheet.png", "histogram.png")
_SHOWN = 20

novelty = typer.Typer(
    help="Tell photos of the kind that a classifier knows from all others.", no_args_is_help=True
)

Known: TypeAlias = Annotated[list[Path], typer.Argument(help="Known photos or folders of them.")]
Head: TypeAlias = Annotated[Path, typer.Option(help="File of the fitted detector.")]
HEAD = Path("novelty.safetensors")


@novelty.command()
def fit(
    known: Known,
    novel: Annotated[
        list[Path] | None,
        typer.Option(help="Novel photos to learn from, for logistic; repeatable."),
    ] = None,
    model: ModelName = "demo",
    architecture: Architecture = None,
    layer: Annotated[
        str | None, typer.Option(help="Layer; by default what enters the last linear layer.")
    ] = None,
    method: Annotated[
        str, typer.Option(help=f"auto, {', '.join(METHODS)}; auto: logistic or knn.")
    ] = "auto",
    false_alarm_rate: Annotated[
        float | None, typer.Option(help="Share of known photos to take for novel; 0.05.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="folder: photos are of the class that their folder names.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything drawn.")] = 0,
    head: Head = HEAD,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Fit a detector on known photos and save it."""
    check_is_free(head, "--head")
    check_folder("--head", head.parent)
    classifier = load_classifier(model, architecture=architecture, device=device)
    check_layers(classifier, [layer], model)
    detector = NoveltyDetector(
        classifier, layer, method, false_alarm_rate=false_alarm_rate, seed=seed
    )
    detector.fit(known, novel or None, labels=labels)
    detector.save(head)
    facts = {
        "head": str(head),
        "model": classifier.name,
        "method": detector.method_.name,
        "layer": detector.layer_,
        "numbers": detector.n_features_in_,
        "known": detector.n_known_,
        "threshold_on": detector.n_threshold_,
        "threshold": detector.threshold_,
        "report": getattr(detector.method_, "report", None),
        "unreadable": len(detector.failures_),
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        rows = [(name.replace("_", " "), str(each)) for name, each in facts.items() if each]
        typer.echo(text_table(rows))
    _report(detector.failures_)


@novelty.command()
def score(
    photos: Annotated[list[Path], typer.Argument(help="Photos or folders of them.")],
    model: ModelName = "demo",
    architecture: Architecture = None,
    head: Head = HEAD,
    output: Output = Path("pyxai-novelty"),
    shown: Annotated[
        int, typer.Option(min=1, help="Photos on the sheet, of the most and the least familiar.")
    ] = 12,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Score photos: scores.csv, scores.json and a sheet of the most and the least familiar."""
    folder = OutputFolder(output, "--output", by="pyxai novelty score")
    folder.check(*_FILES)
    detector = _load(head, model, architecture, device)
    names, scores, failures = _scores(detector, photos)
    order = np.argsort(-scores, kind="stable")
    known = scores >= detector.threshold_
    results: list[dict[str, Any]] = [
        {"photo": name, "score": float(scores[place]), "known": bool(known[place])}
        for place, name in enumerate(names)
    ]
    record = {
        "model": cast(Any, detector.model).name,
        "method": detector.method_.name,
        "layer": detector.layer_,
        "threshold": detector.threshold_,
        "results": results,
        "failures": plain(failures),
        "pyxai": pyxai.__version__,
    }
    with folder.writing("scores.csv") as path:
        rows = ((each["photo"], each["score"], int(each["known"])) for each in results)
        write_table(path, ("photo", "score", "known"), rows)
    with folder.writing("scores.json") as path:
        write_json(path, record, indent=2)
    first, last = order[:shown].tolist(), order[::-1][:shown].tolist()
    with folder.writing("sheet.png") as path:
        familiarity_sheet(names, scores, first, last).save(path)
    title, line = "familiarity", detector.threshold_
    with folder.writing("histogram.png") as path:
        histogram({"photos": scores}, title=title, line=line).save(path)
    if as_json:
        typer.echo(json.dumps(record, indent=2))
    else:
        typer.echo(_table(names, scores, known, order))
        novel = len(names) - int(known.sum())
        typer.echo(f"{len(names)} photos, {novel} novel; scores, sheet, histogram in {output}/")
    _report(failures)


@novelty.command()
def evaluate(
    known: Annotated[list[Path], typer.Option(help="Known photos; repeatable.")],
    novel: Annotated[list[Path], typer.Option(help="Novel photos; repeatable.")],
    model: ModelName = "demo",
    architecture: Architecture = None,
    head: Head = HEAD,
    bootstrap: Annotated[int, typer.Option(min=0, help="Samples for the intervals.")] = 1000,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Say how well a detector tells known photos from novel ones, with intervals."""
    detector = _load(head, model, architecture, device)
    _, of_known, failures = _scores(detector, known)
    _, of_novel, more = _scores(detector, novel)
    found = pyxai.novelty.evaluate_scores(of_known, of_novel, bootstrap=bootstrap)
    found = replace(found, failures=(*failures, *more))
    false_alarms = float((of_known < detector.threshold_).mean())
    missed = float((of_novel >= detector.threshold_).mean())
    if as_json:
        record = {
            "method": detector.method_.name,
            **found.to_dict(),
            "known_below_threshold": false_alarms,
            "novel_above_threshold": missed,
        }
        typer.echo(json.dumps(record, indent=2))
    else:
        typer.echo(str(found))
        typer.echo(f"at the threshold: {false_alarms:.1%} of known rejected, ", nl=False)
        typer.echo(f"{missed:.1%} of novel accepted")
    _report(found.failures)


def familiarity_sheet(
    names: Sequence[str], scores: np.ndarray[Any, Any], first: list[int], last: list[int]
) -> Image.Image:
    """The most familiar photos in rows of six, then the least familiar, with their scores."""
    rows: list[list[Image.Image | None]] = []
    titles: list[str] = []
    for what, places in (("most familiar", first), ("least familiar", last)):
        for start in range(0, len(places), 6):
            some = places[start : start + 6]
            rows.append([_thumbnail(names[place]) for place in some])
            titles.append(f"{what}: {', '.join(f'{scores[place]:.4g}' for place in some)}")
    return sheet(rows, row_titles=titles, cell=160)


def _thumbnail(name: str) -> Image.Image | None:
    try:
        photo = open_photo(name)
    except ImageError:  # it has vanished since
        return None
    photo.thumbnail((320, 320))
    return photo


def _load(head: Path, model: str, architecture: str | None, device: str | None) -> NoveltyDetector:
    classifier = load_classifier(model, architecture=architecture, device=device)
    return NoveltyDetector.load(head, classifier)


def _scores(
    detector: NoveltyDetector, photos: list[Path]
) -> tuple[list[str], np.ndarray[Any, Any], list[PhotoFailure]]:
    """Names, scores and failures, batch by batch: activations are not kept.

    Raises:
        pyxai.images.ImageErrors: no photo can be used.
    """
    names: list[str] = []
    failures: list[PhotoFailure] = []
    scores: list[np.ndarray[Any, Any]] = []
    for chunk in detector.activations(photos, skip_failures=True):
        names.extend(chunk.names or ())
        failures.extend(chunk.failures)
        scores.append(detector.score_samples(chunk))
    return names, np.concatenate(scores), failures


def _table(
    names: list[str],
    scores: np.ndarray[Any, Any],
    known: np.ndarray[Any, Any],
    order: np.ndarray[Any, Any],
) -> str:
    """The most and the least familiar photos."""
    rows = [("photo", "score", "")]
    half = _SHOWN // 2
    places = order.tolist()
    if len(places) > _SHOWN:
        places = [*places[:half], -1, *places[-half:]]
    for place in places:
        if place < 0:
            rows.append(("...", "", ""))
            continue
        verdict = "known" if known[place] else "novel"
        rows.append((printable(names[place]), f"{scores[place]:.4f}", verdict))
    return text_table(rows)


def _report(failures: Sequence[PhotoFailure]) -> None:
    for failure in failures[:_SHOWN]:
        typer.echo(f"pyxai: not read: {printable(failure.path)}: {failure.reason}", err=True)
    if len(failures) > _SHOWN:
        typer.echo(f"pyxai: and {len(failures) - _SHOWN} more", err=True)
