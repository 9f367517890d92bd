"""Work for requests, in a few threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

Result = TypeVar("Result")


class Jobs:
    """Runs a few jobs at a time; more wait without a thread, and hold nothing once given up.

    A job cannot be stopped: one whose request was given up still counts until it is done.
    """

    def __init__(self, at_once: int) -> None:
        self._threads = ThreadPoolExecutor(at_once, "job")
        self._free = asyncio.Semaphore(at_once)

    async def run(self, job: Callable[[], Result]) -> Result:
        """What the job gives, or raises."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()

        def done(_: Future[Result]) -> None:
            with suppress(RuntimeError):  # the server has ended meanwhile
                loop.call_soon_threadsafe(self._free.release)

        future = self._threads.submit(job)
        future.add_done_callback(done)
        return await asyncio.wrap_future(future)
