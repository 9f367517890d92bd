"""A training run that may be interrupted: all that it needs to go on."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from pyxai.runs import Kind, RunState
from pyxai.runs.parts import not_one
from pyxai.train.loop import Best, Epoch, Training

RUN = Kind("a training run", "training-run", "pyxai training run 3")


def save(state: RunState, run: Training) -> None:
    """Writes the state after an epoch."""
    tensors = {f"network.{name}": value for name, value in run.changing().items()}
    for index, values in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    if run.best is not None:
        tensors |= {f"best.{name}": value for name, value in run.best.weights.items()}
    tensors["random.order"] = run.generator.get_state()
    tensors["random.cpu"] = torch.get_rng_state()
    if run.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(run.device)
    best = None if run.best is None else {"epoch": run.best.epoch, "loss": run.best.loss}
    history = [asdict(each) for each in run.history]
    state.save(len(history), {"history": history, "best": best}, tensors)


def resume(state: RunState, run: Training) -> None:
    """Brings a run to where the one before stopped, if there was one.

    Raises:
        ValueError: that was a run of something else.
    """
    if state.before is None:
        return
    try:
        _fill(run, *state.before)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise not_one(state.directory, RUN, error) from error


def _fill(run: Training, state: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    history = [Epoch(**each) for each in state["history"]]
    run.put(_below("network.", tensors))
    optimizer = run.optimizer.state_dict()
    optimizer["state"] = {}
    for name, value in _below("optimizer.", tensors).items():
        index, _, what = name.partition(".")
        optimizer["state"].setdefault(int(index), {})[what] = value
    run.optimizer.load_state_dict(optimizer)
    if state["best"] is not None:
        weights = {name: each.to(run.device) for name, each in _below("best.", tensors).items()}
        run.best = Best(int(state["best"]["epoch"]), float(state["best"]["loss"]), weights)
    run.generator.set_state(tensors["random.order"])
    torch.set_rng_state(tensors["random.cpu"])
    if run.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"], run.device)
    run.history = history


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
