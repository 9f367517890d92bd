"""How far SHAP values by gradients are from adding up, and from the integral, on real photos.

    python tools/shap_study.py --photos FOLDER --model demo --background blur mean FOLDER
    python tools/shap_study.py --photos FOLDER --model FILE --architecture torchvision:mobilenet_v2

Of `--count` photos the top class is explained. A background that is a folder stands for
`--many` of its photos, which are none of those that are explained. Printed is for each background
and each way of drawing samples the gap as a share of |output - base value|: median, 95th
percentile, most, and how many photos stay within 1 %. The ways: "equal steps" is that of pyxai,
"stratified" has a place drawn in each of equal parts of the way, "independent" draws both place and
background as shap and captum do. "and control variate" is what `shap_values` gives by default.

Of the first `--references` photos values are compared with those of `--reference` samples: relative
L2 error, correlation, and the error that the standard errors tell, all means. Photos and
backgrounds are drawn by a fixed seed.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from pathlib import Path

import torch
from torch.nn import functional

import pyxai
from pyxai._text import text_table
from pyxai.attribution.shap import _made
from pyxai.attribution.shap.gradients import Draw, drawn, integrate
from pyxai.attribution.shap.model import explained
from pyxai.classifier.borrow import borrowed
from pyxai.images import find_photos, open_photo


def pairs_of(samples):
    """All samples as one chain, as `drawn` has it for few samples."""
    pairs = torch.full((samples,), samples / (2 * (samples - 1))).double()
    pairs[0] = 0
    return pairs


def stratified(samples, backgrounds, seed):
    """One place in each of equal parts, backgrounds in rounds."""
    generator = torch.Generator().manual_seed(seed)
    turns = [
        torch.randperm(backgrounds, generator=generator) for _ in range(-(-samples // backgrounds))
    ]
    inside = torch.rand(samples, generator=generator).double()
    places = (torch.arange(samples) + inside) / samples
    weights = torch.full((samples,), 1 / samples).double()
    return Draw(torch.cat(turns)[:samples], places, weights, pairs_of(samples))


def independent(samples, backgrounds, seed):
    """As in plain Monte Carlo integration."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(backgrounds, (samples,), generator=generator)
    places = torch.rand(samples, generator=generator).double()
    weights = torch.full((samples,), 1 / samples).double()
    return Draw(which, places, weights, pairs_of(samples))


WAYS = {
    "independent": (independent, False),
    "stratified": (stratified, False),
    "equal steps": (drawn, False),
    "and control variate": (drawn, True),
}


def inputs_of(classifier, paths, size):
    """Photos as input of one size, `[n, C, H, W]`."""
    inputs = [classifier.to_input(open_photo(path)) for path in paths]
    return torch.cat([functional.interpolate(each, size, mode="bilinear") for each in inputs])


def backgrounds_of(classifier, names, many, explained_paths, size):
    """For each name a function from an image to its background `[1, B, C, H, W]`."""
    found = {}
    for name in names:
        if name in ("blur", "mean"):
            found[name] = lambda image, name=name: _made(image, name)[:, None].expand_as(
                image[:, None]
            )
            continue
        paths = [path for path in find_photos(name) if path not in explained_paths]
        random.Random(1).shuffle(paths)
        pictures = inputs_of(classifier, paths[:many], size)
        found[f"{len(pictures)} photos"] = lambda image, pictures=pictures: pictures
    return found


def integral(classifier, image, background, draw, correct):
    """Values, their error, and the gaps with and without correction as shares."""
    with borrowed(classifier.network):
        model = explained(classifier, image, None, "logits", None)
        found = integrate(model, background, draw, correct)
    values, told = found.values[0, 0].double(), found.error[0, 0].double()
    change = (model.outputs - found.base).abs()
    left = (found.base + values.sum() - model.outputs).abs() / change
    return values, told, float(left), float(found.gap.abs() / change)


def study(classifier, image, background, samples, reference, gaps, errors):
    """Adds what one photo gives."""
    count = 1 if background.ndim == 5 else len(background)
    best = None
    if reference:
        best, *_ = integral(classifier, image, background, drawn(reference, count, 1), False)
    for way, (draw, correct) in WAYS.items():
        if way == "equal steps" and best is None:
            continue  # its gap comes with the next way
        points = draw(samples, count, 0)
        values, told, gap, sampled = integral(classifier, image, background, points, correct)
        gaps[way].append(gap)
        if correct and best is None:
            gaps["equal steps"].append(sampled)
        if best is not None:
            both = torch.stack([values.flatten(), best.flatten()])
            error = float((values - best).norm() / best.norm())
            relative = float(told.norm() / best.norm())
            errors[way].append((error, float(both.corrcoef()[0, 1]), relative))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--architecture")
    parser.add_argument("--background", nargs="+", default=["blur", "mean"])
    parser.add_argument("--many", type=int, default=50, help="photos of a background folder")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--references", type=int, default=0)
    parser.add_argument("--reference", type=int, default=5000)
    arguments = parser.parse_args()
    classifier = pyxai.load_classifier(arguments.model, architecture=arguments.architecture)
    paths = find_photos(arguments.photos)
    random.Random(0).shuffle(paths)
    paths = paths[: arguments.count]
    size = classifier.to_input(open_photo(paths[0])).shape[2:]
    images = inputs_of(classifier, paths, size)
    made = backgrounds_of(classifier, arguments.background, arguments.many, {*paths}, size)
    print(f"{classifier.name}: {len(images)} photos, {arguments.samples} samples")
    heads = ("median", "95 %", "most", "within 1 %", "error", "correlation", "error told")
    rows = [("background", "samples", *heads)]
    for name, background_of in made.items():
        gaps, errors = ({way: [] for way in WAYS} for _ in range(2))
        for place, image in enumerate(images.split(1)):
            reference = arguments.reference if place < arguments.references else 0
            background = background_of(image)
            study(classifier, image, background, arguments.samples, reference, gaps, errors)
        for way, found in gaps.items():
            ranked = torch.tensor(found).sort().values
            high = ranked[math.ceil(0.95 * len(ranked)) - 1]
            within = f"{int((ranked <= 0.01).sum())}/{len(ranked)}"
            shares = [f"{100 * float(each):.2f} %" for each in (ranked.median(), high, ranked[-1])]
            told = [statistics.mean(column) for column in zip(*errors[way], strict=True)]
            rows.append((name, way, *shares, within, *([f"{each:.4f}" for each in told] or "---")))
    print(text_table(rows))


if __name__ == "__main__":
    main()
