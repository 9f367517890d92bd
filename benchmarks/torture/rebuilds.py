"""A folder of photos that changes at random, its index and its site, built again and again.

    python -m benchmarks.torture rebuilds --kills 100 --seed 0

In each round photos are deleted, added, renamed, copied, replaced (also by others of the same size
and time), become strips or break. Then the build of the site, in a process forked from this one,
is killed (SIGKILL) at random moments and started again until it gets through. Whenever it was
killed, the site must be the one of before or the new one, whole. In the end site and index must
equal those that are built anew in another folder, nothing may be left of photos that are gone, not
a name and not a byte of a copy or of features, and the photos must be as they were, to the
nanosecond.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import pyxai
from benchmarks.torture.kills import forked, state
from pyxai.playground import SiteSettings, build
from pyxai.playground.editions import data_folder
from pyxai.playground.server import load_indexes, read_site
from pyxai.runs import photos
from pyxai.search import extraction

COLORS = {"blue": (30, 40, 220), "green": (40, 200, 50), "red": (220, 40, 30)}
SIDE = 24
LEAST = 5  # photos that stay
MOST_KILLS = 8  # of a round


def network() -> pyxai.Classifier:
    """A small network; the same each time."""
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)]
    head = [nn.Conv2d(6, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)]
    steps = pyxai.Preprocessing(resize=SIDE, crop=SIDE, mean=(0, 0, 0), std=(1, 1, 1))
    return pyxai.Classifier(
        nn.Sequential(*body, *head).eval(),
        class_names=tuple(COLORS),
        preprocessing=steps,
        name="squares",
    )


def make(photos: Path, work: Path) -> None:
    """The site and the index of a folder."""
    build(
        network(),
        photos,
        work / "site",
        settings=SiteSettings(
            units=1,
            unit_steps=1,
            crops=1,
            undesirable=0,
            windows=False,
            methods=("auto",),
            maps=("pca",),
            metrics=("cosine",),
            layers=["1", "4"],
        ),
        index=work / "index",
        allow_removal=True,
        progress=False,
    )


@dataclass
class Folder:
    """Photos that change.

    Attributes:
        path: the folder.
        draw: of what is done to it.
        gone: the names of files that are no more; none is given twice.
        count: of files so far.
    """

    path: Path
    draw: random.Random
    gone: list[bytes] = field(default_factory=list)
    count: int = 0

    def change(self, times: int) -> list[str]:
        """Does some of what people do; says what."""
        kinds = [self.delete, self.replace, self.disguise, self.rename, self.copy]
        kinds += [self.add, self.add_strip, self.add_broken]
        done = []
        for _ in range(times):
            kind = self.draw.choice(kinds)
            if kind(self.draw.choice(self.files())):
                done.append(kind.__name__)
        return done

    def add(self, path: Path | None = None) -> bool:
        """A photo more."""
        self._write(self._new())
        return True

    def add_strip(self, path: Path) -> bool:
        """One that the resize would blow up."""
        Image.new("RGB", (self.draw.choice((3, 4000)), 1), (9, 9, 9)).save(self._new())
        return True

    def add_broken(self, path: Path) -> bool:
        """A file that is no photo."""
        self._new().write_bytes(self.draw.randbytes(20))
        return True

    def delete(self, path: Path) -> bool:
        """A photo less, if there are enough."""
        if len(self.files()) <= LEAST:
            return False
        path.unlink()
        self.gone.append(_trace(path))
        return True

    def replace(self, path: Path) -> bool:
        """Another photo of the same name."""
        self._write(path)
        return True

    def disguise(self, path: Path) -> bool:
        """Another photo of the same name, size and time."""
        before = path.stat()
        self._write(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return path.stat().st_size == before.st_size

    def rename(self, path: Path) -> bool:
        """Another name, maybe another class."""
        path.rename(self._new())
        self.gone.append(_trace(path))
        return True

    def copy(self, path: Path) -> bool:
        """The same photo under another name as well."""
        shutil.copy2(path, self._new())
        return True

    def files(self) -> list[Path]:
        """All there are."""
        return sorted(path for path in self.path.rglob("*") if path.is_file())

    def _new(self) -> Path:
        self.count += 1
        folder = self.path / self.draw.choice(list(COLORS))
        folder.mkdir(parents=True, exist_ok=True)
        odd = os.fsdecode(b"\xe9") if self.draw.random() < 0.1 else ""
        return folder / f"photo{odd}-{self.count:06d}-.bmp"

    def _write(self, path: Path) -> None:
        """Without compression: all are of one size on disk."""
        pixels = np.random.default_rng(self.draw.getrandbits(32)).integers(0, 256, (30, 36, 3))
        pixels[4:-4, 4:-4] = COLORS.get(path.parent.name, (99, 99, 99))
        pixels[8:16] = self.draw.getrandbits(7)
        Image.fromarray(pixels.astype(np.uint8)).save(path, "BMP")


def _trace(path: Path) -> bytes:
    """What tells a file's name wherever it stands: the number in it."""
    found = re.search(r"-\d{6}-", path.name)
    assert found is not None
    return found[0].encode()


# ---- killing ----


