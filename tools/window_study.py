"""Window search: how far the cheaper modes are from the exhaustive one, and what they cost.

    python tools/window_study.py --photos FOLDER --count 8 --networks demo \
        squeezenet1_0=FILE.npz mobilenet_v2=FILE.npz --json out.json --figure curve.svg

Every stage and block that windows can share is tried, and the dense mode where the head allows it:
rank correlation with the exhaustive scores, mean difference of the probability, share of windows
with the same top class, and processor time as a share of the exhaustive search's, each the median
over photos. Without `--photos`, scikit-learn's two. Networks other than the embedded one need
torchvision and their parameters as an .npz file (see method_sheet.py); the figure needs Matplotlib.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import workloads

import pyxai
from pyxai.attribution.windows.result import compare
from pyxai.attribution.windows.sharing import shared_layers
from pyxai.classifier.borrow import borrowed
from pyxai.images import find_photos, open_photo

# Mean and deviation of the input, and whether convolutions pad as TensorFlow does.
_HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
INPUTS = {"mobilenet_v2": (*_HALVES, True)}


def classifier_of(network):
    """The embedded classifier, or NAME=FILE.npz."""
    name, _, file = network.partition("=")
    if not file:
        return name, pyxai.load_classifier(name)
    from method_sheet import load

    mean, std, same_padding = INPUTS.get(name, (*_IMAGENET, False))
    model = load(name, Path(file), same_padding)
    return name, pyxai.Classifier(model, preprocessing=pyxai.Preprocessing(mean, std), name=name)


def photos_of(folder, count, window):
    """Scikit-learn's photos, and so many of a folder (drawn by a fixed seed) with room to move."""
    samples = load_sample_images().images
    photos = [Image.fromarray(pixels) for pixels in samples]
    if folder is not None:
        paths = find_photos(folder)
        random.Random(0).shuffle(paths)
        for path in paths:
            if len(photos) == len(samples) + count:
                break
            photo = open_photo(path)
            if min(photo.size) >= 1.5 * window:
                photos.append(photo)
    return photos


def layers_of(classifier, window):
    """Stages, blocks and pooling layers that windows can share, with a window's rows of cells."""
    probe = torch.randn(2, 3, window, window)
    with borrowed(classifier.network):
        found = shared_layers(classifier, probe)
    modules = dict(classifier.network.named_modules())
    kept = {}
    for name, layout in found.items():
        module = modules.get(name)
        if module is None:  # a function
            continue
        whole = any(True for _ in module.children()) or isinstance(module, nn.MaxPool2d)
        if whole and name.count(".") <= 1:
            kept[name] = layout.height
    return kept


def measure(network, photos, window, stride):
    """One row for each way: layer, cells of a window, and the medians over the photos."""
    name, classifier = classifier_of(network)
    layers = layers_of(classifier, window)
    ways = [("shared", layer, cells) for layer, cells in layers.items()]
    ways += [("shared", None, None), ("dense", None, None)]
    rows = []
    searches = [timed(classifier, photo, window, stride, mode="exhaustive") for photo in photos]
    for mode, layer, cells in ways:
        options = {"mode": mode} | ({} if layer is None else {"shared_layer": layer})
        found = []
        try:
            timed(classifier, photos[0], window, stride, **options)
            for photo, (exact, seconds) in zip(photos, searches, strict=True):
                ours, taken = timed(classifier, photo, window, stride, **options)
                agreement = compare(ours.logits, exact.logits, exact.target)
                found.append(
                    (
                        agreement,
                        taken / seconds,
                        ours.top(1, exact.target)[0].index == exact.top(1)[0].index,
                    )
                )
        except ValueError as error:
            print(f"{name}: {mode}: {error}")
            continue
        ranks = [agreement.rank_correlation for agreement, _, _ in found]
        row = {
            "network": name,
            "mode": mode,
            "layer": ours.layer,
            "chosen": mode == "shared" and layer is None,
            "cells": cells or layers.get(ours.layer),
            "photos": len(photos),
            "rank_correlation": statistics.median(ranks),
            "rank_low": min(ranks),
            "rank_high": max(ranks),
            "difference": statistics.median(agreement.difference for agreement, _, _ in found),
            "same_class": statistics.median(agreement.same_class for agreement, _, _ in found),
            "same_best": sum(best for _, _, best in found) / len(found),
            "time": statistics.median(share for _, share, _ in found),
        }
        rows.append(row)
        print(
            "{network:14} {mode:7} {layer:12} cells {cells!s:4} rho {rank_correlation:.3f} "
            "({rank_low:.3f} to {rank_high:.3f})  |dp| {difference:.3f}  same class "
            "{same_class:.2f}  same best {same_best:.2f}  time {time:.2f}".format(**row),
            flush=True,
        )
    return rows


def timed(classifier, photo, window, stride, **options):
    """The result and the seconds of processor time it took, which other programs do not change."""
    start = time.process_time()
    found = pyxai.sliding_window(classifier, photo, window=window, stride=stride, **options)
    return found, time.process_time() - start


def draw(rows, file):
    """Rank correlation against time, a line for each network."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "windows"  # the same file for the same rows
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for number, name in enumerate(dict.fromkeys(row["network"] for row in rows)):
        color = f"C{number}"
        shared = [r for r in rows if r["network"] == name and r["mode"] == "shared"]
        tried = sorted((r for r in shared if not r["chosen"]), key=lambda r: r["time"])
        axes.plot(
            [r["time"] for r in tried],
            [r["rank_correlation"] for r in tried],
            "o-",
            color=color,
            markersize=4,
            linewidth=1,
            label=f"{name}, shared",
        )
        for row in rows:
            if row["network"] == name and (row["mode"] == "dense" or row["chosen"]):
                marker, label = ("*", "dense") if row["mode"] == "dense" else ("s", "chosen")
                axes.plot(
                    row["time"],
                    row["rank_correlation"],
                    marker,
                    color=color,
                    markersize=10,
                    markerfacecolor="none" if label == "chosen" else color,
                    label=f"{name}, {label}",
                )
    axes.set_xlabel("time, as a share of the exhaustive search")
    axes.set_ylabel("rank correlation with the exhaustive search")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["demo"], help="demo, NAME=FILE.npz")
    parser.add_argument("--photos", type=Path, help="a folder")
    parser.add_argument("--count", type=int, default=8, help="how many of its photos")
    parser.add_argument("--window", type=int, default=160)
    parser.add_argument("--stride", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--figure", type=Path, help="file for the curve, .svg or .png")
    arguments = parser.parse_args()
    workloads.keep_allocator_warm()
    torch.set_num_threads(arguments.threads)
    photos = photos_of(arguments.photos, arguments.count, arguments.window)
    rows = []
    for network in arguments.networks:
        rows += measure(network, photos, arguments.window, arguments.stride)
    if arguments.json:
        workloads.save(arguments.json, rows, ["torch"])
    if arguments.figure:
        draw(rows, arguments.figure)


if __name__ == "__main__":
    main()
