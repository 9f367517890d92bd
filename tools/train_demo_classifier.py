"""Trains the scene classifier that ships as ``pyxai/zoo/demo.safetensors``.

Usage:
    python tools/train_demo_classifier.py PATH_TO_SCENES [--epochs 36] [--out FILE]
    python tools/train_demo_classifier.py PATH_TO_SCENES --evaluate-only
    python tools/train_demo_classifier.py PATH_TO_SCENES --crop 64 --out FILE [--resume]

PATH_TO_SCENES is a folder with ``index.csv`` (columns file, split, label, class_index) and the
photos that it names, 150x150 pixels each. Training needs no GPU. With ``--hold-out N`` the last
N training photos of every class are left out of training and take the place of the validation
photos: recipes are compared that way, so that the validation photos stay unseen until the end.

``--crop N`` trains by ``pyxai.fine_tune`` instead, on crops of N pixels at the photos' own
resolution, from random weights or, with ``--resume``, from those that ship; it takes the folders
``train`` and ``valid`` for the splits.
"""

from __future__ import annotations

import argparse
import copy
import csv
import datetime
import importlib.util
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

DEMO_SOURCE = Path(__file__).resolve().parents[1] / "pyxai" / "zoo" / "demo.py"
# Loaded from the file, so that training needs neither the package nor its compiled parts.
_spec = importlib.util.spec_from_file_location("demo", DEMO_SOURCE)
assert _spec is not None
assert _spec.loader is not None
demo = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(demo)

MEAN = torch.tensor(demo.PREPROCESSING["mean"]).view(1, 3, 1, 1)
STD = torch.tensor(demo.PREPROCESSING["std"]).view(1, 3, 1, 1)
# One input size is drawn for every batch; the first half of the epochs gets by with small ones.
EARLY_SIZES, LATE_SIZES = (80, 96, 112), (112, 128, 144)
CROP_AREA = (0.25, 1.0)
MAX_ROTATION = math.radians(8)
MIX_PROBABILITY = 0.3  # share of the batches with pasted rectangles (CutMix)
LABEL_SMOOTHING = 0.1
WEIGHT_DECAY = 5e-4
AVERAGING = 0.998  # decay of the running average of the weights
LEARNING_RATE, CROP_LEARNING_RATE = 0.1, 2e-3  # of SGD; of AdamW with --crop
CROP_WEIGHT_DECAY = 0.02


