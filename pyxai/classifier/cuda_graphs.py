"""Work that is recorded once and replayed: CUDA graphs, and a cache of them by shape of input.

A graph replays launches on fixed addresses, without the Python and the host code between them.
So inputs are copied into tensors that stay, and outputs out of them.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from pyxai._precision import is_autocast

_WARM_UPS = 3  # calls before recording: libraries choose algorithms and workspaces in the first
_SEEN = 64  # shapes remembered that came only once
_recording = threading.Lock()


class CannotRecord(RuntimeError):
    """The work cannot be replayed; the cause says why."""


class Recorded(Protocol):
    """Work that was recorded.

    Attributes:
        output: what the work returned; every replay writes into the same tensors.
    """

    output: Any

    def wait(self) -> None:
        """Lets the caller's stream wait for the last use on any other."""

    def replay(self) -> None:
        """Does the work again, on what its input tensors hold now."""

    def used(self) -> None:
        """Notes that what the caller's stream does with the tensors is queued."""

    def close(self) -> None:
        """Waits until the last use is over, so that the memory may go."""


def has_graphs(device: torch.device) -> bool:
    """Whether work on the device can be recorded."""
    return device.type == "cuda"


class _Graph:
    def __init__(self, graph: torch.cuda.CUDAGraph, output: Any, device: torch.device) -> None:
        self.output = output
        self._graph, self._device = graph, device
        self._last = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.used()

    def wait(self) -> None:
        torch.cuda.current_stream(self._device).wait_event(self._last)

    def replay(self) -> None:
        self._graph.replay()

    def used(self) -> None:
        self._last.record(torch.cuda.current_stream(self._device))

    def close(self) -> None:
        self._last.synchronize()


def record(work: Callable[[], Any], device: torch.device) -> Recorded:
    """Runs some work a few times on a stream of its own, then records it, with a pool of its own.

    Args:
        work: launches on the current stream only, always the same, and never waits for the device.
        device: the CUDA device it runs on.

    Raises:
        CannotRecord: the work ran, but cannot be captured.
        Exception: what the work itself raises when it runs.
    """
    with _recording, torch.cuda.device(device):
        current = torch.cuda.current_stream()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                work()
        current.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may meanwhile do what is forbidden while this one records.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                output = work()
        except Exception as error:
            _mend(current)
            raise CannotRecord(f"{type(error).__name__}: {error}") from error
        return _Graph(graph, output, device)


def _mend(current: torch.cuda.Stream) -> None:
    """Puts back what torch leaves changed when a capture fails: the stream, and the generator.

    The generator refuses to draw until a capture has ended well ("Offset increment outside graph
    capture"), so one does.
    """
    torch.cuda.set_stream(current)
    with contextlib.suppress(RuntimeError):
        one = torch.zeros(1, device=current.device, dtype=torch.float32)
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(current)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            one.add_(1)
    torch.cuda.set_stream(current)


@dataclass
class _Entry:
    recorded: Recorded
    inputs: torch.Tensor
    addresses: list[int]  # of the weights


