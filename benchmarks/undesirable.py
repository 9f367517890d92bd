"""The tables of the paper on undesirable pixels, on trained networks, and readings of its formulas.

    python -m benchmarks.undesirable --weights DIR --photos DIR [--count 100] [--network NAME ...]
        [--part tables|consistency|readings|same ...] [--state DIR] [--minutes M] [--json FILE]
        [--sheet FILE]

Needs torchvision, but for `--network demo`. `--weights` holds the .npz files of NETWORKS,
`--photos` any photos, of which `--count` are drawn at random (seed 0). Parts:

tables       φ (Table 1) and area (Table 2) of Eq. 3, F-TC and F-NTC as `pyxai.undesirable_pixels`
             has them, for the top class; and how far the mean logit over classes varies.
consistency  mean pairwise IoU of the masks (heat map > 0.6) of 5 random starts, for the top class
             and for the second class (Figures 3 and 4); "soft" is sum(min) / sum(max) of the heat
             maps, which needs no threshold. Photos where no mask has such pixels do not count.
             `--reading` takes other ones.
readings     φ and area of other readings of the formulas; see mask_readings.py.
same         whether F-TC masks are those of the straightforward loop of bench_learned_mask.py, in
             float32 and with the network in bfloat16: IoU of the thresholded masks (20 photos).
             How far the loop agrees with itself on pixels that noise of 1e-7 was added to, a
             rounding error, says what to expect.

Every interval is a bootstrap over photos (95 %, 2000 draws). Groups of photos are kept in `--state`
as they are done, so that a run that was stopped, or that `--minutes` ended, goes on from there.
Times are those of the first run of a group.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
sys.path.insert(0, str(Path(__file__).parent))
import workloads
from bench_learned_mask import straightforward
from mask_readings import MAIN, READINGS

import pyxai
from pyxai.attribution.masks.learning import MaskTask, learn_masks
from pyxai.attribution.masks.plan import LearningPlan
from pyxai.attribution.masks.result import Background
from pyxai.classifier import Examined
from pyxai.draw.masks import mask_figure, to_pictures
from pyxai.images import find_photos
from pyxai.ops import cam_render

GROUP = 8  # photos
CELLS = 28
DRAWS = 2000
HALVES, IMAGENET = (0.5, 0.5, 0.5), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# File, whether padded as TensorFlow does, mean, deviation.
NETWORKS = {
    "mobilenet_v2": ("mobilenet_v2_1.0_224_tf2.npz", True, HALVES, HALVES),
    "squeezenet1_0": ("squeezenet1_0_torchvision.npz", False, *IMAGENET),
}


# ---- learning, group by group ----


class Study:
    """Masks of the photos on one network, each group learned once and kept in a folder."""

    def __init__(self, network, photos, arguments, deadline):
        self.network, self.photos, self.steps = network, photos, arguments.steps
        self.state, self.deadline = arguments.state, deadline
        self.classifier = classifier_of(network, arguments)

    def inputs(self, group):
        """Photos of one size: what the preprocessing gives, cut to the square in the middle."""
        kept = []
        for path in self.photos[group * GROUP : (group + 1) * GROUP]:
            one = self.classifier.to_input(path)
            side = min(one.shape[2:])
            top, left = (one.shape[2] - side) // 2, (one.shape[3] - side) // 2
            kept.append(one[:, :, top : top + side, left : left + side])
        return torch.cat(kept)

    def learned(self, name, seed=0, rank=0):
        """What is kept of all photos: arrays by name; None if the time is over.

        `rank` is 0 for the top class as target, 1 for the second.
        """
        groups = range(-(-len(self.photos) // GROUP))
        found = [self._group(name, seed, rank, group) for group in groups]
        if any(each is None for each in found):
            return None
        return {key: np.concatenate([each[key] for each in found]) for key in found[0]}

    def _group(self, name, seed, rank, group):
        slug = "".join(letter if letter.isalnum() else "-" for letter in name)
        path = self.state / f"{self.network}.{slug}.{self.steps}.{rank}.{seed}.{group:03d}.npz"
        names = [photo.name for photo in self.photos[group * GROUP : (group + 1) * GROUP]]
        if path.exists():
            with np.load(path) as kept:
                if kept["photo"].tolist() == names:
                    return dict(kept)
        if time.monotonic() > self.deadline:
            return None
        start = time.perf_counter()
        found, logits = learn(self.classifier, self.inputs(group), name, seed, rank, self.steps)
        seconds = (time.perf_counter() - start) / len(names)
        kept = {
            "photo": np.array(names),
            "mask": found.mask.numpy().astype(np.float16),
            "before": found.before.numpy(),
            "after": found.after.numpy(),
            "phi": found.improvement().numpy(),
            "area": found.area().numpy(),
            "hidden": (1 - found.mask).mean(dim=(1, 2)).numpy(),
            "target": logits[0],
            "others": logits[1],
            "seconds": np.full(len(names), seconds),
        }
        np.savez(path, **kept)
        print(f"  {path.stem}: {seconds:.1f} s a mask", flush=True)
        return kept


def learn(classifier, inputs, name, seed, rank, steps):
    """Masks by one reading, and how far they moved the logits of the target and the others."""
    reading = READINGS[name]
    first = torch.rand(CELLS, CELLS, generator=torch.Generator().manual_seed(seed))
    if reading.start != "random":
        first = torch.full((CELLS, CELLS), reading.start)
    plan = LearningPlan(
        steps=steps,
        learning_rate=0.1,
        mask_size=(CELLS, CELLS),
        start=first,
        background=Background(),
    )
    before = classifier(inputs)
    target = before.topk(rank + 1).indices[:, rank]
    task = MaskTask(reading.objective, penalty=reading.penalty)
    found = learn_masks(Examined(classifier, inputs), target, task, plan)
    change = classifier(found.perturbed(inputs)) - before
    of_target = change.gather(1, target[:, None])[:, 0]
    others = (change.sum(dim=1) - of_target) / (change.shape[1] - 1)
    return found, (of_target.numpy(), others.numpy())


def classifier_of(network, arguments):
    """The network, accelerated: the same function, no parameter of which needs a gradient."""
    if network == "demo":
        return pyxai.accelerate(pyxai.load_classifier("demo"))
    from method_sheet import load

    file, same_padding, mean, std = NETWORKS[network]
    model = load(network, arguments.weights / file, same_padding)
    preprocessing = pyxai.Preprocessing(mean, std, resize=256, crop=224)
    return pyxai.accelerate(pyxai.Classifier(model, preprocessing=preprocessing))


# ---- numbers ----


def interval(values):
    """Mean, and 95 % bootstrap interval over photos; NaN does not count."""
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    draws = np.random.default_rng(0).choice(values, (DRAWS, len(values))).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return [round(float(each), 4) for each in (values.mean(), low, high)]


def agreement(masks, side):
    """Mean pairwise overlap of masks `[seeds, N, h, w]` for each photo: thresholded, and soft."""
    hidden = 1 - torch.from_numpy(np.stack(masks)).float()
    heat = cam_render(hidden, (side, side), minmax=False)
    pairs = list(itertools.combinations(range(len(heat)), 2))

    def overlap(values):
        shares = []
        for one, other in pairs:
            both = torch.minimum(values[one], values[other]).sum(dim=(1, 2))
            either = torch.maximum(values[one], values[other]).sum(dim=(1, 2))
            shares.append(both / either)  # NaN where both are empty
        return torch.stack(shares).nanmean(dim=0).numpy()

    return overlap((heat > 0.6).float()), overlap(heat)


def scaled_area(masks):
    """The share of pixels above 0.6 of each heat map's own maximum."""
    hidden = 1 - torch.from_numpy(masks).float()
    heat = cam_render(hidden[None], (224, 224), minmax=False)[0]
    return (heat > 0.6 * heat.amax(dim=(1, 2), keepdim=True)).float().mean(dim=(1, 2)).numpy()


