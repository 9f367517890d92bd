"""What channels and classes respond to: pictures made by optimisation, and crops of photos."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from pyxai.classifier import Classifier, typical_input_shape
from pyxai.classifier.fingerprint import identity
from pyxai.draw import to_pictures
from pyxai.feature_visualization.exciting_crops import exciting_crops
from pyxai.feature_visualization.feature_visualization import visualize_features
from pyxai.images import ImageErrors
from pyxai.playground.photo_files import CROP, PhotoSet, places_of, shrunk
from pyxai.playground.writing import SiteFolder


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How pictures are made; see `pyxai.visualize_features`.

    Attributes:
        units: channels of a layer, drawn at random; 0 for no pictures.
        size: side in pixels.
        steps: of the optimisation.
        crops: photos beside each picture.
        seed: of all that is drawn.
    """

    units: int
    size: int
    steps: int
    crops: int
    seed: int


def write_units(
    site: SiteFolder,
    number: int,
    classifier: Classifier,
    layers: Sequence[dict[str, Any]],
    sets: Sequence[PhotoSet],
    drawing: Drawing,
    *,
    progress: bool,
) -> None:
    """Writes pictures and crops of some channels of each layer, and says so in `layers`.

    Args:
        site: where to.
        number: of the network.
        classifier: the network.
        layers: what site.js says of its layers; "units" and "thumbnail" are filled in.
        sets: whose photos are looked at.
        drawing: how.
        progress: whether to show a bar.
    """
    key = {
        "of": identity(classifier),
        "steps": drawing.steps,
        "size": drawing.size,
        "seed": drawing.seed,
        "units": drawing.units,
    }
    photos = [each.key for each in sets]
    bar = tqdm(layers, desc="units", unit="layer", disable=None if progress else True)
    for place, layer in enumerate(bar):
        address = f"networks/{number}/layers/{place}"
        channels = drawn_channels(layer["channels"], drawing.units, drawing.seed)
        layer["units"] = len(channels)
        layer["thumbnail"] = channels[0] if channels else None
        if not channels:
            continue
        # Pictures take longest, and stay if photos change.
        about = {**key, "layer": layer["name"]}
        drawn = f"{address}/drawn"
        if not site.begin(f"{address}/units/", f"{drawn}.js", last=drawn, **about):
            _write_pictures(site, address, classifier, layer["name"], channels, drawing)
        units, crops = f"{address}/units", f"{address}/crops/"
        about = {**about, "photos": photos, "crops": drawing.crops}
        if not site.begin(f"{units}.js", crops, last=units, **about):
            _write_crops(
                site,
                address,
                classifier,
                layer=layer["name"],
                channels=channels,
                sets=sets,
                drawing=drawing,
            )


def drawn_channels(count: int, most: int, seed: int) -> list[int]:
    """Some of the channels at random, in order."""
    random = np.random.default_rng(seed)
    return sorted(random.permutation(count)[:most].tolist())


def _write_pictures(
    site: SiteFolder,
    address: str,
    classifier: Classifier,
    layer: str,
    channels: list[int],
    drawing: Drawing,
) -> None:
    pictures, report = draw(classifier, layer, channels, drawing)
    for channel, picture in zip(channels, pictures, strict=True):
        site.picture(f"{address}/units/{channel}.jpg", picture, quality=90)
    site.write(f"{address}/drawn", report)


def _write_crops(
    site: SiteFolder,
    address: str,
    classifier: Classifier,
    layer: str,
    channels: list[int],
    sets: Sequence[PhotoSet],
    drawing: Drawing,
) -> None:
    """Writes units.js and the crops of photos.

    Raises:
        pyxai.images.ImageErrors: photos cannot be read any more.
    """
    drawn = site.read(f"{address}/drawn")
    found: list[tuple[Any, ...]] = [() for _ in channels]
    if drawing.crops:
        files = [photo.path for each in sets for photo in each.photos]
        excited = exciting_crops(classifier, files, layer, channels, per_channel=drawing.crops)
        if excited.failures:
            raise ImageErrors(excited.failures, len(files))
        found = [*excited]
    places = places_of(sets)
    units = []
    for row, channel in enumerate(channels):
        crops = []
        for rank, crop in enumerate(found[row]):
            site.picture(f"{address}/crops/{channel}-{rank}.jpg", shrunk(crop.picture(), CROP))
            number, photo = places[crop.name]
            facts = {"set": number, "photo": photo, "box": crop.box}
            crops.append({**facts, "response": round(crop.response, 5)})
        facts = {"dead": drawn["dead"][row], "responses": drawn["responses"][row]}
        units.append({"channel": channel, **facts, "crops": crops})
    facts = {"size": drawn["size"], "steps": drawing.steps, "seed": drawing.seed}
    site.write(f"{address}/units", {"units": units, **facts})


def draw(
    classifier: Classifier, layer: str | None, channels: list[int], drawing: Drawing
) -> tuple[list[Image.Image], dict[str, Any]]:
    """Pictures of channels, or of classes where the layer is None.

    Returns:
        The pictures; and for each whether nothing excited it ("dead"), and the activation in the
        first and the last step ("responses"); their "size".
    """
    shape = typical_input_shape(classifier.network, classifier.preprocessing)
    size = min(drawing.size, *shape[1:])
    with warnings.catch_warnings():  # the site marks units that nothing excites
        warnings.filterwarnings("ignore", message=".*responded to nothing")
        made = visualize_features(
            classifier,
            layer,
            channels,
            size=size,
            steps=drawing.steps,
            seed=drawing.seed,
        )
    ends = made.responses[[0, -1]].T.double().cpu().numpy().round(5).tolist()
    told = {"dead": made.dead.tolist(), "responses": ends, "size": size}
    return to_pictures(made.pictures.cpu(), (0, 0, 0), (1, 1, 1)), told
