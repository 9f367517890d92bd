"""Kills moves of copies, ways back and searches with a store at any line: is anything lost?

    python -m benchmarks.torture moves [--times 200] [--seed 0] [--step 1] [--folder FOLDER]

Each round makes a folder of photos with copies, links, hard links and odd names, and starts a
process that moves the copies away (in every second round by bytes, as across file systems) and is
killed by SIGKILL at a line of `pyxai`, which rounds spread evenly over all that it runs. Then every
photo must lie, byte for byte, under its old or its new name, and nothing else may lie anywhere. In
some rounds the move is begun anew. Then a process that moves them back is killed, and another moves
the rest back: names, bytes, times and links must be what they were. A search with a store is killed
as well: the next with that store must find what one without it does, and say the same of it.

With `--step` follow rounds with one copy and one kill, at every so manieth line of each kind of
process.

Prints the kills of each kind and the faults; exit code 1 if there are any. Needs fork. Waits for no
disk: a kill, unlike a power cut, leaves what was written.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import pyxai
from pyxai import Classifier, Preprocessing
from pyxai._locks import LOCK
from pyxai.curate.duplicates import find_duplicates, move_back
from pyxai.curate.duplicates.journal import JOURNAL
from pyxai.images import PhotoWarning
from pyxai.runs import working

PACKAGE = str(Path(pyxai.__file__).parent)
WATCHED = ("_files.py", "_locks.py", "_sealed.py", os.path.join("train", "duplicates"))  # noqa: PTH118
NAMES = ("a.png", os.fsdecode(b"b\xff.png"), 'c\n"1,2".png', "d é.png")
KEPT_FROM = 10**18  # nanoseconds


class Network(nn.Module):
    """Describes photos by means of four channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).mean((2, 3)))


# ---- processes that are killed ----


def run(job: Callable[[], object], kill_at: int | None) -> tuple[bool, int]:
    """Runs a job in a process of its own; whether it was killed, and how many lines it ran."""
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        os.close(readable)
        code = 3
        try:
            warnings.simplefilter("ignore", PhotoWarning)
            lines = counted(job, kill_at)
            os.write(writable, str(lines).encode())
            code = 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode("utf-8", "backslashreplace"))
        finally:
            os._exit(code)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True, kill_at or 0
    if os.WEXITSTATUS(status):
        raise RuntimeError("the process ended with an error")
    return False, int(said)


def counted(job: Callable[[], object], kill_at: int | None) -> int:
    """Runs a job; kills this process when the line of that number is about to run."""
    lines = 0

    def trace(frame: Any, event: str, value: object) -> Any:
        nonlocal lines
        if not is_watched(frame.f_code.co_filename):
            return None
        if event == "line":
            lines += 1
            if lines == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)
    try:
        job()
    finally:
        sys.settrace(None)
    return lines


def is_watched(file: str) -> bool:
    return file.startswith(PACKAGE) and file[len(PACKAGE) + 1 :].startswith(WATCHED)


