"""Trains a copy of a classifier on a folder of photos: whole photos, or small crops of them."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from pyxai._errors import argument_error, folder_of
from pyxai._precision import full_precision
from pyxai.classifier import Classifier, as_classifier
from pyxai.classifier.fingerprint import fingerprint
from pyxai.classifier.reading import Reading
from pyxai.images import PhotoFailure, Preprocessing
from pyxai.runs import RunState, open_state
from pyxai.train.augment import Augment, augmentation_of
from pyxai.train.checkpoint import RUN, resume, save
from pyxai.train.evaluation import metrics_of
from pyxai.train.frozen import frozen_features
from pyxai.train.layers import Unfreeze, anatomy_of, chosen_modules, unfreeze_layers, with_head
from pyxai.train.listing import Folder, Listing, training_and_validation
from pyxai.train.loop import Training
from pyxai.train.photo_set import PhotoSet
from pyxai.train.result import FineTuned
from pyxai.train.settings import Plan
from pyxai.zoo.head import HeadKind
from pyxai.zoo.weights_file import check_is_free, save_classifier


def fine_tune(
    model: nn.Module | Classifier,
    photos: Folder,
    *,
    head: HeadKind = "linear",
    hidden: int = 2048,
    crop: int | None = None,
    augment: Augment = "mirror",
    unfreeze: Unfreeze = "head",
    epochs: int = 10,
    batch_size: int = 32,
    learning_rate: float | None = None,
    weight_decay: float = 0.01,
    class_weight: Literal["balanced"] | None = None,
    valid: Folder | float | None = None,
    early_stopping: int | None = None,
    seed: int = 0,
    progress: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
) -> FineTuned:
    """Trains a copy of a classifier, or of a network without a head, to tell classes apart.

    The model stays as it was, and so does the global random state. AdamW with a cosine schedule,
    in float32, on the device of the model. On the CPU the same seed and number of threads give the
    same weights to the bit.

    Args:
        model: a classifier whose logits come from a linear layer, or from a 1 × 1 convolution and
            pooling; or a network that returns features `[N, F]` or maps `[N, F, h, w]`, which gets
            a head behind these (with a warning where they may be logits). A linear layer whose
            weights the network reads instead of calling it counts as a head. A head that is there
            is replaced by a new one unless it fits: of the kind asked for, as many classes as the
            folder, and the same names if the classifier has names.
        photos: one sub-folder of photos for each class; `train` and `valid` with these; or a CSV
            file with the columns path (relative to the file), label and perhaps split (train or
            valid).
        head: "linear", or "mlp": dropout of a half, a hidden layer with ELU, dropout, a linear
            layer. The hidden layer is `hidden` in the module that `FineTuned.head` names.
        hidden: width of the hidden layer of an "mlp".
        crop: side in pixels. Each photo gives a crop of that size at a random place in every epoch,
            cut at the photo's own resolution, so that the network cannot lean on whole scenes;
            smaller photos are left out. None trains on whole photos through the classifier's
            preprocessing, which must make them one size.
        augment: "mirror" turns half of the photos left to right in every epoch; "affine" also
            rotates by up to 30 degrees, shears by up to 0.2 and zooms by 0.8 to 1.2; "none"; or a
            `pyxai.train.augment.Augmentation`.
        unfreeze: "head"; "all"; how many of the last layers with weights, in the order in which
            they run, the head being one; "from LAYER" for that layer and all that run after it; or
            names of modules. The head is always trained. Everything else keeps its weights and runs
            in evaluation mode, batch norms with the statistics that they have.
        epochs: passes over the training photos.
        batch_size: photos in each step; a single one that is left over is skipped.
        learning_rate: the highest, after a short rise; None is 1e-3 for "head", else 1e-4.
        weight_decay: of weights with two axes or more.
        class_weight: "balanced" weighs the loss of a class by n / (K · photos of the class).
        valid: a folder or table of the same classes to judge by, or the share of each class that is
            held out for that, between 0 and 1. None takes `photos/valid` or the rows of split
            valid, else a share of 0.2.
        early_stopping: ends the run after so many epochs without a lower validation loss, and keeps
            the weights of the epoch with the lowest. None runs all epochs and keeps the last.
        seed: of the split, a new head, the order, crops, augmentation and dropout.
        progress: False shows no bars, nor does an output that is no terminal.
        checkpoint: a folder for the state after each epoch, from which the same call goes on if it
            was interrupted, with the result of a run in one go.
        out: a safetensors file for the weights, class names, preprocessing and kind of head, from
            which `pyxai.load_classifier` makes the classifier again, given the architecture.

    Returns:
        The trained classifier with its history and its figures on the validation photos.

    Raises:
        ValueError: a bad argument; fewer than two classes; a class without a photo that can be
            used; whole photos of several sizes; a checkpoint of another run, or a damaged one; a
            file `out` that pyxai has not written; or a loss that is not finite.
        BusyError: another run works in the folder `checkpoint`.

    Source: training on small crops as for the game "Guess the country by photo" (Yandex); AdamW:
    Loshchilov and Hutter, "Decoupled weight decay regularization" (2019).
    """
    classifier = as_classifier(model)
    rate = (1e-3 if unfreeze == "head" else 1e-4) if learning_rate is None else learning_rate
    plan = Plan(
        head=head,
        hidden=hidden,
        unfreeze=unfreeze,
        crop=crop,
        augmentation=augmentation_of(augment),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=rate,
        weight_decay=weight_decay,
        class_weight=class_weight,
        early_stopping=early_stopping,
        seed=seed,
    )
    if out is not None:
        if not Path(out).absolute().parent.is_dir():
            raise argument_error("out", "a file in a folder that exists", str(out))
        check_is_free(out, "out")
    if next(classifier.network.parameters(), None) is None:
        raise argument_error("model", "a network with weights", classifier.network)
    listings = training_and_validation(photos, valid, plan.seed)
    names = listings[0].classes
    known = classifier.class_names
    if known is not None and sorted(known) == sorted(names):
        names = known  # the folder's classes in the order of the logits
    kept: AbstractContextManager[RunState | None] = nullcontext()
    folder = folder_of("checkpoint", checkpoint)
    if folder is not None:
        kept = open_state(RUN, folder, _identity(classifier, listings, names, plan))
    result = _trained(classifier, listings, names, plan, kept, progress)
    if out is not None:
        save_classifier(result.classifier, out)
    return result


def _trained(
    classifier: Classifier,
    listings: tuple[Listing, Listing],
    names: tuple[str, ...],
    plan: Plan,
    kept: AbstractContextManager[RunState | None],
    progress: bool,
) -> FineTuned:
    """The result of the run, which goes on from what is kept."""
    rng = torch.random.fork_rng(range(torch.cuda.device_count()))
    with torch.inference_mode(False), torch.enable_grad(), full_precision(), rng, kept as state:
        train, held_out = _photo_sets(listings, names, classifier.preprocessing, plan, progress)
        torch.manual_seed(plan.seed)
        size = (plan.crop, plan.crop) if plan.crop else tuple(train.sizes[0].tolist())
        keep = classifier.class_names in (None, names)
        network, place = _prepared(classifier, size, plan, len(names), keep=keep)
        preprocessing = classifier.preprocessing
        # With the new head, the output with one column for each class has the logits.
        reading = Reading(classifier.output, len(names))
        features = frozen_features(
            network,
            place,
            train,
            held_out=held_out,
            preprocessing=preprocessing,
            plan=plan,
            progress=progress,
            reading=reading,
        )
        run = Training(
            network,
            train,
            held_out,
            preprocessing,
            plan,
            head=place,
            reading=reading,
            features=features,
            progress=progress,
        )
        if state is not None:
            resume(state, run)
        while not run.done:
            run.epoch()
            if state is not None:
                save(state, run)
        if run.best is not None:
            run.put(run.best.weights)
        return _result(run, classifier, names, place)


def _photo_sets(
    listings: tuple[Listing, Listing],
    names: tuple[str, ...],
    preprocessing: Preprocessing,
    plan: Plan,
    progress: bool,
) -> tuple[PhotoSet, PhotoSet]:
    """The photos to train on and those to judge by, once they are fit for that."""
    train, held_out = (
        PhotoSet(
            listing,
            names,
            preprocessing.view if plan.crop is None else lambda photo: photo,
            smallest=plan.crop or 1,
            description=description,
            progress=progress,
        )
        for listing, description in zip(listings, ("training", "validation"), strict=True)
    )
    missing = train.without_photos(names)
    if missing:
        expected = f"photos that can be used of every class; left out: {train.left_out()}"
        raise argument_error("photos", expected, f"none of {', '.join(missing)}")
    if not len(held_out):
        raise argument_error("valid", "photos that can be used", held_out.left_out())
    sizes = torch.unique(train.sizes, dim=0)
    if plan.crop is None and len(sizes) > 1:
        found = " and ".join(f"{height} × {width}" for height, width in sizes[:2].tolist())
        expected = "photos of one size (height × width) after preprocessing"
        hint = "set resize and crop of the classifier's preprocessing, or train on crops"
        raise ValueError(f"photos: expected {expected}, got {found}; {hint}")
    return train, held_out


def _prepared(
    classifier: Classifier, size: tuple[int, ...], plan: Plan, classes: int, *, keep: bool
) -> tuple[nn.Module, str]:
    """A copy of the network with a head for these classes, and gradients where they are wanted."""
    network = copy.deepcopy(classifier.network).float()
    network.zero_grad(set_to_none=True)
    try:
        anatomy = anatomy_of(network, size, classifier.reading)
    except (RuntimeError, AssertionError) as error:
        said = " ".join(str(error).split())[:200]
        expected = f"a size that the network takes ({said})"
        argument = "crop" if plan.crop else "photos"
        raise argument_error(argument, expected, size) from error
    if anatomy.doubt:
        warnings.warn(anatomy.doubt, stacklevel=4)
    modules = chosen_modules(network, plan.unfreeze, anatomy)
    network, place = with_head(network, anatomy, plan.head, plan.hidden, classes, keep=keep)
    unfreeze_layers(network, modules, place)
    return network, place


def _identity(
    classifier: Classifier, listings: tuple[Listing, Listing], names: tuple[str, ...], plan: Plan
) -> dict[str, Any]:
    """All that a run depends on; of photos the names, sizes and times of their files."""
    return {
        **asdict(plan),
        "class_names": names,
        "preprocessing": classifier.preprocessing.steps,
        "weights": fingerprint(classifier.network),
        "photos": _digest(listings),
    }


def _digest(listings: tuple[Listing, Listing]) -> str:
    """Tells one choice of photos and labels from another, and files that have changed."""
    digest = hashlib.blake2b(digest_size=16)
    for listing in listings:
        for path, name in zip(listing.paths, listing.names, strict=True):
            state = ""
            with contextlib.suppress(OSError):  # it is named when it is read
                status = path.stat()
                state = f"{status.st_size} {status.st_mtime_ns}"
            digest.update(f"{path}\0{name}\0{state}\0".encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()


def _result(run: Training, classifier: Classifier, names: tuple[str, ...], place: str) -> FineTuned:
    """Judges the trained network on whole photos and, after crop training, on crops."""
    preprocessing, crops, whole = classifier.preprocessing, None, run.whole_logits()
    labels = run.held_out.labels
    if run.plan.crop is not None:
        preprocessing = replace(preprocessing, resize=None, crop=None)
        crops = run.crop_logits()
    run.network.requires_grad_(True).eval()
    run.network.zero_grad(set_to_none=True)
    judged = crops if whole is None else whole
    assert judged is not None
    metrics = metrics_of(judged, labels)
    return FineTuned(
        classifier=Classifier(
            run.network,
            class_names=names,
            preprocessing=preprocessing,
            output=classifier.output,
            name=classifier.name,
        ),
        history=tuple(run.history),
        epoch=run.plan.epochs if run.best is None else run.best.epoch,
        metrics=metrics,
        accuracy=None if whole is None else metrics.accuracy,
        crop_accuracy=None if crops is None else metrics_of(crops, labels).accuracy,
        head=place,
        features_kept=run.features is not None,
        too_small=(*run.train.too_small, *run.held_out.too_small),
        failures=tuple(
            PhotoFailure(*each) for each in (*run.train.unreadable, *run.held_out.unreadable)
        ),
    )