def row_of(network, name, found):
    phi = found["phi"]
    return {
        "network": network,
        "reading": name,
        "photos": len(phi),
        "phi": interval(phi),
        "phi_median": round(float(np.median(phi)), 3),
        "phi_where_before_below_0.95": interval(phi[found["before"] < 0.95]),
        "area": interval(found["area"]),
        "area_of_scaled": interval(scaled_area(found["mask"])),
        "hidden": interval(found["hidden"]),
        "before": round(float(found["before"].mean()), 4),
        "after": round(float(found["after"].mean()), 4),
        "target_logit": interval(found["target"]),
        "other_logits": interval(found["others"]),
        "seconds_a_mask": round(float(found["seconds"].mean()), 2),
    }


def measure_rows(study, names):
    for name in names:
        found = study.learned(name)
        if found is None:
            print(f"{study.network} {name}: not finished", flush=True)
            continue
        row = row_of(study.network, name, found)
        phi, area = row["phi"], row["area"]
        print(
            f"{study.network:14s} {name:30s} φ {phi[0]:7.1f} [{phi[1]:.1f}, {phi[2]:.1f}] median "
            f"{row['phi_median']:6.1f}  area {100 * area[0]:5.2f} % [{100 * area[1]:.2f}, "
            f"{100 * area[2]:.2f}], scaled {100 * row['area_of_scaled'][0]:.2f}  "
            f"{row['before']:.3f} -> {row['after']:.3f}  "
            f"logits {row['target_logit'][0]:+.2f} {row['other_logits'][0]:+.3f}  "
            f"{row['seconds_a_mask']:.1f} s",
            flush=True,
        )
        yield row


