"""The functions of torch that one thread calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode


class FunctionCalls(TorchFunctionMode):
    """Within the block, every call of a function of torch by this thread goes through `called`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return self.called(func, args, dict(kwargs or {}))

    def called(self, function: Any, args: Sequence[Any], named: dict[str, Any]) -> Any:
        """What the call gives; a derived class may look on, or do something in its place."""
        return function(*args, **named)
