"""Feature visualisation: many channels at once against one by one, plain and accelerated.

    python benchmarks/bench_feature_visualization.py [--json FILE] [--rounds N]
    python benchmarks/bench_feature_visualization.py --rounds 3 --device cuda

Pictures of 128 pixels, of channels of a network of ResNet-18's size with random weights, with the
usual movements; milliseconds a channel and step. The responses of the first five after the steps
stand beside the times: all ways must raise them alike.
"""

from __future__ import annotations

import statistics
import sys

import torch
import workloads
from resnet import ResNet18

import pyxai

STEPS = {"cpu": 12, "cuda": 64}  # what is done once a call is a few per cent of one channel
LAYERS = ("stages.1", "stages.3")
CHANNELS = 30
SINGLY = 5  # of these are also made one by one, which takes long


def calls(networks, layer, channels, steps):
    """Ways to make the pictures of these channels; each returns its last responses."""

    def batch(network):
        return pyxai.visualize_features(network, layer, channels, steps=steps).responses[-1]

    def singly(network):
        found = []
        for channel in channels[:SINGLY]:
            made = pyxai.visualize_features(network, layer, channel, steps=steps)
            found.append(made.responses[-1])
        return torch.cat(found)

    ways = {"one by one": lambda: singly(networks["plain"])}
    for name, network in networks.items():
        ways[f"batch, {name}"] = lambda network=network: batch(network)
    return ways


def responding(model, layer, device):
    """The channels that respond to noise most: shut ones cost a second backward pass at first."""
    noise = 0.1 * torch.randn(4, 3, 140, 140, generator=torch.Generator().manual_seed(0))
    features = pyxai.Classifier(model).activations(noise.to(device), layer)[layer]
    return features.mean(dim=(0, 2, 3)).topk(CHANNELS).indices.tolist()


def synchronized(call, device):
    def run():
        result = call()
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    return run


def measure(rounds, device="cpu"):
    model = ResNet18().eval().to(device)
    networks = {
        "plain": model,
        "accelerated": pyxai.accelerate(model),
        "accelerated bfloat16": pyxai.accelerate(model, dtype=torch.bfloat16),
    }
    rows = []
    for threads in (1, 2) if device == "cpu" else (1,):
        torch.set_num_threads(threads)
        for layer in LAYERS:
            channels, steps = responding(model, layer, device), STEPS[device]
            ways = calls(networks, layer, channels, steps)
            ways = {name: synchronized(call, device) for name, call in ways.items()}
            responses = {name: float(call()[:SINGLY].mean()) for name, call in ways.items()}
            times = workloads.in_turn(ways, rounds=rounds)
            for name, seconds in times.items():
                count = SINGLY if name == "one by one" else CHANNELS
                times[name] = [each / steps / count for each in seconds]
            for name, seconds in times.items():
                row = {
                    "device": device,
                    "threads": threads,
                    "layer": layer,
                    "side": name,
                    "ms_a_step_and_channel": 1000 * statistics.median(seconds),
                    "speedup": workloads.ratio(times["one by one"], seconds),
                    "mean_response": responses[name],
                }
                print(
                    f"{device} {threads} thr  {layer}  {name:28s} "
                    f"{row['ms_a_step_and_channel']:7.2f} ms a step and channel  "
                    f"{row['speedup']:.2f} x  response {row['mean_response']:.4f}",
                    flush=True,
                )
                rows.append(row)
    return rows


if __name__ == "__main__":
    device = "cpu"
    if "--device" in sys.argv:
        place = sys.argv.index("--device")
        device = sys.argv[place + 1]
        del sys.argv[place : place + 2]
    workloads.command_line(__doc__, lambda rounds: measure(rounds, device), rounds=3)
