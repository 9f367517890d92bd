"""Jobs that are killed at random moments and started again: the result is as if nothing had been.

    python -m benchmarks.torture kills --kills 500 --seed 0

Each job runs in a process forked from this one, which kills it (SIGKILL) after a random part of
the time that it takes, and starts it again in the same folder until it gets through. Then what it
wrote must equal what a run without kills wrote, no half-written file may lie about, and the photos
must be as they were, to the byte and the nanosecond.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

import pyxai
from pyxai.cli import main as command_line
from pyxai.novelty import NoveltyDetector
from pyxai.runs import working
from pyxai.zoo import load_classifier

COLORS = {"blue": (30, 40, 220), "green": (40, 200, 50), "red": (220, 40, 30)}
SIDE = 48


def network() -> pyxai.Classifier:
    """A small network for photos of coloured squares; the same each time."""
    torch.manual_seed(0)
    body = [
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(),
    ]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)]
    plain = pyxai.Preprocessing(resize=(SIDE, SIDE), mean=(0, 0, 0), std=(1, 1, 1))
    return pyxai.Classifier(
        nn.Sequential(*body, *head).eval(),
        class_names=tuple(COLORS),
        preprocessing=plain,
        name="squares",
    )


def photos(folder: Path, count: int = 8) -> None:
    """A folder for each colour, some of whose photos are copies of others; one is no photo."""
    for color, rgb in COLORS.items():
        (folder / color).mkdir(parents=True)
        for number in range(count):
            draw = np.random.default_rng(number % (count - 2))
            pixels = draw.integers(0, 256, (SIDE + 8, SIDE + 16, 3), np.uint8)
            for top in range(2, SIDE, 12):
                pixels[top : top + 8, 4:-4] = rgb
            Image.fromarray(pixels).save(folder / color / f"{number}.png")
    (folder / "red" / "broken.jpg").write_bytes(b"no photo")


# ---- the jobs: what is done, and what came of it ----


def _gallery(folder: Path, work: Path) -> None:
    working._FIRST = working._MOST = 3
    gallery = pyxai.ClassGallery(network(), 24, stride=8, clusters=2)
    gallery.fit(folder, checkpoint=work / "run", progress=False).page(work / "gallery")


def _gallery_result(work: Path) -> Any:
    gallery = pyxai.ClassGallery.load(work / "gallery")
    crops = {
        name: [(crop.name, crop.box, crop.score) for crop in gallery[name]] for name in gallery
    }
    pictures = [crop.picture().tobytes().hex() for name in gallery for crop in gallery[name]]
    features = [gallery.features(name).tolist() for name in gallery]
    return crops, features, _digest(pictures), gallery.to_dict()


def _shap(folder: Path, work: Path) -> None:
    found = pyxai.shap_summary(
        network(), folder, grid=3, samples=8, checkpoint=work / "run", progress=False
    )
    found.save(work / "summary")


def _train(folder: Path, work: Path) -> None:
    pyxai.fine_tune(
        network(),
        folder,
        epochs=3,
        batch_size=8,
        unfreeze="all",
        checkpoint=work / "run",
        out=work / "tuned.safetensors",
        progress=False,
    )


def _audit(folder: Path, work: Path) -> None:
    pyxai.audit(network(), folder, progress=False).save(work / "audit")


def _explain(folder: Path, work: Path) -> None:
    sys.argv = ["pyxai", "explain", str(folder), "-o", str(work / "out"), "--json"]
    nowhere = io.StringIO()
    with (
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
        contextlib.suppress(SystemExit),  # 1, as one is no photo
    ):
        command_line()


def _explain_result(work: Path) -> Any:
    found = {}
    for path in sorted((work / "out").glob("*.json")):
        record = json.loads(path.read_text())
        record.pop("seconds")
        found[path.name] = record
    pictures = {path.name: _digest(path.read_bytes()) for path in (work / "out").glob("*.png")}
    return found, sorted(pictures.items())


def _novelty(folder: Path, work: Path) -> None:
    detector = NoveltyDetector(network(), method="knn", seed=0)
    detector.fit([folder / "red", folder / "blue"])
    detector.save(work / "head.safetensors")


def _duplicates(folder: Path, work: Path) -> None:
    found = pyxai.find_duplicates(folder, network(), store=work / "store", progress=False)
    found.save(work / "duplicates.json")
    found.save(work / "duplicates.csv")


def _index(folder: Path, work: Path) -> None:
    pyxai.ImageIndex.build(network(), folder, directory=work / "index", progress=False)


def _index_result(work: Path) -> Any:
    index = pyxai.ImageIndex.load(work / "index")
    rows = [(each.path, each.width, each.height, each.label) for each in index.photos]
    answer = index.search(list(range(len(index))), n_neighbors=3, metric="cosine")
    return rows, [each.to_dict()["results"] for each in answer]


def _files(work: Path) -> Any:
    """All files that a job wrote for people, to the byte."""
    listed = sorted(path for path in work.rglob("*") if path.is_file())
    kept = [path for path in listed if path.name[0] != "." and "run" not in path.parts]
    return [
        (str(path.relative_to(work)), _digest(path.read_bytes()))
        for path in kept
        if "store" not in path.parts
    ]


JOBS: dict[str, tuple[Callable[[Path, Path], None], Callable[[Path], Any]]] = {
    "audit": (_audit, _files),
    "duplicates": (_duplicates, _files),
    "gallery": (_gallery, _gallery_result),
    "index": (_index, _index_result),
    "novelty": (_novelty, _files),
    "shap": (_shap, _files),
    "explain": (_explain, _explain_result),
    "train": (_train, _files),
}


# ---- killing them ----


def torture(kills: int, seed: int, say: Callable[[str], object] = print) -> dict[str, int]:
    """Kills each job so often, in turn, until so many kills are done.

    Returns:
        How many "kills", "runs" that got through after some, and "faults" there were.
    """
    torch.set_num_threads(1)  # or a forked process waits for threads that it has not
    load_classifier("demo")
    draw = random.Random(seed)
    done = {"kills": 0, "runs": 0, "faults": 0}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "photos"
        photos(folder)
        before = state(folder)
        (Path(place) / "first").mkdir()
        expected: dict[str, tuple[str, float]] = {}
        for name, (job, _) in JOBS.items():
            job(folder, Path(place) / "first")  # what is imported late is there for all that follow
            start = time.perf_counter()
            work = Path(place) / f"plain {name}"
            _start(name, folder, work).wait()
            expected[name] = _digest(JOBS[name][1](work)), time.perf_counter() - start
            say(f"{name}: {expected[name][1]:.2f} s without kills")
        while done["kills"] < kills:
            for name in JOBS:
                work = Path(place) / f"{name} {done['runs']}"
                count = _until_done(name, folder, work, expected[name][1], draw)
                done["kills"] += count
                done["runs"] += 1
                faults = _faults(name, folder, work, before, expected[name][0])
                done["faults"] += len(faults)
                for each in faults:
                    say(f"FAULT: {name} after {count} kills: {each}")
            say(f"{done['kills']} kills, {done['runs']} runs, {done['faults']} faults")
    return done


class Process:
    """One that was forked from this one."""

    def __init__(self, number: int) -> None:
        self.number = number

    def wait(self) -> int:
        """Until it ends; how, as a signal below zero or an exit code."""
        return os.waitstatus_to_exitcode(os.waitpid(self.number, 0)[1])

    def ends(self, seconds: float) -> bool:
        """Whether it ends by itself within this time; it is not waited for."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if os.waitid(os.P_PID, self.number, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return True
            time.sleep(0.01)
        return False

    def kill(self) -> None:
        os.kill(self.number, signal.SIGKILL)


