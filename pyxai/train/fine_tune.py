"""Trains a copy of a classifier on a folder of photos: whole photos, or small crops of them."""

from __future__ import annotations

import copy
import json
import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from pyxai._errors import argument_error, check_count
from pyxai.classifier import Classifier, as_classifier
from pyxai.images import Preprocessing
from pyxai.train.evaluation import share_right
from pyxai.train.folder import Folder, Listing, PhotoSet, training_and_validation
from pyxai.train.layers import Unfreeze, layers_in_order, replace_head, unfreeze_layers
from pyxai.train.loop import Epoch, Plan, Training


@dataclass(frozen=True)
class FineTuned:
    """A trained classifier, and how good it is on the validation photos.

    Attributes:
        classifier: the trained copy in evaluation mode, with the names of its classes; after crop
            training its preprocessing keeps photos at their own resolution.
        history: one entry for each epoch.
        accuracy: share of whole validation photos that come out right, 0 to 1; None for a network
            that does not run on whole photos (`crop` only).
        crop_accuracy: the same for one random crop of each, the same ones after every epoch; None
            without `crop`.
        confusion: `[K, K]` int64, row: class of the folder, column: predicted; of whole photos, or
            of crops where `accuracy` is None.
        too_small: photos left out because a side is shorter than the crop.
        unreadable: (path, reason) of photos left out because they cannot be read.
    """

    classifier: Classifier
    history: tuple[Epoch, ...]
    accuracy: float | None
    crop_accuracy: float | None
    confusion: torch.Tensor
    too_small: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]


def fine_tune(
    model: nn.Module | Classifier,
    folder: Folder,
    *,
    crop: int | None = None,
    unfreeze: Unfreeze = "head",
    epochs: int = 10,
    batch_size: int = 32,
    learning_rate: float | None = None,
    weight_decay: float = 0.01,
    valid: Folder | float | None = None,
    seed: int = 0,
    progress: bool = True,
    out: str | os.PathLike[str] | None = None,
) -> FineTuned:
    """Trains a copy of a classifier to tell the classes of a folder apart.

    The model stays as it was, and so does the global random state. AdamW with a cosine schedule,
    in float32, on the device of the model. On the CPU the same seed and number of threads give the
    same weights to the bit.

    Args:
        model: a classifier whose logits come from a linear layer, its head. The head is replaced by
            a new one unless it fits: as many classes as the folder, and the same names if the
            classifier has names.
        folder: one sub-folder of photos for each class, or `train` and `valid` with these.
        crop: side in pixels. Each photo gives a crop of that size at a random place in every epoch,
            cut at the photo's own resolution, so that the network cannot lean on whole scenes;
            smaller photos are left out. None trains on whole photos through the classifier's
            preprocessing, which must make them one size. Either is mirrored half the time.
        unfreeze: "head"; "all"; how many of the last layers with weights, in the order in which
            they run; or names of modules. The head is always trained. Everything else keeps its
            weights and runs in evaluation mode, batch norms with the statistics that they have.
        epochs: passes over the training photos.
        batch_size: photos in each step; a single one that is left over is skipped.
        learning_rate: the highest, after a short rise; None is 1e-3 for "head", else 1e-4.
        weight_decay: of weights with two axes or more.
        valid: a folder of the same classes to judge by, or the share of each class that is held out
            for that, between 0 and 1. None takes `folder/valid`, else a share of 0.2.
        seed: of the split, a new head, the order, crops, mirroring and dropout.
        progress: False shows no bars, nor does an output that is no terminal.
        out: a safetensors file for the weights, with class names; `pyxai.load_classifier` reads it,
            given the architecture.

    Returns:
        The trained classifier with its history and its accuracy on the validation photos.

    Raises:
        ValueError: a bad argument; fewer than two classes; a class without a photo that can be
            used; whole photos of several sizes; or a loss that is not finite.

    Source: training on small crops as for the game "Guess the country by photo" (Yandex); AdamW:
    Loshchilov and Hutter, "Decoupled weight decay regularization" (2019).
    """
    classifier = as_classifier(model)
    for argument, value in (("epochs", epochs), ("batch_size", batch_size), ("crop", crop)):
        if value is not None:
            check_count(argument, value)
    if not isinstance(seed, int):
        raise argument_error("seed", "an int", seed)
    rate = (1e-3 if unfreeze == "head" else 1e-4) if learning_rate is None else learning_rate
    _check_rate("learning_rate", rate)
    _check_rate("weight_decay", weight_decay)
    plan = Plan(crop, epochs, batch_size, rate, weight_decay, seed, progress)
    if out is not None and not Path(out).absolute().parent.is_dir():
        raise argument_error("out", "a file in a folder that exists", str(out))
    listings = training_and_validation(folder, valid, plan.seed)
    names = listings[0].classes
    known = classifier.class_names
    if known is not None and sorted(known) == sorted(names):
        names = known  # the folder's classes in the order of the logits
    devices = range(torch.cuda.device_count())
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices):
        train, held_out = _photo_sets(listings, names, classifier.preprocessing, plan)
        torch.manual_seed(plan.seed)
        network = copy.deepcopy(classifier.network).float()
        network.zero_grad(set_to_none=True)
        _prepare(network, train, names, known, unfreeze, plan)
        run = Training(network, train, held_out, names, classifier.preprocessing, plan)
        history = tuple(run.epoch(number) for number in range(1, plan.epochs + 1))
        network.requires_grad_(True).eval()
        network.zero_grad(set_to_none=True)
        result = _result(run, classifier, history)
    if out is not None:
        _save(result, Path(out))
    return result


