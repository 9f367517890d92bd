"""SHAP values against the library shap: the same samples or evaluations on the same network.

    python benchmarks/peers/bench_shap.py [--json FILE] [--rounds N]

Needs `shap` and OpenCV. ResNet-18 with random weights, photos of 224 pixels, one target, one
thread. "gradient": 50 samples, 50 background photos that were not seen before, what is done to
these included; "next photo": the same background as for the photo before, which shap's explainer
and pyxai have both looked at. "partition": 300 evaluations, blurred background. Peak memory is that
of one call in a process of its own, above what was held before.
"""

from __future__ import annotations

import functools
import gc
import itertools
import json
import resource
import statistics
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import workloads
from resnet import ResNet18

import pyxai

SAMPLES, BACKGROUNDS, EVALUATIONS = 50, 50, 300


def gradient_sides(model, networks, photos=1, known=False):
    """Calls by name; all explain the top class and start from the photos."""
    import shap

    images, background = torch.randn(photos, 3, 224, 224), torch.randn(BACKGROUNDS, 3, 224, 224)
    explainer, calls_made = None, itertools.count()

    def pictures():
        if not known:
            background[0, 0, 0, 0] = next(calls_made)
        return background

    def theirs():
        nonlocal explainer
        if explainer is None or not known:
            explainer = shap.GradientExplainer(model, pictures(), batch_size=50)
        return explainer.shap_values(images, nsamples=SAMPLES, ranked_outputs=1, rseed=0)

    calls = {"shap": theirs}
    for name, network in networks.items():
        calls[name] = lambda network=network: pyxai.shap_values(
            network, images, pictures(), samples=SAMPLES
        )
    return calls


def partition_sides(model, networks):
    """The same for Owen values of a photo with values from 0 to 255."""
    import shap

    photo = torch.rand(1, 3, 224, 224)
    pixels = (255 * photo.permute(0, 2, 3, 1)).numpy()

    def function(images):
        rows = torch.from_numpy(np.asarray(images, np.float32)).permute(0, 3, 1, 2) / 255
        with torch.no_grad():
            return model(rows.contiguous()).numpy()

    explainer = shap.Explainer(function, shap.maskers.Image("blur(64,64)", pixels[0].shape))
    top = shap.Explanation.argsort.flip[:1]
    calls = {
        "shap": lambda: explainer(
            pixels, max_evals=EVALUATIONS, batch_size=16, outputs=top, silent=True
        )
    }
    for name, network in networks.items():
        calls[name] = lambda network=network: pyxai.shap_values(
            network, photo, "blur", method="partition", samples=EVALUATIONS
        )
    return calls


SIDES = {
    "gradient": gradient_sides,
    "gradient, next photo": functools.partial(gradient_sides, known=True),
    "gradient, four photos": functools.partial(gradient_sides, photos=4),
    "partition": partition_sides,
}


def made(name):
    torch.manual_seed(0)
    model = ResNet18().eval()
    if name == "pyxai":
        return model, {"pyxai": model}
    if name == "shap":
        return model, {}
    networks = {
        "pyxai": model,
        "pyxai, accelerated": pyxai.accelerate(model),
        "pyxai, accelerated bfloat16": pyxai.accelerate(model, dtype=torch.bfloat16),
    }
    return model, networks


def measure(rounds):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for method, sides in SIDES.items():
        model, networks = made("all")
        times = workloads.in_turn(sides(model, networks), rounds=rounds)
        for name in networks:
            row = {
                "method": method,
                "side": name,
                "s": statistics.median(times[name]),
                "shap_s": statistics.median(times["shap"]),
                "ratio": workloads.ratio(times["shap"], times[name]),
            }
            print(
                "{method:22} {side:28} {s:6.2f} s, shap {shap_s:6.2f} s: {ratio:.2f} x".format(
                    **row
                )
            )
            rows.append(row)
        for name in ("shap", "pyxai"):
            command = [sys.executable, __file__, "--peak", method, name]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            row = {"method": method, "side": name, "peak_mb": float(output.splitlines()[-1])}
            print("{method:22} {side:28} {peak_mb:6.0f} MB".format(**row), flush=True)
            rows.append(row)
    return rows


def peak(method, name):
    """Prints the peak memory of one call here, in MB."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    call = SIDES[method](*made(name))[name]
    gc.collect()
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    call()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            print(json.dumps(int(line.split()[1]) * 1024 / 1e6 - before / 1e6))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        peak(*sys.argv[2:])
    else:
        workloads.command_line(__doc__, measure, rounds=3)
