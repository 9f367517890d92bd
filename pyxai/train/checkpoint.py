"""A training run that may be interrupted: all that it needs to go on, in a folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pyxai._files import write_json
from pyxai.train.loop import Best, Epoch, Training

_FORMAT = "pyxai training run 1"
_STEM = "training-run"  # of the files' names, so that they meet no others


class Checkpoint:
    """The state of a run after its last epoch, in a folder.

    The JSON file names the file of tensors, so that a run that is stopped while it writes leaves
    the state before.
    """

    def __init__(self, directory: Path, identity: dict[str, Any]) -> None:
        """Opens a folder, and makes it if need be.

        Args:
            directory: the folder.
            identity: all that two runs must share if one is to go on where the other stopped, as
                plain data; numbers, texts, lists and dictionaries.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._state = directory / f"{_STEM}.json"
        self._identity = json.loads(json.dumps({"format": _FORMAT, **identity}))

    def save(self, run: Training) -> None:
        """Writes the state after an epoch."""
        tensors = {f"network.{name}": value for name, value in run.changing().items()}
        for index, state in run.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
        if run.best is not None:
            tensors |= {f"best.{name}": value for name, value in run.best.weights.items()}
        tensors["random.order"] = run.generator.get_state()
        tensors["random.cpu"] = torch.get_rng_state()
        if run.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(run.device)
        file = self._directory / f"{_STEM}-{len(run.history)}.safetensors"
        # Copies, as weights that are used twice must be stored twice.
        save_file({name: each.cpu().contiguous().clone() for name, each in tensors.items()}, file)
        best = None if run.best is None else {"epoch": run.best.epoch, "loss": run.best.loss}
        history = [asdict(each) for each in run.history]
        record = {"identity": self._identity, "tensors": file.name, "history": history}
        write_json(self._state, {**record, "best": best})
        for old in self._directory.glob(f"{_STEM}-*.safetensors"):
            if old != file:
                old.unlink()

    def resume(self, run: Training) -> None:
        """Brings a run to where the one before stopped, if there was one.

        Raises:
            ValueError: the folder holds the run of another model, other photos or other settings,
                or cannot be read.
        """
        if not self._state.exists():
            return
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            identity = dict(state["identity"])
            if identity == self._identity:
                # A name, and no path to somewhere else.
                tensors = load_file(self._directory / Path(state["tensors"]).name)
                _fill(run, state, tensors)
        except (ValueError, KeyError, TypeError, OSError, RuntimeError, SafetensorError) as error:
            raise ValueError(
                f"checkpoint: expected a folder that a run of fine_tune left, got "
                f"{self._directory} ({type(error).__name__}: {error})"
            ) from error
        if identity != self._identity:
            names = sorted({*identity, *self._identity})
            other = [name for name in names if identity.get(name) != self._identity.get(name)]
            raise ValueError(
                "checkpoint: expected a run of the same model, photos and settings, got "
                f"{self._directory}, where these differ: {', '.join(other)}"
            )


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
