"""How many duplicates each way to look for them finds, against a folder whose truth is known.

    python tools/duplicates_study.py PHOTOS TRUTH.json [--networks demo mobilenet_v2=FILE.npz ...]
        [--others MORE_PHOTOS]

TRUTH.json maps the name of each file to the list of its duplicates. Printed are precision and
recall over pairs of photos: a pair is found if both lie in one group. Of `--others` a summary is
printed and a sheet written, to see what is taken for the same there. Networks beside the demo
classifier need torchvision; their files are those of tools/method_sheet.py.
"""

from __future__ import annotations

import argparse
import json
from itertools import combinations
from pathlib import Path

from pyxai import Classifier, Preprocessing, load_classifier
from pyxai._text import text_table
from pyxai.curate.duplicates import find_duplicates

BITS = (0, 2, 4, 7, 10, 12)
COSINES = (0.99, 0.97, 0.95, 0.9, 0.85, 0.8, 0.7)


def true_pairs(file):
    """The pairs of names that are duplicates."""
    truth = json.loads(file.read_text())
    return {tuple(sorted((one, other))) for one, others in truth.items() for other in others}


def found_pairs(found):
    """The pairs of names that lie in one group."""
    pairs = set()
    for group in found.groups:
        names = sorted(Path(path).name for path in group.paths)
        pairs |= set(combinations(names, 2))
    return pairs


def classifier_of(text):
    """A classifier by name, or a network of torchvision with the weights of an .npz file."""
    if "=" not in text:
        return load_classifier(text)
    from method_sheet import load

    name, _, file = text.partition("=")
    is_mobile = name.startswith("mobilenet")
    half = ((0.5,) * 3, (0.5,) * 3)
    mean, std = half if is_mobile else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    model = load(name, Path(file), same_padding=is_mobile)
    # The whole photo: a crop out of the centre would tell nothing about the rest.
    return Classifier(model, preprocessing=Preprocessing(mean, std, resize=(224, 224)), name=name)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--networks", nargs="+", default=["demo"])
    parser.add_argument("--others", type=Path, help="photos whose duplicates are not known")
    parser.add_argument("--store", type=Path, help="folder that keeps what was read")
    arguments = parser.parse_args()
    truth = true_pairs(arguments.truth)
    rows = [("way", "setting", "pairs found", "precision", "recall")]

    def add(way, setting, **options):
        found = found_pairs(
            find_duplicates(arguments.photos, store=arguments.store, progress=False, **options)
        )
        right = len(found & truth)
        precision = f"{right / len(found):.3f}" if found else "-"
        rows.append((way, setting, str(len(found)), precision, f"{right / len(truth):.3f}"))

    add("exact", "", methods=["exact"])
    for kind in ("phash", "dhash"):
        for bits in BITS:
            add(kind, f"{bits} bits", methods=["hash"], hash=kind, max_bits=bits)
        add(kind, "7 bits, turned", methods=["hash"], hash=kind, max_bits=7, orientations=True)
    for text in arguments.networks:
        model = classifier_of(text)
        for cosine in (*COSINES, None):
            setting = "by default" if cosine is None else f"cosine {cosine}"
            add(model.name, setting, model=model, methods=["features"], min_cosine=cosine)
        add(model.name, "all three, as by default", model=model)
    print(f"{len(truth)} true pairs")
    print(text_table(rows))
    for text in arguments.networks if arguments.others else ():
        name = text.partition("=")[0]
        found = find_duplicates(arguments.others, classifier_of(text), store=arguments.store)
        print(f"{name}, other photos (cosine {found.settings['min_cosine']:.3f}): {found}")
        if found.groups:
            found.figure(most=20).save(f"duplicates-{name}.png")


if __name__ == "__main__":
    main()
