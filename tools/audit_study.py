"""How well `pyxai.audit` finds wrong labels and bad photos: it is given some, and counted.

    python tools/audit_study.py --folder FOLDER --networks demo mobilenet_v2=FILE.npz

FOLDER has a sub-folder for each class. In memory, by a fixed seed, 5 % of the labels are changed,
three times; printed is how the ranking of labels fares. Of some photos blurred, dark, pale and grey
copies are made in memory; printed is how many of them are listed, and how many of the originals.
Nothing is written but, with `--save`, an audit of the unchanged folder by each network. Networks
other than the embedded one need torchvision and their parameters as an .npz file (see
method_sheet.py). Where cleanlab is installed, its label issues from the same probabilities are a
row of their own.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).parent))
from window_study import classifier_of

import pyxai
from pyxai._text import text_table
from pyxai.curate.label_errors import confident_learning, out_of_fold_probabilities
from pyxai.curate.photo_pass import look_at
from pyxai.curate.quality import CHECKS, Quality, measure
from pyxai.images import open_photo
from pyxai.train.listing import list_photos

FLIPPED = 0.05


def blurred(share):
    """Gaussian blur by a share of the longer side."""
    return lambda photo: photo.filter(ImageFilter.GaussianBlur(share * max(photo.size)))


def toned(scale, offset):
    """Tones squeezed into a part of the range."""
    return lambda photo: photo.point([round(scale * tone + offset) for tone in range(256)] * 3)


COPIES = {
    "original": lambda photo: photo,
    "blur, sigma 0.5 %": blurred(0.005),
    "blur, sigma 1 %": blurred(0.01),
    "blur, sigma 2 %": blurred(0.02),
    "tones × 0.15": toned(0.15, 0),
    "tones × 0.15 + 217": toned(0.15, 0.85 * 255),
    "grey": lambda photo: photo.convert("L").convert("RGB"),
    "one colour": lambda photo: Image.new("RGB", photo.size, photo.getpixel((0, 0))),
}


def quality_table(paths):
    """Share of originals and of copies that each check lists."""
    issues = [check.issue for check in CHECKS]
    rows = [("copy", *issues)]
    for name, change in COPIES.items():
        values = np.array([measure(change(open_photo(path))) for path in paths], np.float32)
        columns = dict(zip(Quality._fields, values.T, strict=True))
        shares = [check.failed(columns[check.measure]).mean() for check in CHECKS]
        rows.append((name, *(f"{share:.1%}" for share in shares)))
    return text_table(rows)


def flip(labels, classes, seed):
    """Labels of which some are another class, and which these are."""
    random_numbers = np.random.default_rng(seed)
    wrong = np.zeros(len(labels), bool)
    count = round(FLIPPED * len(labels))
    wrong[random_numbers.choice(len(labels), count, replace=False)] = True
    shift = random_numbers.integers(1, classes, count)
    changed = labels.copy()
    changed[wrong] = (changed[wrong] + shift) % classes
    return changed, wrong


def scores(wrong, listed, order):
    """Of the list: length, precision, recall; of the ranking: precision at the top, AUROC."""
    hits = (wrong & listed).sum()
    top = np.argsort(order, kind="stable")[: wrong.sum()]
    return (
        listed.sum(),
        hits / max(1, listed.sum()),
        hits / wrong.sum(),
        wrong[top].mean(),
        roc_auc_score(wrong, -order),
    )


def cleanlab_list(labels, probabilities):
    """What cleanlab lists, by confident learning as here; None where it is not installed."""
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        return None
    return find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)


def label_rows(name, features, labels, classes):
    """Means over three draws of wrong labels."""
    ours, theirs, accuracy = [], [], []
    for seed in range(3):
        changed, wrong = flip(labels, classes, seed)
        probabilities = out_of_fold_probabilities(features, changed, folds=5, seed=seed)
        errors = confident_learning(probabilities, changed)
        accuracy.append((probabilities.argmax(axis=1) == labels).mean())
        ours.append(scores(wrong, errors.suggested != changed, errors.margins))
        listed = cleanlab_list(changed, probabilities)
        if listed is not None:
            theirs.append(scores(wrong, listed, errors.margins))
    for who, found in (("pyxai", ours), ("cleanlab", theirs)):
        if found:
            count, *rest = np.mean(found, axis=0)
            values = [f"{value:.3f}" for value in (*rest, np.mean(accuracy))]
            yield (name, who, str(round(float(wrong.sum()))), f"{count:.0f}", *values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--networks", nargs="*", default=["demo"])
    parser.add_argument("--photos", type=int, help="so many for the labels; all by default")
    parser.add_argument("--save", type=Path, help="folder for an audit of the photos as they are")
    parser.add_argument("--copies", type=int, default=300, help="photos that are spoilt")
    arguments = parser.parse_args()
    listing = list_photos(arguments.folder)
    pairs = list(zip(map(str, listing.paths), listing.names, strict=True))
    random.Random(0).shuffle(pairs)
    pairs = sorted(pairs[: arguments.photos])
    random_order = random.Random(1).sample(pairs, min(arguments.copies, len(pairs)))
    print(f"{len(random_order)} photos and their copies: share that is listed")
    print(quality_table([path for path, _ in random_order]), flush=True)

    heads = ("listed", "precision", "recall", "precision at the top", "AUROC", "accuracy")
    rows = [("network", "list by", "wrong labels", *heads)]
    for network in arguments.networks:
        name, classifier = classifier_of(network)
        if name != "demo":
            preprocessing = classifier.preprocessing
            preprocessing = pyxai.Preprocessing(
                preprocessing.mean, preprocessing.std, resize=256, crop=224
            )
            classifier = pyxai.Classifier(
                classifier.network, preprocessing=preprocessing, name=name
            )
        if arguments.save is not None:
            pyxai.audit(classifier, arguments.folder).save(arguments.save / name)
        seen = look_at([path for path, _ in pairs], classifier)
        features, described = seen.features.of(seen.paths)
        by_path = dict(pairs)
        names = [by_path[path] for path in seen.paths]
        labels = np.array([listing.classes.index(each) for each in names])
        rows += label_rows(name, features[described], labels[described], len(listing.classes))
    print(f"\n{len(pairs)} photos, {FLIPPED:.0%} of the labels changed, means of three draws")
    print(text_table(rows))


if __name__ == "__main__":
    main()