@contextmanager
def far_away(is_far: bool) -> Iterator[None]:
    """No file can have a second name, as if the folders were on two file systems."""
    plain = os.link

    def refuse(*paths: object, **options: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    os.link = refuse if is_far else plain
    try:
        yield
    finally:
        os.link = plain


# ---- folders ----


def scene(seed: int) -> Image.Image:
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(small).resize((48, 36), Image.Resampling.BICUBIC)


def make_photos(root: Path, choose: random.Random, most: int) -> None:
    """Photos, up to so many copies of each, links and hard links, of times of long ago."""
    for part in ("train", "valid"):
        (root / part).mkdir(parents=True)
    for number, name in enumerate(NAMES):
        scene(number).save(root / "train" / name)
        for copy in range(choose.randint(0, most)):
            shutil.copy(root / "train" / name, root / "valid" / f"{copy} {name}")
    shutil.copy(root / "train" / NAMES[1], root / "valid" / "2 more.png")
    (root / "valid" / "link.png").symlink_to(f"../train/{NAMES[0]}")
    (root / "valid" / "hard.png").hardlink_to(root / "train" / NAMES[2])
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        os.utime(path, ns=(0, KEPT_FROM + number), follow_symlinks=False)


def tree(folder: Path) -> dict[str, tuple[object, ...]]:
    """All files and links in a folder: bytes, times, number of names."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        name, status = str(path.relative_to(folder)), path.lstat()
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()), status.st_mtime_ns)
        elif path.is_file():
            found[name] = ("file", path.read_bytes(), status.st_mtime_ns, status.st_nlink)
    return found


# ---- what must hold ----


class Torture:
    """Rounds of kills, counted.

    Attributes:
        kills: how many processes were killed, by kind.
        faults: in words.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.kills: dict[str, int] = {}
        self.faults: list[str] = []
        self._folder, self._seed = folder, seed
        self._lines: dict[object, float] = {}  # that a kind of process runs, by what it has to do
        self._only: tuple[str, int] | None = None  # the kind that is killed, and at which line

    def every_line(self, what: str, step: int, *, far: bool) -> None:
        """Rounds that kill one kind of process at every so manieth line."""
        before, line = -1, 1
        while self.kills.get(what, 0) != before:
            before = self.kills.get(what, 0)
            self._only = (what, line)
            self.round(int(far))
            line += step
        self._only = None

    def round(self, number: int) -> None:
        """One folder, its copies moved away and back, and a search, each killed."""
        work = Path(tempfile.mkdtemp(dir=self._folder))
        where = f"round {number} {self._only or ''}"
        choose = random.Random(self._seed * 1_000_003 + number)
        make_photos(work / "photos", choose, most=0 if self._only else 2)
        try:
            with far_away(number % 2 == 1):
                self._round(number, where, work, choose)
        except (RuntimeError, ValueError, OSError) as error:
            self.faults.append(f"{where}: {type(error).__name__}: {error}")
        shutil.rmtree(work)

    def _round(self, number: int, where: str, work: Path, choose: random.Random) -> None:
        root, away = work / "photos", work / "away"
        before = tree(root)
        if self._only is None or self._only[0] != "search":
            for again in range(1 if self._only else choose.randint(1, 2)):
                found = find_duplicates(root, methods="exact", progress=False)
                job = partial(found.move_copies, away)
                self._kill(number + again / 2, "move_copies", job, len(found.copies))
                self._check(f"{where}, move_copies", root, away, before)
            moved = sum(name.endswith(".png") for name in tree(away))
            self._kill(number, "move_back", lambda: move_back(away) if begun(away) else (), moved)
            self._check(f"{where}, move_back", root, away, before)
            if begun(away):
                move_back(away)
            if set(tree(away)) - {LOCK}:
                self.faults.append(f"{where}: {sorted(tree(away))} left")
        if self._only is None or self._only[0] == "search":
            self._search(number, where, root, work / "store")
        if tree(root) != before:
            self.faults.append(f"{where}: the photos are not what they were")

    def _kill(self, number: float, what: str, job: Callable[[], object], work: int) -> None:
        """Kills a process at a line of its own; the first of a kind tells how many lines it has.

        Args:
            number: of the round; those that follow each other are spread over the lines.
            what: the kind.
            job: what it does.
            work: how many photos it has to do with.
        """
        key = (what, int(number) % 2)
        if self._only is not None:
            line = self._only[1] if self._only[0] == what else None
        elif key in self._lines:
            line = 1 + int(number * 0.6180339887 % 1 * self._lines[key] * (work + 1))
        else:
            line = None
        killed, lines = run(job, line)
        self.kills[what] = self.kills.get(what, 0) + killed
        if line is None:
            self._lines[key] = lines / (work + 1)

    def _check(
        self, where: str, root: Path, away: Path, before: dict[str, tuple[object, ...]]
    ) -> None:
        """Every photo lies under its old or its new name, and nothing else anywhere."""
        here, there = tree(root), tree(away)
        for name, was in before.items():
            if was[:2] not in (here.get(name, ())[:2], there.get(name, ())[:2]):
                self.faults.append(f"{where}: {name!r} is lost")
            if name in here and name not in there and here[name] != was:
                self.faults.append(f"{where}: {name!r} was changed")
        for name in {*here} - {*before} | {*there} - {*before, JOURNAL, LOCK}:
            self.faults.append(f"{where}: {name!r} was left")

    def _search(self, number: int, where: str, root: Path, store: Path) -> None:
        how = Preprocessing((0.5,) * 3, (0.5,) * 3, (24, 32))
        network = Classifier(Network(), preprocessing=how)

        def search(folder: Path | None = store) -> dict[str, Any]:
            return find_duplicates(
                root, network, store=folder, batch_size=1, progress=False
            ).to_dict()

        self._kill(number, "search", search, len(NAMES))
        once, twice, without = search(), search(), search(None)
        if not once == twice == without:
            self.faults.append(f"{where}: a search after a kill finds something else")


def begun(away: Path) -> bool:
    return (away / LOCK).exists()


@contextmanager
def prepared() -> Iterator[None]:
    """Processes that may be forked, do not wait for the disk, and often write features."""
    threads, plain, shard = torch.get_num_threads(), os.fsync, working._MOST
    torch.set_num_threads(1)
    os.fsync = lambda file: None
    working._MOST = 2
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PhotoWarning)
            yield
    finally:
        torch.set_num_threads(threads)
        os.fsync, working._MOST = plain, shard


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=200, help="rounds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--step", type=int, default=0, help="then every so manieth line; 0, none")
    parser.add_argument("--folder", type=Path, help="for the photos; by default a temporary one")
    options = parser.parse_args(argv)
    with prepared(), tempfile.TemporaryDirectory(dir=options.folder) as folder:
        torture = Torture(Path(folder), options.seed)
        for number in range(options.times):
            torture.round(number)
        for what in ("move_copies", "move_back", "search") if options.step else ():
            for far in (False, True) if what != "search" else (False,):
                step = options.step * (16 if what == "search" else 1)  # it has thousands
                torture.every_line(what, step, far=far)
    killed = ", ".join(f"{count} of {what}" for what, count in sorted(torture.kills.items()))
    for fault in torture.faults:
        print(fault.encode("utf-8", "backslashreplace").decode())
    print(f"{options.times} rounds; kills: {killed}; {len(torture.faults)} faults")
    return int(bool(torture.faults))


if __name__ == "__main__":
    sys.exit(main())