def torture(kills: int, seed: int, say: Callable[[str], object] = print) -> dict[str, int]:
    """Rounds of changes and builds until so many builds were killed.

    Returns:
        How many "kills", "rounds", "changes" and "faults" there were.
    """
    torch.set_num_threads(1)  # or a forked process waits for threads that it has not
    draw = random.Random(seed)
    done = {"kills": 0, "rounds": 0, "changes": 0, "faults": 0}
    young, at_once = photos._YOUNG, extraction.images_at_once
    extraction.images_at_once = lambda images: 1  # features then do not depend on other photos
    try:
        with tempfile.TemporaryDirectory() as place:
            _rounds(Path(place), draw, kills, done, say)
    finally:
        photos._YOUNG, extraction.images_at_once = young, at_once
    return done


def _rounds(
    place: Path, draw: random.Random, kills: int, done: dict[str, int], say: Callable[[str], object]
) -> None:
    folder, work, fresh = Folder(place / "photos", draw), place / "work", place / "fresh"
    for _ in range(2 * LEAST):
        folder.add()
    make(folder.path, work)
    old, features = look(work), feature_rows(work)
    traces: set[bytes] = set()
    seconds = 1.0
    while done["kills"] < kills:
        changes = folder.change(draw.randint(1, 5))
        photos._YOUNG = draw.choice((0, 2_000_000_000))
        before = state(folder.path)
        count, seen = _until_done(folder.path, work, seconds, draw)
        shutil.rmtree(fresh, ignore_errors=True)
        start = time.perf_counter()
        make(folder.path, fresh)
        seconds = time.perf_counter() - start
        new = look(fresh)
        traces |= (copies(old) | features) - (copies(new) | feature_rows(fresh))
        traces -= copies(new) | feature_rows(fresh)
        faults = _faults(work, folder, new, traces)
        faults += ["the photos have changed"] * (state(folder.path) != before)
        faults += ["a site that is neither"] * sum(each not in (old, new) for each in seen)
        done["kills"] += count
        done["rounds"] += 1
        done["changes"] += len(changes)
        done["faults"] += len(faults)
        for each in faults:
            say(f"FAULT: round {done['rounds']} ({', '.join(changes)}), {count} kills: {each}")
        if done["rounds"] % 10 == 0:
            say(f"{done['kills']} kills, {done['rounds']} rounds, {done['faults']} faults")
        old, features = new, feature_rows(fresh)
    say(f"{len(folder.gone)} files are gone, {len(traces)} copies and rows of features looked for")


def _until_done(
    photos: Path, work: Path, seconds: float, draw: random.Random
) -> tuple[int, list[dict[str, str]]]:
    """Starts a build until it gets through: how often it was killed, and what visitors saw then."""
    kills, seen = 0, []
    while True:
        process = forked(lambda: make(photos, work))
        if kills < MOST_KILLS:
            time.sleep(draw.random() * seconds)
            process.kill()
        code = process.wait()
        if code == 0:
            return kills, seen
        if code > 0:
            raise SystemExit(f"the build failed after {kills} kills; see above")
        kills += 1
        seen.append(look(work))


# ---- what there is ----


def look(work: Path) -> dict[str, str]:
    """All that visitors see of the site, by name: digests, and copies of photos as they are."""
    read_site(work / "site")
    folder = data_folder(work / "site")
    page = (work / "site" / "index.html").read_bytes().replace(folder.name.encode(), b"")
    found = {"index.html": hashlib.sha256(page).hexdigest()}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and path.name[0] != "." and name != "build.json":
            found[name] = path.read_bytes().hex() if ".jpg" in name else _digest(path)
    return found


def copies(site: dict[str, str]) -> set[bytes]:
    """The small copies of photos in a site."""
    return {bytes.fromhex(data) for name, data in site.items() if "/thumbs/" in name}


def feature_rows(work: Path) -> set[bytes]:
    """The features of each photo of the index, as they stand in files."""
    index = pyxai.ImageIndex.load(work / "index" / "0")
    return {row.numpy().tobytes() for name in ("1", "4") for row in index.features(name)}


def _faults(work: Path, folder: Folder, new: dict[str, str], traces: set[bytes]) -> list[str]:
    """What is wrong with a site and an index after a build that got through."""
    found = []
    site = look(work)
    if site != new:
        names = {name for name in {*site, *new} if site.get(name) != new.get(name)}
        found.append(f"the site differs from one that was built anew: {sorted(names)[:5]}")
    try:
        load_indexes(read_site(work / "site"), network(), work / "index")
    except ValueError as error:
        found.append(str(error))
    left = [str(path.relative_to(work)) for path in work.rglob("*pyxai-part*")]
    left += [str(path.relative_to(work)) for path in work.glob("site/data/.next")]
    left += [str(path.relative_to(work)) for path in [*work.glob("site/data/*")][1:]]
    if left:
        found.append(f"left behind: {left}")
    files = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    there = {_trace(path) for path in folder.files()}
    for path, data in files.items():
        names = {each for each in folder.gone if each not in there and each in data}
        if names or any(each in data for each in traces):
            what = names or "a copy or features"
            found.append(f"{path.relative_to(work)} has {what} of photos that are gone")
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: list[str]) -> int:
    """The command line."""
    summary = "A folder that changes, its index and its site, with builds that are killed."
    parser = argparse.ArgumentParser(
        description=summary, prog="python -m benchmarks.torture rebuilds"
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    done = torture(options.kills, options.seed)
    print(
        f"{done['kills']} SIGKILLs in {done['rounds']} rounds with {done['changes']} changes of "
        f"photos, {done['faults']} faults"
    )
    return min(done["faults"], 1)