class Replays:
    """Functions of a network and one tensor of images, replayed by shape; for several threads.

    A shape is recorded when it comes for the second time. Calls run as they would without this
    where they need gradients, are watched by hooks, are autocast, compiled or being recorded by
    someone else, where another thread replays, and where the work cannot be recorded.
    Weights may change in place; when their memory moves, the recordings go. Copies start empty.

    Args:
        network: whose hooks are known so far.
        most: how many recordings are kept; each holds the memory of its activations.
    """

    def __init__(self, network: nn.Module | None, *, most: int = 4) -> None:
        self._most = most
        self._own_hooks = 0 if network is None else _count_hooks(list(network.modules()))
        self._lock = threading.Lock()
        self._modules: list[nn.Module] = []
        self._weights: list[torch.Tensor] = []
        self._entries: OrderedDict[Hashable, _Entry | None] = OrderedDict()  # None: cannot be
        self._seen: OrderedDict[Hashable, None] = OrderedDict()

    def __deepcopy__(self, memo: dict[int, Any]) -> Replays:
        return _revive(self._most, self._own_hooks)

    def __reduce__(self) -> Any:
        return _revive, (self._most, self._own_hooks)

    def __call__(
        self,
        network: nn.Module,
        name: Hashable,
        function: Callable[[torch.Tensor], Any],
        images: torch.Tensor,
    ) -> Any:
        """What `function(images)` returns, its tensors of their own memory.

        Args:
            network: what the function runs; always the same.
            name: of the function, as part of the key.
            function: returns tensors, or tuples, lists and dictionaries of them.
            images: the input.

        Raises:
            Exception: what the function raises.
        """
        if not has_graphs(images.device) or self._is_busy_with_more(images):
            return function(images)
        if not self._lock.acquire(blocking=False):
            return function(images)
        try:
            key = (name, images.shape, images.stride(), images.dtype, images.device)
            entry = self._entry(network, key, function, images)
            if entry is not None:
                return self._replay(entry, images)
        finally:
            self._lock.release()
        return function(images)

    def _is_busy_with_more(self, images: torch.Tensor) -> bool:
        if torch.is_grad_enabled() and images.requires_grad:
            return True
        if torch.compiler.is_compiling() or is_autocast(images.device.type):
            return True
        return images.is_cuda and torch.cuda.is_current_stream_capturing()

    def _entry(
        self,
        network: nn.Module,
        key: Hashable,
        function: Callable[[torch.Tensor], Any],
        images: torch.Tensor,
    ) -> _Entry | None:
        """The recording, made now if it is time; None where there is none."""
        if not self._modules:
            self._modules = list(network.modules())
            self._weights = [*network.parameters(), *network.buffers()]
        if _count_hooks(self._modules) != self._own_hooks:
            return None
        if torch.is_grad_enabled() and any(weight.requires_grad for weight in self._weights):
            return None
        if key in self._entries:
            entry = self._entries[key]
            self._entries.move_to_end(key)
            if entry is None or entry.addresses == [each.data_ptr() for each in self._weights]:
                return entry
            self._clear()  # the network was moved
        if key not in self._seen:
            self._seen[key] = None
            if len(self._seen) > _SEEN:
                self._seen.popitem(last=False)
            return None
        del self._seen[key]
        while len(self._entries) >= self._most:
            _, oldest = self._entries.popitem(last=False)
            if oldest is not None:
                oldest.recorded.close()
        self._entries[key] = entry = self._record(function, images)
        return entry

    def _clear(self) -> None:
        for entry in self._entries.values():
            if entry is not None:
                entry.recorded.close()
        self._entries.clear()

    def _record(
        self, function: Callable[[torch.Tensor], Any], images: torch.Tensor
    ) -> _Entry | None:
        # Inference tensors could not be written to by later calls outside inference mode.
        with torch.inference_mode(False), torch.no_grad():
            inputs = torch.empty_like(images).copy_(images)
            try:
                recorded = record(lambda: function(inputs), images.device)
                clone(recorded.output)
            except CannotRecord as error:
                warn_of(error)
                return None
        return _Entry(recorded, inputs, [each.data_ptr() for each in self._weights])

    def _replay(self, entry: _Entry, images: torch.Tensor) -> Any:
        with torch.inference_mode(False), torch.no_grad():
            entry.recorded.wait()
            entry.inputs.copy_(images)
            entry.recorded.replay()
            output = clone(entry.recorded.output)
            entry.recorded.used()
        return output


def warn_of(error: CannotRecord) -> None:
    """Says that the work goes on without a graph, and why."""
    reason = str(error).splitlines()[0] if str(error) else "unknown"
    warnings.warn(
        f"graphs: the work cannot be recorded as a CUDA graph and runs without ({reason})",
        RuntimeWarning,
        stacklevel=3,
    )


def clone(value: Any) -> Any:
    """The same containers with copies of the tensors.

    Raises:
        CannotRecord: something in it may hold tensors that are not seen here.
    """
    if isinstance(value, torch.Tensor):
        return value.clone()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        items = [clone(each) for each in value]
        return value._make(items) if hasattr(value, "_make") else type(value)(items)
    if isinstance(value, dict):
        result = copy.copy(value)  # of Hugging Face's kind too, whose items are attributes
        for name, each in value.items():
            result[name] = clone(each)
        return result
    raise CannotRecord(f"an output of type {type(value).__name__}, which may hide tensors")


def _count_hooks(modules: list[nn.Module]) -> int:
    return sum(
        len(module._forward_hooks)
        + len(module._forward_pre_hooks)
        + len(module._backward_hooks)
        + len(module._backward_pre_hooks)
        for module in modules
    )


def _revive(most: int, own_hooks: int) -> Replays:
    replays = Replays(None, most=most)
    replays._own_hooks = own_hooks
    return replays
