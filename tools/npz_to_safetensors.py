"""Makes a classifier file of trained weights given as an .npz file.

    python tools/npz_to_safetensors.py --network mobilenet_v2 --weights FILE.npz \
        --labels index.csv --mean 0.5 0.5 0.5 --std 0.5 0.5 0.5 --output mobilenet_v2.safetensors
    pyxai train PHOTOS --model mobilenet_v2.safetensors --architecture torchvision:mobilenet_v2

Needs torchvision. `--weights` and `--labels` are as for `tools/method_sheet.py`. The file has class
names and preprocessing, but a file of weights says nothing about padding: a network that was
trained with TensorFlow's padding at stride 2 runs with torchvision's symmetric one, and is worse
for it. Where that matters, build the network in Python by `method_sheet.load`.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from method_sheet import load

import pyxai
from pyxai.zoo import save_classifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--mean", type=float, nargs=3, default=(0.485, 0.456, 0.406))
    parser.add_argument("--std", type=float, nargs=3, default=(0.229, 0.224, 0.225))
    parser.add_argument("--resize", type=int, default=256)
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    names = None
    if arguments.labels is not None:
        with arguments.labels.open(newline="") as file:
            by_index = {int(row["class_index"]): row["label"] for row in csv.DictReader(file)}
        names = [by_index[index] for index in range(len(by_index))]
    classifier = pyxai.Classifier(
        load(arguments.network, arguments.weights, same_padding=False),
        class_names=names,
        preprocessing=pyxai.Preprocessing(
            tuple(arguments.mean), tuple(arguments.std), arguments.resize, arguments.crop
        ),
    )
    save_classifier(classifier, arguments.output)
    print(arguments.output)


if __name__ == "__main__":
    main()
