"""The same work in several threads at once."""

from __future__ import annotations

import threading


def in_threads(work, count):
    """Runs `work(0)` to `work(count - 1)`, each in a thread of its own, until all are done."""
    workers = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