def read_photos(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Returns all photos of a split as uint8 (N, 3, 150, 150) and their class indices."""
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    for row in rows:
        if demo.CLASS_NAMES[int(row["class_index"])] != row["label"]:
            raise ValueError(f"{row['file']}: class index and label disagree")
    pixels = np.stack([np.asarray(Image.open(folder / row["file"]).convert("RGB")) for row in rows])
    labels = torch.tensor([int(row["class_index"]) for row in rows])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), labels


def uniform(count: int, low: float, high: float) -> Tensor:
    """Returns `count` random numbers between `low` and `high`."""
    return torch.rand(count) * (high - low) + low


def random_crops(images: Tensor, size: int) -> Tensor:
    """Returns one crop of every image at random place, scale, shape, slant and side."""
    count = len(images)
    area, aspect = uniform(count, *CROP_AREA), uniform(count, -0.2, 0.2).exp()
    width = (area * aspect).sqrt().clamp(max=1)
    height = (area / aspect).sqrt().clamp(max=1)
    centre_x = (1 - width) * uniform(count, -1, 1)
    centre_y = (1 - height) * uniform(count, -1, 1)
    mirror = (torch.rand(count) < 0.5).float() * 2 - 1
    angle = uniform(count, -MAX_ROTATION, MAX_ROTATION)
    first_row = torch.stack((mirror * width * angle.cos(), -height * angle.sin(), centre_x), 1)
    second_row = torch.stack((mirror * width * angle.sin(), height * angle.cos(), centre_y), 1)
    grid = F.affine_grid(
        torch.stack((first_row, second_row), 1), [count, 3, size, size], align_corners=False
    )
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def jitter_colours(images: Tensor) -> Tensor:
    """Changes brightness, contrast and saturation of images in 0..1; some lose all colour."""
    count = len(images)
    brightness, contrast, saturation = (uniform(count, 0.65, 1.35).view(-1, 1, 1, 1) for _ in "bcs")
    saturation[torch.rand(count) < 0.08] = 0
    gray = images.mean(1, keepdim=True)
    images = gray + saturation * (images - gray)
    level = images.mean((1, 2, 3), keepdim=True)
    return (brightness * (level + contrast * (images - level))).clamp(0, 1)


def paste_rectangles(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Pastes a rectangle of another image into each image and mixes the labels by area (CutMix)."""
    partner = torch.randperm(len(images))
    height, width = images.shape[-2:]
    side = math.sqrt(float(torch.rand(1)))
    box_height, box_width = round(side * height), round(side * width)
    top = int(torch.randint(0, height - box_height + 1, (1,)))
    left = int(torch.randint(0, width - box_width + 1, (1,)))
    rows, columns = slice(top, top + box_height), slice(left, left + box_width)
    images = images.clone()
    images[:, :, rows, columns] = images[partner][:, :, rows, columns]
    share = box_height * box_width / (height * width)
    return images, (1 - share) * targets + share * targets[partner]


def training_batch(pixels: Tensor, labels: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Returns augmented, normalised images and class probabilities to train on."""
    size = sizes[int(torch.randint(0, len(sizes), (1,)))]
    images = jitter_colours(random_crops(pixels.float() / 255, size))
    targets = F.one_hot(labels, len(demo.CLASS_NAMES)).float()
    if float(torch.rand(1)) < MIX_PROBABILITY:
        images, targets = paste_rectangles(images, targets)
    images = ((images - MEAN) / STD).contiguous(memory_format=torch.channels_last)
    return images, targets


def training_batches(
    pixels: Tensor, labels: Tensor, batch_size: int, sizes: tuple[int, ...]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields one epoch of batches; the next one is prepared while the current one is in use."""
    order = torch.randperm(len(pixels)).split(batch_size)[: len(pixels) // batch_size]
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as worker:
        chosen = order[0]
        upcoming = worker.submit(training_batch, pixels[chosen], labels[chosen], sizes)
        for chosen in order[1:]:
            batch = upcoming.result()
            upcoming = worker.submit(training_batch, pixels[chosen], labels[chosen], sizes)
            yield batch
        yield upcoming.result()


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, step: int) -> None:
    """Moves the averaged weights and statistics a little towards the current ones."""
    decay = min(AVERAGING, step / (step + 10))
    for kept, current in zip(
        average.state_dict().values(), network.state_dict().values(), strict=True
    ):
        if kept.is_floating_point():
            kept.lerp_(current, 1 - decay)
        else:
            kept.copy_(current)


def train(pixels: Tensor, labels: Tensor, arguments: argparse.Namespace) -> None:
    """Trains a network from scratch and stores the running average of its weights."""
    network = demo.DemoNet().to(memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, demo.ResidualBlock):
            nn.init.zeros_(module.norm2.weight)  # each block starts as its shortcut
    average = copy.deepcopy(network).eval()
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others}],
        lr=arguments.learning_rate,
        momentum=0.9,
        nesterov=True,
    )
    steps_per_epoch = len(pixels) // arguments.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=arguments.learning_rate,
        total_steps=arguments.epochs * steps_per_epoch,
        pct_start=0.15,
        cycle_momentum=False,
    )
    started, step = time.perf_counter(), 0
    for epoch in range(1, arguments.epochs + 1):
        network.train()
        total_loss = 0.0
        sizes = EARLY_SIZES if epoch <= arguments.epochs // 2 else LATE_SIZES
        for images, targets in training_batches(pixels, labels, arguments.batch_size, sizes):
            with torch.autocast("cpu", torch.bfloat16):
                scores = network(images)
            loss = F.cross_entropy(scores.float(), targets, label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            update_average(average, network, step)
            total_loss += loss.item()
        seconds = time.perf_counter() - started
        loss_text = f"loss {total_loss / steps_per_epoch:.3f}"
        print(f"epoch {epoch:3d}  {loss_text}  {seconds:.0f} s", flush=True)
        store(average, arguments, epoch)  # an interrupted run leaves something to look at


def store(network: nn.Module, arguments: argparse.Namespace, epochs_done: int) -> None:
    """Writes the network's state, floating-point values in half precision."""
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
    }
    metadata = {
        **({"crop": str(arguments.crop)} if arguments.crop else {}),
        "classes": ",".join(demo.CLASS_NAMES),
        "date": datetime.date.today().isoformat(),
        "epochs": f"{epochs_done} of {arguments.epochs}",
        "seed": str(arguments.seed),
    }
    save_file(tensors, arguments.out, metadata=metadata)


def train_on_crops(arguments: argparse.Namespace) -> None:
    """Trains by ``pyxai.fine_tune`` on small crops, and stores the weights."""
    import pyxai

    network = demo.load_demo_network() if arguments.resume else demo.DemoNet()
    result = pyxai.fine_tune(
        pyxai.Classifier(
            network.to(memory_format=torch.channels_last),
            class_names=demo.CLASS_NAMES,
            preprocessing=pyxai.Preprocessing(**demo.PREPROCESSING),
        ),
        arguments.scenes,
        crop=arguments.crop,
        unfreeze="all",
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        weight_decay=CROP_WEIGHT_DECAY,
        seed=arguments.seed,
    )
    for epoch in result.history:
        accuracies = f"train {epoch.train_accuracy:.3f}  valid {epoch.valid_accuracy:.3f}"
        print(f"epoch {epoch.number:3d}  loss {epoch.loss:.3f}  crops: {accuracies}")
    store(result.classifier.model, arguments, arguments.epochs)


