"""A clock for CUDA devices: sides in turn, by events; the roofs that times are held against."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch


def time_of(call: Callable[[], object], repeats: int) -> float:
    """Mean seconds of a call on the device, launched one after the other."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats


def in_turn(
    sides: dict[str, Callable[[], object]], *, rounds: int = 15, seconds: float = 0.01
) -> dict[str, list[float]]:
    """Times several callables in turn, so that a change of clock rates meets all of them.

    The first calls, which compile and fill torch's allocator, are not counted.

    Returns:
        For each, one mean time in seconds a round; a round repeats short calls for `seconds`.
        Back to back, so where the host is slower than the device it is the host that is timed.
    """
    repeats = {}
    for name, call in sides.items():
        for _ in range(3):
            call()
        torch.cuda.synchronize()
        repeats[name] = max(1, min(1000, int(seconds / max(time_of(call, 2), 1e-7))))
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, call in sides.items():
            times[name].append(time_of(call, repeats[name]))
    return times


def graphed(call: Callable[[], object], calls: int = 1) -> Callable[[], None]:
    """The call (so many of it) recorded as a CUDA graph: the host's part is gone."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = [call() for _ in range(calls)]

    def replay(keep: object = kept) -> None:
        graph.replay()

    return replay


def roofs(rounds: int = 9) -> dict[str, float]:
    """What this card does at best: bytes a second of a copy, seconds of a launch.

    `copy_bytes_per_s` counts what is read and what is written. `call_s` is torch's smallest
    operator, host included; `launch_s` the same as one of 100 nodes of a graph.
    """
    source = torch.empty(1 << 28, dtype=torch.float32, device="cuda")
    target, small = torch.empty_like(source), torch.zeros(1, device="cuda")
    nodes = graphed(lambda: small.add_(1), 100)
    sides = {
        "copy": lambda: target.copy_(source),
        "fill": lambda: target.fill_(1.0),
        "call": lambda: small.add_(1),
        "nodes": nodes,
    }
    middle = {name: statistics.median(each) for name, each in in_turn(sides, rounds=rounds).items()}
    size = source.numel() * source.element_size()
    return {
        "copy_bytes_per_s": 2 * size / middle["copy"],
        "fill_bytes_per_s": size / middle["fill"],
        "call_s": middle["call"],
        "launch_s": middle["nodes"] / 100,
    }
