"""Feature visualisation: pyxai against lucent, on torchvision's ResNet-18.

    pip install torch torchvision kornia decorator ipython; pip install --no-deps torch-lucent
    python benchmarks/peers/bench_feature_visualization.py [--json FILE] [--rounds 3] [--steps 8]

Both make pictures of 128 pixels with the same parametrisation, step length and movements, and show
them to the network at the same size: 224, which lucent enlarges to by default, or 140, which the
movements leave of picture and border. `response` is the mean activation of the finished picture,
not moved, enlarged to that size, measured alike for both. `--weights FILE --network NAME` takes
trained weights (`tools/method_sheet.py`) and `--layer` and `--channels` with it.

lucent 0.1.8 calls functions that kornia has moved since; they are put where it looks for them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import kornia
import torch
import torchvision
from torch.nn import functional

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tools")]
import workloads  # noqa: E402

import pyxai  # noqa: E402

for name in ("get_rotation_matrix2d", "warp_affine"):
    setattr(kornia, name, getattr(kornia.geometry.transform, name))

from lucent.optvis import objectives, param, render  # noqa: E402


def lucent_pictures(model, layer, channels, steps, side):
    """`[n, 3, 128, 128]`."""
    goals = [
        objectives.channel(layer.replace(".", "_"), channel, batch=place)
        for place, channel in enumerate(channels)
    ]
    (pictures,) = render.render_vis(
        model,
        objectives.Objective.sum(goals),
        lambda: param.image(128, batch=len(channels)),
        thresholds=(steps,),
        progress=False,
        show_image=False,
        fixed_image_size=side,
    )
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


def responses(model, layer, channels, pictures, side):
    """Mean activations of finished pictures."""
    preprocessing = pyxai.Preprocessing()
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std)
    )
    shown = functional.interpolate(pictures, (side, side), mode="bilinear", align_corners=False)
    features = pyxai.Classifier(model).activations((shown - mean) / std, layer)[layer]
    return features.mean(dim=(2, 3))[range(len(channels)), channels]


def measure(arguments):
    torch.set_num_threads(1)
    if arguments.weights:
        from method_sheet import load

        model = load(arguments.network, arguments.weights, same_padding=False)
    else:
        torch.manual_seed(0)
        model = torchvision.models.get_model(arguments.network, weights=None).eval()
    steps, layers = arguments.steps, arguments.layer or ["layer2", "layer4"]
    networks = {
        "pyxai": model,
        "pyxai, accelerated": pyxai.accelerate(model),
        "pyxai, accelerated bfloat16": pyxai.accelerate(model, dtype=torch.bfloat16),
    }
    rows = []
    for layer in layers:
        for side in (224, 140):
            for channels in (arguments.channels[:1], arguments.channels):
                ways = {
                    "lucent": lambda layer=layer, channels=channels, side=side: lucent_pictures(
                        model, layer, channels, steps, side
                    )
                }
                for name, network in networks.items():
                    ways[name] = lambda n=network, ly=layer, c=channels, s=side: (
                        pyxai.visualize_features(n, ly, c, steps=steps, network_size=s)
                    )
                made = {name: call() for name, call in ways.items()}
                times = workloads.in_turn(ways, rounds=arguments.rounds)
                for name, seconds in times.items():
                    found = responses(model, layer, channels, made[name], side)
                    row = {
                        "layer": layer,
                        "side": side,
                        "channels": len(channels),
                        "way": name,
                        "seconds_a_channel_64_steps": 64
                        * statistics.median(seconds)
                        / steps
                        / len(channels),
                        "speedup": workloads.ratio(times["lucent"], seconds),
                        "response": float(found.mean()),
                    }
                    print(
                        "{layer} {side} px  {channels:2} channels  {way:28} "
                        "{seconds_a_channel_64_steps:6.2f} s a channel (64 steps)  "
                        "{speedup:5.2f} x  response {response:.4f}".format(**row),
                        flush=True,
                    )
                    rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--layer", nargs="+")
    parser.add_argument("--channels", type=int, nargs="+", default=list(range(8)))
    arguments = parser.parse_args()
    workloads.keep_allocator_warm()
    rows = measure(arguments)
    if arguments.json:
        workloads.save(arguments.json, rows, ["torch", "torchvision", "torch-lucent", "kornia"])


if __name__ == "__main__":
    main()
