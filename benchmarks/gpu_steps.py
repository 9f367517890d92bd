"""Steps of a long run: each with a share of the time, and none that stops the others by failing."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """A program to run.

    Attributes:
        name: for `--only` and the report.
        command: its arguments; none if it cannot run, `why_not` says why.
        share: of the time, among the shares of the steps that are left.
        environment: variables to add.
        output: the file that it writes, read for the report.
    """

    name: str
    command: Sequence[str] | None
    share: float
    environment: dict[str, str] = field(default_factory=dict)
    output: Path | None = None
    why_not: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a step went; `state` is passed, failed, timed out or skipped."""

    name: str
    state: str
    seconds: float
    detail: str = ""


def chosen(steps: Sequence[Step], only: Sequence[str]) -> list[Step]:
    """The steps of these names, all if there are none.

    Raises:
        ValueError: there is no step of a name.
    """
    names = [step.name for step in steps]
    unknown = [name for name in only if name not in names]
    if unknown:
        raise ValueError(f"--only: expected some of {', '.join(names)}, got {unknown[0]!r}")
    return [step for step in steps if not only or step.name in only]


def run_all(
    steps: Sequence[Step],
    seconds: float,
    folder: Path,
    after_each: Callable[[list[Outcome]], None] = lambda outcomes: None,
) -> list[Outcome]:
    """Runs the steps in turn; time that one does not use is there for the next.

    Args:
        steps: in the order of their worth: the time may end before they do.
        seconds: for all of them.
        folder: of the repository.
        after_each: is told the outcomes so far.
    """
    outcomes: list[Outcome] = []
    end = time.monotonic() + seconds
    for number, step in enumerate(steps):
        left = max(0.0, end - time.monotonic())
        limit = left * step.share / sum(other.share for other in steps[number:])
        outcomes.append(run(step, limit, folder))
        after_each(outcomes)
    return outcomes


def run(step: Step, limit: float, folder: Path) -> Outcome:
    """Runs one step for at most so many seconds; its output is shown as it comes."""
    if step.command is None:
        return Outcome(step.name, "skipped", 0.0, step.why_not)
    if limit < 1:
        return Outcome(step.name, "skipped", 0.0, "no time was left")
    print(f"== {step.name} (at most {limit:.0f} s): {' '.join(step.command)}", flush=True)
    start, tail = time.monotonic(), Tail()
    try:
        process = subprocess.Popen(
            step.command,
            cwd=folder,
            env={**os.environ, **step.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # so that what it started can be ended with it
        )
    except OSError as error:
        return Outcome(step.name, "failed", 0.0, str(error))
    reader = tail.follow(process)
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join(5)
        return Outcome(step.name, "timed out", time.monotonic() - start, tail.text())
    reader.join(5)
    state = "passed" if code == 0 else "failed"
    detail = tail.summary() if code == 0 else f"exit code {code}\n{tail.text()}"
    return Outcome(step.name, state, time.monotonic() - start, detail)


class Tail:
    """The last lines of a program."""

    def __init__(self, most: int = 30) -> None:
        self._lines: list[str] = []
        self._most = most

    def follow(self, process: subprocess.Popen[str]) -> threading.Thread:
        """Reads and shows what the program says, in a thread."""

        def read() -> None:
            if process.stdout is None:
                return
            with process.stdout as lines:
                for line in lines:
                    print(line, end="", flush=True)
                    self._lines = [*self._lines, line.rstrip()][-self._most :]

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread

    def text(self) -> str:
        """The lines."""
        return "\n".join(self._lines)

    def summary(self) -> str:
        """The last line that says something."""
        return next((line for line in reversed(self._lines) if line.strip()), "")
