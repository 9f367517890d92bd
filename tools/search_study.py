"""How well the layers of trained networks find alike photos, as a table.

    python tools/search_study.py FOLDER                                 # the demo classifier
    python tools/search_study.py FOLDER --network mobilenet_v2 --weights FILE.npz \
        --mean 0.5 0.5 0.5 --std 0.5 0.5 0.5 --same-padding --sheets OUT

FOLDER has a sub-folder for each class. Networks are torchvision's, with parameters from .npz files
as `tools/method_sheet.py` reads them. Prints the measures of every layer by each metric, with
intervals; with `--sheets` it also saves what a few photos find, in the last layer and the first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyxai
from pyxai.neighbors.distances import METRICS


def classifier_of(arguments):
    if arguments.network is None:
        return pyxai.load_classifier("demo")
    from method_sheet import load  # needs torchvision

    return pyxai.Classifier(
        load(arguments.network, arguments.weights, arguments.same_padding),
        preprocessing=pyxai.Preprocessing(arguments.mean, arguments.std, resize=256, crop=224),
        name=arguments.network,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--mean", type=float, nargs=3, default=(0.485, 0.456, 0.406))
    parser.add_argument("--std", type=float, nargs=3, default=(0.229, 0.224, 0.225))
    parser.add_argument("--same-padding", action="store_true")
    parser.add_argument("--pooling", default="average")
    parser.add_argument("--metrics", nargs="+", default=["cosine", "euclidean"], choices=METRICS)
    parser.add_argument("--index", type=Path, help="folder for the index; by default in memory")
    parser.add_argument("--classes", action="store_true", help="also a line for each class")
    parser.add_argument("--sheets", type=Path, help="folder for sheets of six photos")
    arguments = parser.parse_args()
    index = pyxai.ImageIndex.build(
        classifier_of(arguments),
        arguments.folder,
        directory=arguments.index,
        pooling=arguments.pooling,
    )
    print(f"{arguments.folder.name}: {index}, {arguments.pooling} pooling")
    report = index.evaluate((1, 10), metrics=arguments.metrics)
    print(report.table(classes=arguments.classes))
    best = report.best()
    print(f"best by mAP: {best.layer}, {best.metric}")
    if arguments.sheets:
        arguments.sheets.mkdir(parents=True, exist_ok=True)
        layers = index.networks[0].layers
        for number in range(6):
            photo = number * len(index) // 6 + 1
            for layer in (layers[0].name, layers[-1].name):
                found = index.search(photo, 20, layer=layer)
                found.figure().save(arguments.sheets / f"{photo}-{layer}.png")


if __name__ == "__main__":
    main()
