"""Files that are damaged in many ways and read again: an error, or the same contents.

    python -m benchmarks.torture files --cases 5000 --seed 0

One of each kind of file that pyxai writes is made; then each case damages a copy of it and reads
that in another process. What comes of it is one of: an error that names the file or its folder
("error"), the same contents ("same"), other contents ("OTHER"), an error of other words
("UNCLEAR"), an end by a signal ("CRASH") or none within three minutes ("HANG"). The last four are
faults.

A new kind of file is a line of `KINDS`: how it is made in an empty folder, and what reading gives.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import queue
import random
import subprocess
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import pyxai
from benchmarks.torture._process import python
from benchmarks.torture.kills import network, photos
from pyxai.novelty import NoveltyDetector
from pyxai.zoo import load_classifier, save_classifier

FAULTS = ("OTHER", "UNCLEAR", "CRASH", "HANG")
_PATIENCE = 180.0  # seconds for one case, or for the first to begin


class Kind(NamedTuple):
    """A kind of file, or of folder of files."""

    make: Callable[[Path], None]
    read: Callable[[Path], Any]


# ---- what pyxai writes ----


def _make_classifier(folder: Path) -> None:
    save_classifier(network(), folder / "net.safetensors")


def _read_classifier(folder: Path) -> Any:
    plain = network().network
    found = load_classifier(folder / "net.safetensors", architecture=plain)
    return found.class_names, repr(found.preprocessing), _state(found.network)


def _detector(method: str) -> Kind:
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(120, 8)).astype(np.float32)
    clf = None if method in ("iforest", "ocsvm", "lof", "knn", "logistic") else network()
    images = torch.rand(40, 3, 24, 24, generator=torch.Generator().manual_seed(0))

    def make(folder: Path) -> None:
        detector = NoveltyDetector(clf, method=method, seed=0)
        novel = rows[:20] + 4 if method == "logistic" else None
        detector.fit(rows if clf is None else images, novel)
        detector.save(folder / "head.safetensors")

    def read(folder: Path) -> Any:
        found = NoveltyDetector.load(folder / "head.safetensors", clf)
        scores = found.score_samples(rows if clf is None else images).tolist()
        return scores, found.threshold_, found.n_known_, repr(found.get_params())

    return Kind(make, read)


def _fine_tuned(folder: Path) -> Any:
    """With the photos beside it, which are no part of the checkpoint."""
    place = folder.parent / "photos"
    if not place.exists():
        photos(place, 4)
    options: dict[str, Any] = {"epochs": 2, "batch_size": 8, "early_stopping": 5}
    return pyxai.fine_tune(
        network(), place, checkpoint=folder / "run", progress=False, seed=0, **options
    )


def _read_checkpoint(folder: Path) -> Any:
    found = _fine_tuned(folder)  # nothing is left to do: all of it is read
    return found.to_dict(), _state(found.classifier.network)


def _make_gallery(folder: Path) -> None:
    photos(folder.parent / "photos of gallery", 4)
    gallery = pyxai.ClassGallery(network(), 24, stride=8, clusters=2)
    gallery.fit(folder.parent / "photos of gallery", progress=False).save(folder / "gallery")


def _read_gallery(folder: Path) -> Any:
    found = pyxai.ClassGallery.load(folder / "gallery")
    crops = {name: [(each.name, each.box, each.score) for each in found[name]] for name in found}
    pictures = [_hash(each.picture().tobytes()) for name in found for each in found[name]]
    return crops, pictures, [found.features(name).tolist() for name in found]


def _state(module: torch.nn.Module) -> dict[str, str]:
    """Digests of the weights."""
    state = module.state_dict().items()
    return {name: _hash(np.ascontiguousarray(each.cpu().numpy()).tobytes()) for name, each in state}


KINDS: dict[str, Kind] = {
    "classifier": Kind(_make_classifier, _read_classifier),
    "training checkpoint": Kind(lambda folder: _fine_tuned(folder), _read_checkpoint),
    "gallery": Kind(_make_gallery, _read_gallery),
    **{
        f"detector {method}": _detector(method)
        for method in ("knn", "logistic", "mahalanobis", "vim", "energy", "iforest", "ocsvm", "lof")
    },
}


# ---- damage ----


def damaged(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    """Content that is not as it was, and how that came."""
    data = bytearray(content)
    size = len(data)
    start = draw.randrange(min(size, 3000) if draw.random() < 0.5 else size) if size else 0
    length = 1 << draw.randrange(13)
    way = draw.choice(("bit", "bytes", "cut", "zeros", "swap", "twice", "lost", "append"))
    piece = bytes(data[start : start + length])
    if way == "bit" and size:
        data[start] ^= 1 << draw.randrange(8)
    elif way == "bytes":
        data[start : start + length] = draw.randbytes(len(piece))
    elif way == "cut":
        del data[start:]
    elif way == "zeros":
        data[start : start + length] = bytes(len(piece))
    elif way == "swap" and size:
        other = draw.randrange(size)
        data[start : start + length], data[other : other + length] = (
            data[other : other + length],
            piece,
        )
    elif way == "twice":
        data[start:start] = piece
    elif way == "lost":
        del data[start : start + length]
    else:
        data += draw.randbytes(length)
    return way, bytes(data)


# ---- one process that reads ----


def work(place: Path, kinds: list[str], seed: int, start: int, stop: int) -> Iterator[str]:
    """Runs cases; yields a line of JSON before and after each."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for number in range(start, stop):
        kind = kinds[number % len(kinds)]
        yield json.dumps({"case": number, "kind": kind})
        folder, expected = _made(place, kind)
        draw = random.Random(f"{seed} {number}")
        files = sorted(each for each in folder.rglob("*") if each.is_file())
        path = draw.choice([each for each in files if each.stat().st_size])
        content = path.read_bytes()
        way, other = damaged(content, draw)
        path.unlink()  # a new file: the old one may be mapped
        path.write_bytes(other)
        what, said = _outcome(kind, folder, expected)
        path.unlink()
        path.write_bytes(content)
        name = str(path.relative_to(folder))
        yield json.dumps({"case": number, "what": what, "file": name, "way": way, "said": said})


