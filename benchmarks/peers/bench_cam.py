"""Whole calls: pyxai against torchcam and pytorch-grad-cam, on torchvision networks.

    pip install torch torchvision torchcam grad-cam 'pyxai-vision[bench]'
    python benchmarks/peers/bench_cam.py [--json FILE] [--rounds 15] [--long]

Every side gets the same model and images and gives full-size maps in [0, 1] for the same classes;
torchcam returns low-resolution maps, which are resized here with `interpolate`. All sides run in
turn, in one process, and rows are medians. `--long` adds 60 classes on an 800-pixel image.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import torch
import torchvision
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))
import workloads

import pyxai


def resized(maps, size):
    return functional.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)


class Shallow(torch.nn.Module):
    """Features of ResNet-18's shape from one cheap layer: shows what is not the forward pass."""

    def __init__(self):
        super().__init__()
        self.layer4 = torch.nn.Sequential(torch.nn.Conv2d(3, 512, 1, 32), torch.nn.ReLU())
        self.avgpool, self.fc = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Linear(512, 1000)

    def forward(self, x):
        return self.fc(self.avgpool(self.layer4(x)).flatten(1))


def sides(model, batch, size):
    """One map of the top class, which each side finds itself, for each image."""
    from pytorch_grad_cam import GradCAM as GradCamPeer
    from torchcam.methods import CAM, GradCAM

    images = torch.randn(batch, 3, size, size)

    def torchcam(method, grad):
        # The extractor stays registered while it is timed: this is how its documentation uses it.
        def call():
            with method(model, target_layer="layer4", **fc(method)) as extractor:
                with torch.set_grad_enabled(grad):
                    scores = model(images)
                top = scores.argmax(1).tolist()
                return resized(extractor(top, scores)[0], (size, size))

        return call

    def fc(method):
        return {"fc_layer": "fc"} if method is CAM else {}

    def grad_cam():
        with GradCamPeer(model=model, target_layers=[model.layer4]) as extractor:
            return extractor(input_tensor=images, targets=None)

    def forward():
        with torch.no_grad():
            return model(images)

    return {
        "forward": forward,
        "pyxai cam": lambda: pyxai.cam(model, images, method="cam"),
        "pyxai gradcam": lambda: pyxai.cam(model, images, method="gradcam"),
        "torchcam CAM": torchcam(CAM, False),
        "torchcam GradCAM": torchcam(GradCAM, True),
        "grad-cam GradCAM": grad_cam,
    }


def many_classes(name, size, classes):
    """Maps of many classes of one image."""
    from torchcam.methods import CAM

    model = torchvision.models.get_model(name, weights=None).eval()
    images = torch.randn(1, 3, size, size)
    indices = list(range(classes))

    def torchcam():
        with CAM(model, target_layer="layer4", fc_layer="fc") as extractor, torch.no_grad():
            scores = model(images)
            return [resized(extractor([k], scores)[0], (size, size)) for k in indices]

    def forward():
        with torch.no_grad():
            return model(images)

    return {
        "forward": forward,
        "pyxai cam": lambda: pyxai.cam(model, images, [indices], method="cam"),
        "torchcam CAM": torchcam,
    }


def report(work, calls, rounds):
    times = workloads.in_turn(calls, rounds=rounds, seconds=0.05)
    rows = []
    for side in calls:
        rows.append(
            {
                "work": work,
                "threads": torch.get_num_threads(),
                "side": side,
                "ms": 1e3 * statistics.median(times[side]),
                "of_forward": workloads.ratio(times[side], times["forward"]),
                "of_pyxai": workloads.ratio(times[side], times["pyxai cam"]),
            }
        )
        print(
            "{work:34} {threads} thr  {side:18} {ms:9.2f} ms  {of_forward:6.3f} x forward  "
            "{of_pyxai:7.3f} x pyxai cam".format(**rows[-1]),
            flush=True,
        )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--long", action="store_true")
    arguments = parser.parse_args()
    workloads.keep_allocator_warm()
    rows = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for batch in (1, 16):
            resnet = torchvision.models.get_model("resnet18", weights=None).eval()
            work = f"resnet18, 224 px, batch {batch}"
            rows += report(work, sides(resnet, batch, 224), arguments.rounds)
            work = f"one layer, 224 px, batch {batch}"
            rows += report(work, sides(Shallow().eval(), batch, 224), 2 * arguments.rounds)
        if arguments.long:
            calls = many_classes("resnet18", 800, 60)
            rows += report("resnet18, 800 px, 60 classes", calls, max(arguments.rounds // 3, 3))
    if arguments.json:
        workloads.save(arguments.json, rows, ["torch", "torchvision", "torchcam", "grad-cam"])


if __name__ == "__main__":
    main()