@torch.inference_mode()
def predict(network: nn.Module, pixels: Tensor, side: int, crop: int | None = None) -> Tensor:
    """Returns the predicted class of photos resized to `side`, or of one random crop of each."""
    places = torch.Generator().manual_seed(0)
    predictions = []
    for batch in pixels.split(50):
        images = F.interpolate(
            batch.float() / 255, size=(side, side), mode="bicubic", antialias=True
        ).clamp(0, 1)
        if crop is not None:
            corners = torch.randint(0, side - crop + 1, (len(images), 2), generator=places).tolist()
            images = torch.stack(
                [
                    image[:, y : y + crop, x : x + crop]
                    for image, (y, x) in zip(images, corners, strict=True)
                ]
            )
        images = ((images - MEAN) / STD).contiguous(memory_format=torch.channels_last)
        predictions.append(network(images).argmax(1))
    return torch.cat(predictions)


def report(path: Path, pixels: Tensor, labels: Tensor) -> None:
    """Prints the accuracy of stored weights on photos at several sizes, and the confusions."""
    network = demo.DemoNet()
    network.load_state_dict(load_file(path))
    network.eval().to(memory_format=torch.channels_last)

    def accuracy(side: int, crop: int | None = None) -> str:
        return f"{100 * (predict(network, pixels, side, crop) == labels).float().mean():.1f} %"

    print(f"\n{path.name}: {path.stat().st_size} bytes, {len(labels)} photos")
    print("enlarged | whole photo | 96-px crop | 64-px crop")
    for times in (1, 2, 3):
        side = 150 * times
        figures = accuracy(side), accuracy(side, 96), accuracy(side, 64)
        print(f"      {times}x | " + " | ".join(figures))
    print("\nshorter side | whole photo")
    for side in (96, 128, 150, 176, 192, 224, 256, 320):
        print(f"{side:12d} | {accuracy(side)}")
    for side in dict.fromkeys((150, demo.PREPROCESSING["resize"])):
        predicted = predict(network, pixels, side)
        print(f"\nconfusions at {side} pixels (row: label, column: prediction)")
        print(" " * 10 + "".join(f"{name:>10}" for name in demo.CLASS_NAMES) + "    recall")
        for index, name in enumerate(demo.CLASS_NAMES):
            counts = predicted[labels == index].bincount(minlength=len(demo.CLASS_NAMES))
            recall = 100 * counts[index] / counts.sum()
            print(f"{name:>10}" + "".join(f"{n:10d}" for n in counts.tolist()) + f"{recall:8.1f} %")


def main() -> None:
    """Trains (unless told not to), stores, reloads and reports."""
    parser = argparse.ArgumentParser(description="Trains or evaluates the demo classifier.")
    parser.add_argument("scenes", type=Path, help="folder with index.csv and the photos")
    parser.add_argument("--epochs", type=int, default=36)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--hold-out", type=int, default=0, metavar="N")
    parser.add_argument("--out", type=Path, default=demo.WEIGHTS_FILE)
    parser.add_argument("--evaluate-only", action="store_true", help="report on --out as it is")
    parser.add_argument("--crop", type=int, metavar="N", help="train on crops of N pixels")
    parser.add_argument("--resume", action="store_true", help="--crop goes on from stored weights")
    arguments = parser.parse_args()
    if arguments.crop and (arguments.hold_out or arguments.out == demo.WEIGHTS_FILE):
        parser.error("--crop needs an --out of its own and takes no --hold-out")
    if arguments.resume and not arguments.crop:
        parser.error("--resume needs --crop")
    if arguments.learning_rate is None:
        arguments.learning_rate = CROP_LEARNING_RATE if arguments.crop else LEARNING_RATE
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)

    test_pixels, test_labels = read_photos(arguments.scenes, "valid")
    if arguments.crop and not arguments.evaluate_only:
        train_on_crops(arguments)
    elif not arguments.evaluate_only:
        pixels, labels = read_photos(arguments.scenes, "train")
        if arguments.hold_out:
            held = torch.zeros(len(labels), dtype=torch.bool)
            for index in range(len(demo.CLASS_NAMES)):
                held[(labels == index).nonzero().flatten()[-arguments.hold_out :]] = True
            test_pixels, test_labels = pixels[held], labels[held]
            pixels, labels = pixels[~held], labels[~held]
        train(pixels, labels, arguments)
    report(arguments.out, test_pixels, test_labels)


if __name__ == "__main__":
    main()