def _made(place: Path, kind: str) -> tuple[Path, str]:
    """The folder of a kind, and what reading it gives; each worker has one of its own."""
    folder = place / f"{os.getpid()}" / kind
    if not folder.exists():
        folder.mkdir(parents=True)
        KINDS[kind].make(folder)
        folder.with_suffix(".expected").write_text(_digest(KINDS[kind].read(folder)))
    return folder, folder.with_suffix(".expected").read_text()


def _outcome(kind: str, folder: Path, expected: str) -> tuple[str, str]:
    try:
        found = _digest(KINDS[kind].read(folder))
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        clear = isinstance(error, (ValueError, OSError)) and str(folder) in said
        return "error" if clear else "UNCLEAR", said[:300]
    return "same" if found == expected else "OTHER", ""


def _digest(value: Any) -> str:
    return _hash(json.dumps(value, sort_keys=True, default=str).encode())


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


# ---- the process that watches it ----


def watched(command: Callable[[int], list[str]], count: int) -> Iterator[dict[str, Any]]:
    """Runs cases in other processes; a new one takes the next case when one has ended.

    Args:
        command: Python's arguments for a worker that starts at a case and prints a line before
            and a line after each.
        count: how many cases there are.

    Yields:
        What came of each case.
    """
    case = 0
    while case < count:
        process = python(*command(case))
        lines: queue.Queue[str] = queue.Queue()
        reader = threading.Thread(target=_forward, args=(process, lines), daemon=True)
        reader.start()
        started: dict[str, Any] = {"case": case, "kind": "none"}
        end = "CRASH"
        while True:
            try:
                line = lines.get(timeout=_PATIENCE)
            except queue.Empty:
                end = "HANG"
                process.kill()
                break
            if not line:
                break
            record = json.loads(line)
            if "what" in record:
                yield started | record
                case = record["case"] + 1
            else:
                started = record
        reader.join()
        code = process.wait()
        if code > 0:
            raise RuntimeError(f"a worker ended with exit code {code}")
        if case < count:
            yield started | {"what": end, "file": "", "way": "", "said": f"signal {-code}"}
            case = started["case"] + 1


def _forward(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            lines.put(line)
    lines.put("")


def torture(
    cases: int, seed: int, kinds: list[str], say: Callable[[str], object] = print
) -> dict[str, Counter[str]]:
    """Damages and reads; how often what came of it, for each kind."""
    found: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    with tempfile.TemporaryDirectory() as place:

        def command(start: int) -> list[str]:
            plan = json.dumps([place, kinds, seed, start, cases])
            return ["-m", "benchmarks.torture", "files", "--worker", plan]

        for each in watched(command, cases):
            found[each["kind"]][each["what"]] += 1
            if each["what"] in FAULTS:
                words = ("kind", "file", "way", "said")
                said = ", ".join(str(each[word]) for word in words)
                say(f"{each['what']}: case {each['case']}, {said}")
    return found


def table(found: dict[str, Counter[str]]) -> str:
    """The counts as text."""
    columns = ("error", "same", *FAULTS)
    width = max(map(len, found))
    lines = [" " * width + "".join(f"{each:>9}" for each in columns)]
    total: Counter[str] = Counter()
    for kind, counts in found.items():
        lines.append(f"{kind:{width}}" + "".join(f"{counts[each]:9}" for each in columns))
        total += counts
    lines.append(f"{'all':{width}}" + "".join(f"{total[each]:9}" for each in columns))
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.torture files")
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        place, kinds, seed, start, stop = json.loads(options.worker)
        for line in work(Path(place), kinds, seed, start, stop):
            print(line, flush=True)
        return 0
    found = torture(options.cases, options.seed, options.kinds)
    print(table(found))
    return int(any(counts[each] for counts in found.values() for each in FAULTS))
