"""One sheet of photos by methods, with trained networks given as .npz files.

    python tools/method_sheet.py --network squeezenet1_0 --weights FILE.npz --labels index.csv \
        --photos A.jpg B.jpg --output sheet.png

Needs torchvision for the network. The file has one array for each parameter, under torchvision's
names; where it has a bias in place of a batch norm, that becomes the batch norm's. `--labels` is a
table with the columns class_index and label. `--same-padding` pads convolutions of stride 2 as
TensorFlow does. `--accelerate` explains the accelerated network instead.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn

import pyxai
from pyxai.attribution.cam.methods import METHODS as METHODS_KNOWN
from pyxai.draw import overlay, sheet
from pyxai.images import open_photo

METHODS = [name for name in METHODS_KNOWN if name not in ("legrad", "refinecam", "sscam", "iscam")]


def load(network: str, file: Path, same_padding: bool) -> nn.Module:
    """A network of torchvision with the parameters of an .npz file."""
    model = torchvision.models.get_model(network, weights=None).eval()
    state = model.state_dict()
    norms = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)
    }
    with np.load(file) as arrays:
        for name in arrays.files:
            values = torch.from_numpy(arrays[name])
            if name in state:
                state[name].copy_(values.reshape(state[name].shape))
                continue
            # `features.0.0.bias`: of the norm that follows, `features.0.1`.
            stem, index, _ = name.rsplit(".", 2)
            norm = norms[f"{stem}.{int(index) + 1}"]
            nn.init.ones_(norm.weight)
            norm.bias.data.copy_(values)
            norm.running_mean.zero_()
            norm.running_var.fill_(1 - norm.eps)
    if same_padding:
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                module.padding = (0, 0)
                padded = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), module)
                model.get_submodule(name.rpartition(".")[0])[int(name.rpartition(".")[2])] = padded
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--photos", type=Path, nargs="+", required=True)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--layer")
    parser.add_argument("--channels", type=int, help="screening of scorecam")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--mean", type=float, nargs=3, default=(0.485, 0.456, 0.406))
    parser.add_argument("--std", type=float, nargs=3, default=(0.229, 0.224, 0.225))
    parser.add_argument("--same-padding", action="store_true")
    parser.add_argument("--accelerate", action="store_true")
    arguments = parser.parse_args()
    with arguments.labels.open(newline="") as file:
        names = {int(row["class_index"]): row["label"] for row in csv.DictReader(file)}
    classifier = pyxai.Classifier(
        load(arguments.network, arguments.weights, arguments.same_padding),
        class_names=[names[index] for index in range(len(names))],
        preprocessing=pyxai.Preprocessing(arguments.mean, arguments.std, resize=256, crop=224),
    )
    if arguments.accelerate:
        classifier = pyxai.accelerate(classifier)
    rows, titles = [], []
    for path in arguments.photos:
        photo = open_photo(path)
        region = classifier.preprocessing.region(photo.size)
        left, top, right, bottom = map(round, region)
        row = [photo.crop((left, top, right, bottom))]
        for method in arguments.methods:
            start = time.perf_counter()
            screened = {"channels": arguments.channels} if method == "scorecam" else {}
            chosen = pyxai.cam_method(method, **screened)
            try:
                maps, logits = pyxai.cam(
                    classifier,
                    photo,
                    method=chosen,
                    layer=arguments.layer,
                    size=None,
                    relu=True,
                    return_logits=True,
                )
            except ValueError as error:  # a method that does not fit this network
                print(f"{path.stem}: {method}: {error}")
                row.append(None)
                continue
            print(f"{path.stem}: {method} {time.perf_counter() - start:.2f} s", flush=True)
            drawn = overlay(photo, maps[0], region=region)
            row.append(drawn.crop((left, top, right, bottom)))
        probability, index = logits.softmax(1)[0].max(0)
        rows.append(row)
        titles.append(f"{path.stem}: {classifier.class_name(int(index))} {float(probability):.2f}")
    columns = ["photo", *arguments.methods]
    sheet(rows, column_titles=columns, row_titles=titles).save(arguments.output)


if __name__ == "__main__":
    main()