def _check_rate(argument: str, value: object) -> None:
    if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise argument_error(argument, "a finite number of at least 0", value)


def _photo_sets(
    listings: tuple[Listing, Listing],
    names: tuple[str, ...],
    preprocessing: Preprocessing,
    plan: Plan,
) -> tuple[PhotoSet, PhotoSet]:
    """The photos to train on and those to judge by, once they are fit for that."""
    train, held_out = (
        PhotoSet(
            listing,
            names,
            preprocessing.view if plan.crop is None else lambda photo: photo,
            smallest=plan.crop or 1,
            description=description,
            progress=plan.progress,
        )
        for listing, description in zip(listings, ("training", "validation"), strict=True)
    )
    missing = train.without_photos(names)
    if missing:
        expected = f"photos that can be used of every class; left out: {train.left_out()}"
        raise argument_error("folder", expected, f"none of {', '.join(missing)}")
    if not len(held_out):
        raise argument_error("valid", "photos that can be used", held_out.left_out())
    sizes = torch.unique(train.sizes, dim=0)
    if plan.crop is None and len(sizes) > 1:
        found = " and ".join(f"{height} × {width}" for height, width in sizes[:2].tolist())
        expected = "photos of one size (height × width) after preprocessing"
        hint = "set resize and crop of the classifier's preprocessing, or train on crops"
        raise ValueError(f"folder: expected {expected}, got {found}; {hint}")
    return train, held_out


def _prepare(
    network: nn.Module,
    train: PhotoSet,
    names: tuple[str, ...],
    known: tuple[str, ...] | None,
    unfreeze: Unfreeze,
    plan: Plan,
) -> None:
    """Gives the network a head for these classes, and gradients where they are wanted."""
    size = (plan.crop, plan.crop) if plan.crop else tuple(train.sizes[0].tolist())
    probe = torch.zeros(1, 3, *size, device=Classifier(network).device)
    try:
        layers, head = layers_in_order(network, probe)
    except (RuntimeError, AssertionError) as error:
        said = " ".join(str(error).split())[:200]
        expected = f"a size that the network takes ({said})"
        raise argument_error("crop" if plan.crop else "folder", expected, size) from error
    module = network.get_submodule(head)
    if module.out_features != len(names) or (known is not None and known != names):
        replace_head(network, head, len(names))
    unfreeze_layers(network, unfreeze, layers, head)


def _result(run: Training, classifier: Classifier, history: tuple[Epoch, ...]) -> FineTuned:
    """Judges the trained network on whole photos and, after crop training, on crops."""
    preprocessing, crops, whole = classifier.preprocessing, None, run.whole_confusion()
    if run.plan.crop is not None:
        preprocessing = replace(preprocessing, resize=None, crop=None)
        crops = run.crop_confusion()
    confusion = crops if whole is None else whole
    assert confusion is not None
    trained = Classifier(
        run.network, class_names=run.names, preprocessing=preprocessing, name=classifier.name
    )
    return FineTuned(
        trained,
        history,
        None if whole is None else share_right(whole),
        None if crops is None else share_right(crops),
        confusion,
        (*run.train.too_small, *run.held_out.too_small),
        (*run.train.unreadable, *run.held_out.unreadable),
    )


def _save(result: FineTuned, path: Path) -> None:
    """Writes the weights, with class names and preprocessing as JSON in the metadata."""
    classifier = result.classifier
    # Copies, as weights that are used twice must be stored twice.
    state = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in classifier.network.state_dict().items()
    }
    metadata = {
        "class_names": json.dumps(classifier.class_names),
        "preprocessing": json.dumps(asdict(classifier.preprocessing)),
    }
    save_file(state, path, metadata=metadata)
