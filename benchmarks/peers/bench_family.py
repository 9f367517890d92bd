"""The goals of the CAM family, each measured: methods, accelerated models, many classes, memory.

    pip install torch torchvision torchcam grad-cam 'pyxai-vision[bench]'
    python benchmarks/peers/bench_family.py [SECTION ...] [--threads 1] [--rounds 7] [--json FILE]

Both sides of each ratio get the same model and images, run in turn in one process, and find the
top class themselves. Ratios are medians of the ratios of each round. Peak memory is that of
processes of their own, above what they held before the call. Sections: see SECTIONS at the end.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import warnings
from pathlib import Path

import torch
import torchvision
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))
import workloads

import pyxai

GRADIENT_METHODS = [
    "gradcam",
    "gradcam++",
    "xgradcam",
    "hirescam",
    "gradcam_elementwise",
    "layercam",
    "shapleycam",
    "eigengradcam",
]


def network(name):
    torch.manual_seed(0)
    return torchvision.models.get_model(name, weights=None).eval()


def forward(model, images):
    def call():
        with torch.no_grad():
            return model(images)

    return call


def grad_cam(model, images, method="GradCAM", classes=(None,)):
    """pytorch-grad-cam, one call for each class, as its interface wants it."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def call():
        with getattr(pytorch_grad_cam, method)(model, [model.layer4]) as extractor:
            for k in classes:
                targets = None if k is None else [ClassifierOutputTarget(k)] * len(images)
                maps = extractor(input_tensor=images, targets=targets)
        return maps

    return call


def torchcam(model, images, method="CAM", classes=(None,)):
    """torchcam used well: one forward pass for all classes, maps resized to the images."""
    import torchcam.methods

    peer = getattr(torchcam.methods, method)
    arguments = {"fc_layer": "fc"} if method == "CAM" else {}

    def call():
        with peer(model, target_layer="layer4", **arguments) as extractor:
            with torch.set_grad_enabled(method not in ("CAM", "ScoreCAM")):
                scores = model(images)
            top = scores.argmax(1).tolist()
            maps = []
            for place, k in enumerate(classes):
                keep = (
                    {}
                    if method in ("CAM", "ScoreCAM")
                    else {"retain_graph": place + 1 < len(classes)}
                )
                low = extractor(top if k is None else k, scores, **keep)[0]
                maps.append(functional.interpolate(low[:, None], images.shape[2:], mode="bilinear"))
        return maps

    return call


def gradient_methods(options):
    """Each gradient method against the bare forward pass."""
    for name in ("resnet18", "resnet50"):
        for batch in options.batches:
            model, images = network(name), torch.randn(batch, 3, 224, 224)
            sides = {"forward": forward(model, images)}
            for method in GRADIENT_METHODS:
                sides[method] = lambda m=method, n=model, x=images: pyxai.cam(n, x, method=m)
            yield f"{name}, batch {batch}", sides, "forward"


def many_at_once(options):
    """10 targets and 8 methods in one call."""
    targets = [list(range(10))]
    for name in ("resnet18", "resnet50"):
        for batch in options.batches:
            model, images = network(name), torch.randn(batch, 3, 224, 224)
            yield (
                f"{name}, batch {batch}, 10 targets x 8 methods",
                {
                    "forward": forward(model, images),
                    "pyxai, 7 x 7": lambda n=model, x=images: pyxai.cam(
                        n, x, targets, method=GRADIENT_METHODS, size=None
                    ),
                    "pyxai, 224 x 224": lambda n=model, x=images: pyxai.cam(
                        n, x, targets, method=GRADIENT_METHODS
                    ),
                },
                "forward",
            )


def other_heads(options):
    """Heads that are not linear: the head alone is differentiated."""
    for batch in (1, 16):
        model, images = network("resnet18"), torch.randn(batch, 3, 224, 224)
        model.fc = nn.Sequential(nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 1000)).eval()
        sides = {"forward": forward(model, images)}
        for method in ("gradcam", "layercam", "shapleycam", "ablationcam"):
            sides[method] = lambda m=method, n=model, x=images: pyxai.cam(n, x, method=m)
        yield f"resnet18 with an MLP head, batch {batch}", sides, "forward"


