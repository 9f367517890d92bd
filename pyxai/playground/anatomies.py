"""What a network consists of: its layers in order of execution, with sizes and parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from pyxai.classifier import Classifier, Examined, typical_input
from pyxai.classifier.borrow import borrowed
from pyxai.classifier.nested import first_tensor
from pyxai.classifier.points import find_layer
from pyxai.classifier.survey import watching
from pyxai.feature_visualization.units import look_at_layer
from pyxai.playground.writing import SiteFolder


@dataclass(frozen=True)
class Module:
    """A layer of a network.

    Attributes:
        name: as in `model.named_modules()`.
        kind: its class.
        parameters: numbers that it learned, with all that it contains.
        own: the same without what it contains.
        shape: of its output for one photo; None where that is no tensor.
    """

    name: str
    kind: str
    parameters: int
    own: int
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Anatomy:
    """A network on an input of its usual size.

    Attributes:
        modules: innermost layers and those that are searched, as they ran.
        classes: how many.
        examined: the classifier, for such inputs.
    """

    modules: tuple[Module, ...]
    classes: int
    examined: Examined


def dissect(classifier: Classifier, layers: Sequence[str]) -> Anatomy:
    """Runs the network once and looks at what runs.

    Args:
        classifier: the model.
        layers: those that are searched; listed even if they contain others.
    """
    network = classifier.network
    examined = Examined(classifier, typical_input(classifier))
    found: dict[str, Module] = {}

    def look(name: str, module: nn.Module, output: Any) -> None:
        inner = next(module.children(), None) is None
        if not inner and name not in layers:
            return
        tensor = first_tensor(output)
        own = sum(each.numel() for each in module.parameters(recurse=False))
        whole = sum(each.numel() for each in module.parameters())
        size = None if tensor is None else tuple(tensor.shape[1:])
        found.pop(name, None)  # one that runs again stands where it ran last
        found[name] = Module(name, type(module).__name__, whole, own, size)

    with borrowed(network), watching(network, look):
        logits = examined.logits()
    return Anatomy(_with_points(examined, found, layers), logits.shape[1], examined)


def _with_points(
    examined: Examined, found: dict[str, Module], layers: Sequence[str]
) -> tuple[Module, ...]:
    """The modules, and what else is searched: runs of layers and what functions give."""
    modules = list(found.values())
    outputs = examined.anatomy.outputs
    names = [output.point.name for output in outputs]
    for name in layers:
        if name in found or name not in names:
            continue
        at = names.index(name)
        point, size = outputs[at].point, outputs[at].shape[1:]
        kind = point.function or type(find_layer(examined.network, point.module)).__name__
        listed = [module.name for module in modules]
        after = next((each for each in names[at:] if each in listed), None)
        place = len(modules) if after is None else listed.index(after)
        modules.insert(place, Module(name, kind, 0, 0, size))
    return tuple(modules)


def write_anatomy(
    site: SiteFolder,
    number: int,
    classifier: Classifier,
    layers: Sequence[str],
    widths: Sequence[int],
) -> dict[str, Any]:
    """Writes names.js and modules.js of a network.

    Returns:
        What site.js says of it; "units" and "thumbnail" of its layers are for others to fill.
    """
    anatomy = dissect(classifier, layers)
    address = f"networks/{number}"
    site.begin(f"{address}/names.js")
    site.begin(f"{address}/modules.js")
    names = [classifier.class_name(index) for index in range(anatomy.classes)]
    site.write(f"{address}/names", {"names": names})
    rows = [
        {
            "name": module.name,
            "type": module.kind,
            "parameters": module.parameters,
            "shape": module.shape,
            "layer": layers.index(module.name) if module.name in layers else None,
        }
        for module in anatomy.modules
    ]
    site.write(f"{address}/modules", {"modules": rows})
    total = sum(each.numel() for each in classifier.network.parameters())
    return {
        "name": classifier.name,
        "parameters": total,
        "classes": anatomy.classes,
        "modules": len(rows),
        "layers": [
            _layer(anatomy, name, width) for name, width in zip(layers, widths, strict=True)
        ],
    }


def _layer(anatomy: Anatomy, name: str, width: int) -> dict[str, Any]:
    places = {module.name: place for place, module in enumerate(anatomy.modules)}
    place = places[name]
    module = anatomy.modules[place]
    looked = look_at_layer(anatomy.examined, name)
    return {
        "name": name,
        "type": module.kind,
        "index": place,
        "channels": looked.channels,
        "positions": looked.size,
        "width": width,
        "parameters": module.parameters,
        "parameters_so_far": sum(each.own for each in anatomy.modules[: place + 1]),
        "units": 0,
        "thumbnail": None,
    }