def measure_balance(study):
    """How far the mean logit over classes varies: where it does not, Eq. 4 has nothing to hold."""
    groups = range(-(-min(len(study.photos), 2 * GROUP) // GROUP))
    logits = torch.cat([study.classifier(study.inputs(group)) for group in groups])
    row = {
        "network": study.network,
        "deviation_of_mean_logit_over_photos": round(float(logits.mean(dim=1).std()), 5),
        "deviation_of_logits_over_classes": round(float(logits.std(dim=1).mean()), 4),
    }
    print(f"{row}", flush=True)
    return [row]


def measure_consistency(study, names, seeds):
    for rank, name in itertools.product((0, 1), names):
        found = [study.learned(name, seed, rank) for seed in range(seeds)]
        if any(each is None for each in found):
            print(f"{study.network} consistency of {name}: not finished", flush=True)
            continue
        hard, soft = agreement([each["mask"] for each in found], side=224)
        target = ("top", "second")[rank]
        row = {
            "network": study.network,
            "reading": name,
            "target": target,
            "seeds": seeds,
            "photos": len(hard),
            "photos_with_masks": int(np.isfinite(hard).sum()),
            "iou": interval(hard),
            "soft_iou": interval(soft),
            "after": round(float(np.mean([each["after"].mean() for each in found])), 4),
            "before": round(float(found[0]["before"].mean()), 4),
        }
        print(
            f"{study.network:14s} {name:6s} {target:6s} class, {seeds} starts: IoU {row['iou']} "
            f"({row['photos_with_masks']} photos), soft {row['soft_iou']}  "
            f"{row['before']:.3f} -> {row['after']:.3f}",
            flush=True,
        )
        yield row


def measure_same(study, count=20):
    """Overlap with the masks of the straightforward loop, in float32 and in bfloat16."""
    groups = range(-(-min(count, len(study.photos)) // GROUP))
    inputs = torch.cat([study.inputs(group) for group in groups])[:count]
    target = study.classifier(inputs).argmax(dim=1)
    first = torch.rand(CELLS, CELLS, generator=torch.Generator().manual_seed(0))
    plain = straightforward(study.classifier.model, inputs, target, first, study.steps)
    noise = 1e-7 * torch.randn(inputs.shape, generator=torch.Generator().manual_seed(1))
    again = straightforward(study.classifier.model, inputs + noise, target, first, study.steps)
    yield same_row(study, "the loop itself with noise of 1e-7", plain, again)
    half = pyxai.accelerate(study.classifier, dtype=torch.bfloat16)
    for name, network in (("float32", study.classifier), ("bfloat16", half)):
        found = pyxai.undesirable_pixels(
            network,
            inputs.to(network.dtype),
            target,
            start=first,
            settings=pyxai.MaskSettings(steps=study.steps),
        )
        row = same_row(study, name, plain, found.mask)
        yield {**row, "phi": interval(found.improvement().numpy())}


def same_row(study, name, plain, masks):
    side = study.inputs(0).shape[-1]
    hard, soft = agreement([plain.numpy(), masks.numpy()], side=side)
    row = {
        "network": study.network,
        "reading": f"F-TC, {name}, against the straightforward loop",
        "photos_with_masks": int(np.isfinite(hard).sum()),
        "iou": interval(hard),
        "soft_iou": interval(soft),
    }
    print(f"{row}", flush=True)
    return row


def draw_sheet(study, path, count=12):
    """F-TC and F-NTC beside each other."""
    rows, captions = [], []
    preprocessing = study.classifier.preprocessing
    groups = range(-(-count // GROUP))
    inputs = torch.cat([study.inputs(group) for group in groups])[:count]
    photos = to_pictures(inputs, preprocessing.mean, preprocessing.std)
    views = []
    for name in ("F-TC", "F-NTC"):
        kept = study.learned(name)
        if kept is None:
            return
        masks = torch.from_numpy(kept["mask"][:count]).float()
        heat = cam_render(1 - masks[None], inputs.shape[2:], minmax=False)[0]
        mixed = pyxai.ops.mask_blend(inputs, masks, Background().of(inputs, torch.arange(count)))
        views.append((kept, heat, to_pictures(mixed, preprocessing.mean, preprocessing.std)))
    for index, photo in enumerate(photos):
        texts = [f"{views[0][0]['before'][index]:.1%}  {study.photos[index].stem[10:]}"]
        for kept, _, _ in views:
            texts += [f"{kept['area'][index]:.1%} hidden", f"{kept['after'][index]:.1%}"]
        rows.append((photo, [(heat[index], mixed[index]) for _, heat, mixed in views]))
        captions.append(texts)
    titles = ["photo", "F-TC", "F-TC, perturbed", "F-NTC", "F-NTC, perturbed"]
    mask_figure(rows, captions, column_titles=titles, cell=180).save(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--network", nargs="+", default=[*NETWORKS, "demo"])
    parser.add_argument("--part", nargs="+", default=["tables", "consistency"])
    parser.add_argument("--reading", nargs="+", choices=READINGS, help="of readings, consistency")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--state", type=Path, default=Path("undesirable-state"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path, help="F-TC and F-NTC of 12 photos")
    arguments = parser.parse_args()
    if arguments.weights is None and set(arguments.network) - {"demo"}:
        parser.error("--weights is needed for all networks but demo")
    workloads.keep_allocator_warm()
    torch.set_num_threads(arguments.threads)
    arguments.state.mkdir(parents=True, exist_ok=True)
    paths = find_photos(arguments.photos)
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(0))
    photos = [Path(paths[index]) for index in order[: arguments.count].tolist()]
    deadline = time.monotonic() + 60 * arguments.minutes
    rows = []
    for network in arguments.network:
        study = Study(network, photos, arguments, deadline)
        if "tables" in arguments.part:
            rows += measure_balance(study)
            rows += measure_rows(study, MAIN)
        if "readings" in arguments.part:
            rows += measure_rows(study, arguments.reading or READINGS)
        if "same" in arguments.part:
            rows += measure_same(study)
        if "consistency" in arguments.part:
            rows += measure_consistency(study, arguments.reading or MAIN, arguments.seeds)
        if arguments.sheet:
            file = arguments.sheet
            draw_sheet(study, file.with_stem(f"{file.stem}-{network}"))
    if arguments.json:
        settings = {"steps": arguments.steps, "threads": arguments.threads, "cores": os.cpu_count()}
        workloads.save(arguments.json, [{**settings, **row} for row in rows], ["torch"])


if __name__ == "__main__":
    main()