def accelerated(options):
    """Explaining with an accelerated copy against predicting with the plain model."""
    for name in ("resnet18", "resnet50"):
        plain = network(name)
        fast = pyxai.accelerate(plain)
        half = pyxai.accelerate(plain, dtype=torch.bfloat16)
        for batch in (1, 16):
            images = torch.randn(batch, 3, 224, 224)
            exact, close = pyxai.cam(plain, images), pyxai.cam(half, images, None)
            gap = (exact - close).abs()
            print(
                f"# {name}, batch {batch}: bfloat16 maps differ by {gap.mean():.4f} on average, "
                f"{gap.max():.3f} at most; float32 by "
                f"{(pyxai.cam(fast, images) - exact).abs().max():.1e}"
            )
            yield (
                f"{name}, batch {batch}",
                {
                    "forward": forward(plain, images),
                    "pyxai, plain": lambda n=plain, x=images: pyxai.cam(n, x),
                    "pyxai, accelerated": lambda n=fast, x=images: pyxai.cam(n, x),
                    "pyxai, bfloat16": lambda n=half, x=images: pyxai.cam(n, x),
                },
                "forward",
            )


def against_grad_cam(options):
    """One map of each of 16 images."""
    for name in ("resnet18", "resnet50"):
        model, images = network(name), torch.randn(16, 3, 224, 224)
        fast = pyxai.accelerate(model)
        yield (
            f"{name}, batch 16, gradcam",
            {
                "pyxai": lambda n=model, x=images: pyxai.cam(n, x, method="gradcam"),
                "pyxai, accelerated": lambda n=fast, x=images: pyxai.cam(n, x, method="gradcam"),
                "torchcam": torchcam(model, images, "GradCAM"),
                "grad-cam": grad_cam(copy.deepcopy(model), images),
            },
            "pyxai",
        )


def many_classes(options):
    """60 classes of one photo of 800 pixels; pytorch-grad-cam runs 6 of them."""
    model, images = network("resnet18"), torch.randn(1, 3, 800, 800)
    indices = list(range(60))
    yield (
        "resnet18, 800 px, 60 classes (grad-cam: 6, to be multiplied by 10)",
        {
            "forward": forward(model, images),
            "pyxai": lambda: pyxai.cam(model, images, [indices]),
            "torchcam": torchcam(model, images, "CAM", indices),
            "torchcam GradCAM": torchcam(model, images, "GradCAM", indices),
            "grad-cam, 6 classes": grad_cam(copy.deepcopy(model), images, "GradCAM", indices[:6]),
        },
        "pyxai",
    )


def ablation(options):
    """Ablation-CAM, all channels."""
    model, images = network("resnet18"), torch.randn(1, 3, 224, 224)
    yield (
        "resnet18, batch 1, ablationcam",
        {
            "pyxai": lambda: pyxai.cam(model, images, method="ablationcam"),
            "grad-cam": grad_cam(copy.deepcopy(model), images, "AblationCAM"),
        },
        "pyxai",
    )
    head = network("resnet18")
    head.fc = nn.Sequential(nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 1000)).eval()
    yield (
        "resnet18 with an MLP head, batch 1, ablationcam",
        {
            "pyxai": lambda: pyxai.cam(head, images, method="ablationcam"),
            "grad-cam": grad_cam(copy.deepcopy(head), images, "AblationCAM"),
        },
        "pyxai",
    )


def score(options):
    """Score-CAM, all 512 channels."""
    model, images = network("resnet18"), torch.randn(1, 3, 224, 224)
    fast = pyxai.accelerate(model)
    half = pyxai.accelerate(model, dtype=torch.bfloat16)
    yield (
        "resnet18, batch 1, scorecam",
        {
            "pyxai": lambda: pyxai.cam(model, images, method="scorecam"),
            "pyxai, accelerated": lambda: pyxai.cam(fast, images, method="scorecam"),
            "pyxai, bfloat16": lambda: pyxai.cam(half, images, method="scorecam"),
            "torchcam": torchcam(model, images, "ScoreCAM"),
            "grad-cam": grad_cam(copy.deepcopy(model), images, "ScoreCAM"),
        },
        "pyxai",
    )


