"""A training run that may be interrupted: all that it needs to go on, in a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pyxai._locks import locked
from pyxai._outputs import OutputFolder
from pyxai._sealed import load_tensors, read_record, save_tensors, write_record
from pyxai.train.loop import Best, Epoch, Training

_FORMAT = "pyxai training run 2"
_STEM = "training-run"  # of the files' names, so that they meet no others
_STATE = f"{_STEM}.json"


@contextmanager
def checkpoint_in(directory: Path, identity: dict[str, Any]) -> Iterator[Checkpoint]:
    """The state of a run in a folder that it has to itself; see `Checkpoint`.

    Raises:
        BusyError: another run works in the folder.
        ValueError: see `Checkpoint`.
    """
    with locked(directory, "checkpoint"):
        yield Checkpoint(directory, identity)


class Checkpoint:
    """The state of a run after its last epoch, in a folder that the caller has locked.

    The JSON file says how many epochs there were, and the file of tensors of that number belongs to
    it, so that a run that is stopped while it writes leaves the state before.
    """

    def __init__(self, directory: Path, identity: dict[str, Any]) -> None:
        """Opens a folder.

        Args:
            directory: the folder; it may hold files of others.
            identity: all that two runs must share if one is to go on where the other stopped, as
                plain data; numbers, texts, lists and dictionaries.

        Raises:
            ValueError: the folder holds the run of another model, other photos or other settings,
                or a damaged one; or a file of others has a name that the run needs.
        """
        self._directory = directory
        self._output = OutputFolder(directory, "checkpoint", by="a training run")
        self._identity = json.loads(json.dumps({"format": _FORMAT, **identity}))
        self._before = self._read() if (directory / _STATE).exists() else None
        self._output.check(_STATE, *self._files())

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
        file = _file(len(run.history))
        with self._output.writing(file) as path:
            save_tensors(path, tensors)
        best = None if run.best is None else {"epoch": run.best.epoch, "loss": run.best.loss}
        history = [asdict(each) for each in run.history]
        record = {"identity": self._identity, "history": history, "best": best}
        with self._output.writing(_STATE) as path:
            write_record(path, record, indent=1)
        for old in self._files():
            if old != file and self._output.wrote(self._directory / old):
                self._output.remove(old)

    def resume(self, run: Training) -> None:
        """Brings a run to where the one before stopped, if there was one.

        Raises:
            ValueError: that was a run of something else.
        """
        if self._before is None:
            return
        try:
            _fill(run, *self._before)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise self._other(error) from error

    def _read(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """What the run before left."""
        try:
            state = read_record(self._directory / _STATE)
            identity = dict(state["identity"])
            epochs = len(state["history"])
            if identity == self._identity:
                return state, load_tensors(self._directory / _file(epochs))[0]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise self._other(error) from error
        names = sorted({*identity, *self._identity})
        other = [name for name in names if identity.get(name) != self._identity.get(name)]
        raise ValueError(
            "checkpoint: expected a run of the same model, photos and settings, got "
            f"{self._directory}, where these differ: {', '.join(other)}"
        )

    def _other(self, error: Exception) -> ValueError:
        return ValueError(
            f"checkpoint: expected a folder that a run of fine_tune left, got "
            f"{self._directory} ({type(error).__name__}: {error})"
        )

    def _files(self) -> list[str]:
        """Names in the folder that files of tensors have."""
        named = re.compile(rf"{_STEM}-\d+\.safetensors", re.ASCII)
        return [each.name for each in self._directory.iterdir() if named.fullmatch(each.name)]


def _file(epochs: int) -> str:
    return f"{_STEM}-{epochs}.safetensors"


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
