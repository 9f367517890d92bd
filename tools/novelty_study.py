"""Novelty methods on real photos: one table, shares of active neurons, hold-outs of the head.

    python tools/novelty_study.py --network mobilenet_v2 --weights FILE.npz --same-padding \
        --mean .5 .5 .5 --std .5 .5 .5 --resize 256 --crop 224 \
        --fit-on cats-dogs/train --known cats-dogs/valid --novel novelty/index.csv
    python tools/novelty_study.py --network cifar_resnet20 --weights FILE.npz --resize 32 32 \
        --known cifar10-test --novel scenes/valid

`--network` is a name of torchvision or cifar_resnetN with an .npz file of parameters (as in
method_sheet.py), or with `--model` anything that `pyxai.load_classifier` takes. Photos are folders,
or tables with a column `file` that is relative to the folder above the table's. Half of the novel
photos are given to the logistic head as examples, and methods are judged on the other half. Without
`--fit-on` half of the known photos are fitted on. Where the folders of known photos are named after
the classes, the accuracy of the network is printed as well. Everything is drawn by `--seed`.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path

import cifar_resnet
import numpy as np
import torch

import pyxai
from pyxai.images import find_photos
from pyxai.novelty import (
    KNN,
    METHODS,
    Logistic,
    active_share,
    compare,
    evaluate_scores,
    holdout,
)
from pyxai.novelty.activations import join, source_of


def photos_of(source: Path, where: str | None = None) -> list[Path]:
    """The photos of a folder, or those that a table lists, `where` being a column=value of it."""
    if source.suffix != ".csv":
        return find_photos(source)
    column, _, value = (where or "").partition("=")
    with source.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if not column or row[column] == value]
    return [source.parents[1] / row["file"] for row in rows]


def classifier_of(arguments: argparse.Namespace) -> pyxai.Classifier:
    """The network with its preprocessing."""
    if arguments.model:
        return pyxai.load_classifier(arguments.model, architecture=arguments.architecture)
    names = None
    if arguments.network.startswith("cifar_resnet"):
        depth = int(arguments.network.removeprefix("cifar_resnet"))
        network, names = cifar_resnet.load(depth, arguments.weights), cifar_resnet.CLASSES
    else:
        from method_sheet import load  # needs torchvision

        network = load(arguments.network, arguments.weights, arguments.same_padding)
    resize = arguments.resize
    preprocessing = pyxai.Preprocessing(
        tuple(arguments.mean),
        tuple(arguments.std),
        resize=resize if resize is None else resize[0] if len(resize) == 1 else tuple(resize),
        crop=arguments.crop,
    )
    return pyxai.Classifier(
        network, class_names=names, preprocessing=preprocessing, name=arguments.network
    )


def halves(rows, random: np.random.Generator):
    """Two parts of activations, drawn by lot."""
    order = random.permutation(len(rows))
    return rows.rows(np.sort(order[::2])), rows.rows(np.sort(order[1::2]))


def peer_aurocs(head, fit_on, known, novel) -> dict[str, float]:
    """AUROC of the same methods by pytorch-ood, on the same activations."""
    from pytorch_ood import detector as ood

    train = fit_on.features.float()
    labels = fit_on.logits.argmax(1).unique(return_inverse=True)[1]  # it wants no gaps
    width = train.shape[1]
    dim = 1000 if width >= 2048 else 512 if width >= 768 else width // 2

    def unit(rows):
        return torch.nn.functional.normalize(rows, dim=1)

    def linear(rows):
        return rows @ head.weight.T + head.bias

    def nothing(rows):
        return rows

    peers = {
        "knn": ood.KNN(unit, k=50).fit_features(unit(train), labels),
        "mahalanobis": ood.Mahalanobis(nothing).fit_features(train, labels),
        "vim": ood.ViM(nothing, dim, head.weight, head.bias).fit([(train, labels)]),
        "energy": ood.EnergyBased(linear),
        "msp": ood.MaxSoftmax(linear),
    }
    found = {}
    for name, peer in peers.items():
        scores = [-np.asarray(peer.predict(rows.features.float())) for rows in (known, novel)]
        found[name] = evaluate_scores(*scores, bootstrap=0).auroc.value
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", help="a name of torchvision, or cifar_resnet20, ...")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--same-padding", action="store_true", help="pad as TensorFlow does")
    parser.add_argument("--model", help="in place of --network: what load_classifier takes")
    parser.add_argument("--architecture", help="for a --model that is a file of weights")
    parser.add_argument("--mean", type=float, nargs=3, default=(0.485, 0.456, 0.406))
    parser.add_argument("--std", type=float, nargs=3, default=(0.229, 0.224, 0.225))
    parser.add_argument("--resize", type=int, nargs="+", help="the shorter side, or both")
    parser.add_argument("--crop", type=int)
    parser.add_argument("--layer", help="what enters the last linear layer, if not given")
    parser.add_argument("--active-layer", help="for the share of active neurons")
    parser.add_argument("--fit-on", type=Path)
    parser.add_argument("--known", type=Path, required=True)
    parser.add_argument("--novel", type=Path, required=True)
    parser.add_argument("--where", help="column=value: rows of the table of novel photos")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--k", type=int, nargs="*", default=[], help="more neighbours for knn")
    parser.add_argument("--peers", action="store_true", help="compare with pytorch-ood")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--histogram", type=Path, help="picture of the active shares")
    parser.add_argument("--json", type=Path, help="file for all figures")
    arguments = parser.parse_args()
    random = np.random.default_rng(arguments.seed)
    classifier = classifier_of(arguments)
    reader = source_of(classifier, arguments.layer)
    start = time.perf_counter()
    read = {
        name: join(reader.chunks(photos_of(source, arguments.where), progress=name))
        for name, source in (
            ("fit on", arguments.fit_on),
            ("known", arguments.known),
            ("novel", arguments.novel),
        )
        if source is not None
    }
    seconds = time.perf_counter() - start
    counts = ", ".join(f"{len(rows)} {name}" for name, rows in read.items())
    width = read["known"].features.shape[1]
    print(f"{classifier.name}, {reader.layer_name()}, {width} numbers; {counts}; {seconds:.0f} s")
    found: dict[str, object] = {"counts": counts, "layer": reader.layer_name()}

    known, novel = read["known"], read["novel"]
    names = classifier.class_names or ()
    labels = [Path(name).parent.name for name in known.names]
    if set(labels) <= set(names):
        right = known.logits.argmax(1).numpy() == [names.index(label) for label in labels]
        found["accuracy"] = float(right.mean())
        print(f"accuracy on the known photos: {right.mean():.4f}")
    if "fit on" in read:
        fit_on = read["fit on"]
    else:
        fit_on, known = halves(known, random)
    novel_fit, novel = halves(novel, random)

    table = compare(
        classifier,
        fit_on,
        known,
        novel,
        novel_fit=novel_fit,
        methods=[*arguments.methods, *map(KNN, arguments.k)],
        layer=arguments.layer,
        seed=arguments.seed,
    )
    print(f"\nfitted on {len(fit_on)}, judged on {len(known)} known and {len(novel)} novel photos")
    print(table)
    found["methods"] = table.to_dict()

    if arguments.peers:
        print("\nAUROC, pyxai and pytorch-ood:")
        for name, other in peer_aurocs(reader.head(), fit_on, known, novel).items():
            mine = table.results[name].auroc.value
            print(f"{name:12} {mine:.5f}  {other:.5f}  {abs(mine - other):.1e}")

    both = (read["known"], read["novel"])
    found["holdout"] = {}
    print("\nlogistic head, 30 % held out:")
    for name, head in (
        ("as in the tutorial", Logistic()),
        ("standardised", Logistic(scale=True)),
        ("converged, tol 1e-9", Logistic(tol=(1e-9,), max_iter=20_000)),
    ):
        result = holdout(
            classifier,
            *both,
            method=head,
            splits=arguments.splits,
            layer=arguments.layer,
            seed=arguments.seed,
        )
        print(f"{name}: {result}")
        found["holdout"][name] = result.to_dict()

    if arguments.active_layer:
        sources = (arguments.fit_on, arguments.known, arguments.novel)
        groups = dict(
            zip(
                ("fit on", "known", "novel"),
                (
                    None if source is None else photos_of(source, arguments.where)
                    for source in sources
                ),
                strict=True,
            )
        )
        groups = {name: photos for name, photos in groups.items() if photos}
    else:
        groups = read
    shares = active_share(classifier, groups, arguments.active_layer)
    print(f"\nshare of active neurons of {shares.layer}")
    print(shares)
    found["active_share"] = shares.to_dict()
    if arguments.histogram:
        shares.figure().save(arguments.histogram)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