def big_batch(options):
    """64 images at once against four times 16."""
    for name in ("resnet18", "resnet50"):
        model, images = network(name), torch.randn(64, 3, 224, 224)
        parts = images.split(16)
        yield (
            f"{name}, batch 64",
            {
                "4 x 16": lambda n=model, p=parts: [pyxai.cam(n, x) for x in p],
                "64": lambda n=model, x=images: pyxai.cam(n, x),
                "64, forward alone": forward(model, images),
            },
            "4 x 16",
        )


PEAKS = {
    "pyxai": lambda n, x: pyxai.cam(n, x, method="gradcam"),
    "pyxai, accelerated": lambda n, x: pyxai.cam(n, x, method="gradcam"),
    "torchcam": lambda n, x: torchcam(n, x, "GradCAM")(),
    "grad-cam": lambda n, x: grad_cam(n, x)(),
    "pyxai, scorecam": lambda n, x: pyxai.cam(
        n, x[:1], method=pyxai.cam_method("scorecam", channels=96)
    ),
    "forward": lambda n, x: forward(n, x)(),
}


def peak(name, side, batch):
    """The peak memory of one call in this process, in MB, above what it held before."""
    model, images = network(name), torch.randn(batch, 3, 224, 224)
    if "accelerated" in side:
        model = pyxai.accelerate(model)
    PEAKS[side](model, images[:1])  # imports, first looks, threads
    gc.collect()
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    PEAKS[side](model, images)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            print(json.dumps(int(line.split()[1]) * 1024 / 1e6 - before / 1e6))


def memory(options):
    """Peak memory at batch 16, each side in a process of its own."""
    rows = []
    for name in ("resnet18", "resnet50"):
        for side in PEAKS:
            command = [sys.executable, __file__, "--peak", name, side, "16"]
            # The system's own allocator settings: the warm ones never give anything back.
            usual = {name: os.environ[name] for name in os.environ if not name.startswith("MALLOC")}
            output = subprocess.run(
                command, capture_output=True, text=True, check=True, env=usual
            ).stdout
            rows.append(
                {
                    "work": f"{name}, batch 16, peak memory",
                    "side": side,
                    "mb": float(output.splitlines()[-1]),
                }
            )
            print("{work:44} {side:24} {mb:8.0f} MB".format(**rows[-1]), flush=True)
    return rows


SECTIONS = {
    section.__name__: section
    for section in (
        gradient_methods,
        many_at_once,
        other_heads,
        accelerated,
        against_grad_cam,
        many_classes,
        ablation,
        score,
        big_batch,
    )
}


def measure(section, options):
    rows = []
    rounds = {"score": 2, "ablation": 3, "many_classes": 3}.get(section, options.rounds)
    for work, sides, base in SECTIONS[section](options):
        times = workloads.in_turn(sides, rounds=rounds, seconds=0.2)
        for side in sides:
            rows.append(
                {
                    "section": section,
                    "work": work,
                    "threads": torch.get_num_threads(),
                    "rounds": rounds,
                    "side": side,
                    "ms": 1e3 * statistics.median(times[side]),
                    "of": base,
                    "ratio": workloads.ratio(times[side], times[base]),
                }
            )
            print(
                "{work:52} {threads} thr  {side:22} {ms:10.2f} ms  {ratio:8.3f} x {of}".format(
                    **rows[-1]
                ),
                flush=True,
            )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", help=f"of {', '.join([*SECTIONS, 'memory'])}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    if options.peak:
        peak(options.peak[0], options.peak[1], int(options.peak[2]))
        return
    workloads.keep_allocator_warm()
    rows = []
    for section in options.sections or [*SECTIONS, "memory"]:
        print(f"## {section}", flush=True)
        rows += memory(options) if section == "memory" else measure(section, options)
    if options.json:
        workloads.save(options.json, rows, ["torch", "torchvision", "torchcam", "grad-cam"])


if __name__ == "__main__":
    main()