def forked(job: Callable[[], object]) -> Process:
    """Does a job in a process that is forked from this one; its exit code is 0 or 1."""
    number = os.fork()
    if number:
        return Process(number)
    code = 1
    # The bars' lock is shared with those that were killed, perhaps while they held it.
    tqdm.set_lock(threading.RLock())
    try:
        job()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _start(name: str, folder: Path, work: Path) -> Process:
    work.mkdir(exist_ok=True)
    return forked(lambda: JOBS[name][0](folder, work))


def _until_done(name: str, folder: Path, work: Path, seconds: float, draw: random.Random) -> int:
    """Starts a job until it gets through; how often it was killed."""
    kills = 0
    while True:
        process = _start(name, folder, work)
        # The last time it may take as long as it wants; but a process that is forked from one with
        # threads may wait for one of them for ever, and is killed then as well.
        time.sleep(draw.random() * seconds if kills < 8 else 0)
        if kills < 8 or not process.ends(60 + 20 * seconds):
            process.kill()
        code = process.wait()
        if code == 0:
            return kills
        if code > 0:
            raise SystemExit(f"{name} failed after {kills} kills; see above")
        kills += 1


def _faults(name: str, folder: Path, work: Path, before: Any, expected: str) -> list[str]:
    found = []
    if state(folder) != before:
        found.append("the photos have changed")
    if _digest(JOBS[name][1](work)) != expected:
        found.append("the result differs")
    left = [str(path.relative_to(work)) for path in work.rglob("*pyxai-part*")]
    if left:
        found.append(f"half-written files: {left}")
    return found


def state(folder: Path) -> list[tuple[str, str, int, int]]:
    """All that can be seen of a folder: names, contents, times and kinds of files."""
    found = []
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else ""
        if path.is_file() and not path.is_symlink():
            content = _digest(path.read_bytes())
        name = str(path.relative_to(folder))
        found.append((name, content, status.st_mtime_ns, status.st_mode))
    return found


def _digest(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.torture kills")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    done = torture(options.kills, options.seed)
    print(f"{done['kills']} SIGKILLs, {done['runs']} results compared, {done['faults']} faults")
    return min(done["faults"], 1)
