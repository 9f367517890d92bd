"""`pyxai layers`: what a network is made of, which layer is explained by default, and why."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from pyxai._text import text_table
from pyxai.classifier import Classifier, Examined, typical_input
from pyxai.classifier.survey import Output
from pyxai.cli._options import Architecture, AsJson, Device, ModelName
from pyxai.zoo import load_classifier


def layers(
    model: Annotated[str, typer.Argument(help=ModelName.__metadata__[0].help)] = "demo",
    architecture: Architecture = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """List the layers of a network, as --layer takes them, and say which one is the default."""
    classifier = load_classifier(model, architecture=architecture, device=device)
    found = describe_layers(classifier)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    rows = [("layer", "kind", "output", "positions", "")]
    rows += [
        (
            each["layer"],
            each["kind"],
            " × ".join(map(str, each["output"])),
            " × ".join(map(str, each["positions"] or ())) or "-",
            each["remark"],
        )
        for each in found["layers"]
    ]
    typer.echo(f"{text_table(rows)}\n{found['why']}")


def describe_layers(classifier: Classifier) -> dict[str, Any]:
    """The layers of a network for an image of its usual size, and which one is the default."""
    probe = typical_input(classifier)
    examined = Examined(classifier, probe)
    default = examined.layer()
    reached = {each.point.name for each in examined.reached()}
    listed = [each for each in examined.anatomy.outputs if _is_layer(each)]
    return {
        "model": classifier.name,
        "input": list(probe.shape),
        "default": default,
        "why": _why(examined, default),
        "layers": [
            {
                "layer": each.point.name,
                "kind": each.point.function or type(each.module).__name__,
                "output": list(each.shape),
                "positions": _positions(each),
                "remark": _remark(each, default, reached),
            }
            for each in listed
        ],
    }


def _is_layer(output: Output) -> bool:
    if output.mark in ("moved", "product"):
        return False
    return output.layout is not None or (len(output.shape) == 2 and output.module is not None)


def _positions(output: Output) -> list[int] | None:
    layout = output.layout
    several = layout is not None and layout.positions > 1
    return [layout.height, layout.width] if layout is not None and several else None


def _remark(output: Output, default: str, reached: set[str]) -> str:
    if output.point.name == default:
        return "the default"
    if output.point.name not in reached:
        return "the logits do not depend on it"
    if output.point.function is None and not output.point.last:
        return f"run {output.point.run} of {output.point.module}"
    return "pooled" if output.mark == "pooled" else ""


def _why(examined: Examined, default: str) -> str:
    head = examined.linear_head(default)
    what = "some other head, so Grad-CAM is used"
    if head is not None:
        what = "the mean over its positions and a linear head, so CAM is exact"
    return (
        f"{default!r} is explained by default: of the layers with several positions it is the last "
        f"that the logits depend on. After it comes {what}."
    )
