"""Files in which somebody changed numbers on purpose, digests and all: no process ends by a signal.

    python -m benchmarks.torture mutants --cases 3000 --seed 0

Exported programs and detectors are taken apart; one number, text, array or tensor is made another;
what was put together again is loaded and used in another process. An error or any answer will do
("error", "answer"); an end by a signal ("CRASH") or none within three minutes ("HANG") will not.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import random
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export.pt2_archive import PT2ArchiveReader, PT2ArchiveWriter

from benchmarks.torture.files import watched
from pyxai._sealed import load_tensors, save_tensors
from pyxai.novelty import NoveltyDetector
from pyxai.zoo import load_classifier

FAULTS = ("CRASH", "HANG")
_MEMORY = 12 << 30
_INTEGERS = (
    *(0, 1, 2, 3, 7, -1, -2, -3, 100, 255, 256, 10**6),
    *(2**31 - 1, 2**31, -(2**31), 2**32, 2**33, 2**40, 2**62, 2**63 - 1, -(2**63)),
)
_FLOATS = (0.0, -1.0, 1e-300, 1e300, float("inf"), float("nan"))
_TEXTS = ("", "none", "kd_tree", "precomputed", "s0", "x", "../x", "cuda:7")
ROWS = np.random.default_rng(0).normal(size=(150, 6)).astype(np.float32)


# ---- one thing made another ----


def mutated(value: Any, draw: random.Random) -> Any:
    """JSON in which one number, text, flag or list is another."""
    changed = copy.deepcopy(value)
    leaves = [*_leaves(changed)]
    if leaves:
        holder, key = draw.choice(leaves)
        holder[key] = _other(holder[key], draw)
    return changed


def _leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in inner:
        if isinstance(each, (dict, list)):
            yield from _leaves(each)
        if not isinstance(each, dict):
            yield value, key


def _other(value: Any, draw: random.Random) -> Any:
    if isinstance(value, bool):
        return draw.choice((not value, draw.choice(_INTEGERS)))
    if isinstance(value, int):
        return draw.choice((value + 1, value - 1, -value, 2 * value, *_INTEGERS))
    if isinstance(value, float):
        return draw.choice((-value, *_FLOATS, draw.choice(_INTEGERS)))
    if isinstance(value, list):
        return draw.choice((value[:-1], value + value[-1:], value[::-1], []))
    if isinstance(value, str):
        try:  # skops has numbers as texts
            inner = json.loads(value)
            if isinstance(inner, (int, float, list)):
                return json.dumps(_other(inner, draw))
        except ValueError:
            pass
        return draw.choice((*_TEXTS, value[:-1], draw.choice(_INTEGERS)))
    return draw.choice((*_INTEGERS, *_TEXTS, *_FLOATS))


def mutated_array(array: Any, draw: random.Random) -> Any:
    """An array in which one number is another, or that has another shape or type."""
    way = draw.random()
    if way < 0.1:
        return array[: draw.randrange(len(array))] if array.ndim and len(array) else array
    if way < 0.2:
        return np.concatenate([array, array]) if array.ndim else array
    if way < 0.25:
        return (
            array.astype(draw.choice(("i1", "i4", "i8", "f4", "f8")))
            if not array.dtype.names
            else array
        )
    if way < 0.3:
        return array.reshape(-1) if draw.random() < 0.5 else array[None]
    changed = np.array(array)
    part = changed
    if changed.dtype.names:
        part = changed[draw.choice(changed.dtype.names)]
    if part.size:
        place = np.unravel_index(draw.randrange(part.size), part.shape)
        number = draw.choice(_FLOATS if part.dtype.kind == "f" else _INTEGERS)
        with np.errstate(all="ignore"):
            part[place] = np.array(number).astype(part.dtype)
    return changed


# ---- exported programs ----


class _Net(nn.Module):
    """Of what classifiers are made of, in small."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.weighted = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3, groups=2))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.group = nn.LayerNorm(8), nn.GroupNorm(2, 8)
        self.register_buffer("order", torch.tensor([3, 1, 0, 2, 7, 6, 5, 4]))
        self.table = nn.Embedding(6, 8)
        self.rows = nn.GRU(8, 4, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.pad(self.group(self.weighted(self.body(x))), (1, 1, 1, 1), "reflect")
        x = nn.functional.interpolate(x, scale_factor=2, mode="bilinear")[:, self.order]
        x = nn.functional.avg_pool2d(torch.roll(x, (1, 1), (2, 3)), 2).unfold(2, 2, 1).mean(-1)
        with torch.no_grad():
            place = x.flatten(2).argmax(1) % 6
        x = self.norm(x.flatten(2).transpose(1, 2) + self.table(place))
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = x.gather(1, x.argsort(1)) + x.cumsum(1).softmax(-1).topk(8, -1)[0]
        x = x + torch.cat([self.rows(x)[0], x[..., ::2]], -1).masked_fill(x > 9, 0)
        return self.head(torch.einsum("bnc->bc", x) / x.shape[1])


IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
_PROGRAM = "models/model.json"


def _make_program(folder: Path, *, decomposed: bool) -> None:
    torch.manual_seed(0)
    axes = ({0: torch.export.Dim("n", min=1, max=64)},)
    program = torch.export.export(_Net().eval(), (IMAGES,), dynamic_shapes=axes)
    if decomposed:
        program = program.run_decompositions()
    torch.export.save(program, folder / "net.pt2")


def _mutate_program(folder: Path, draw: random.Random) -> str:
    with PT2ArchiveReader(str(folder / "net.pt2")) as reader:
        records = {
            name: reader.read_bytes(name)
            for name in reader.get_file_names()
            if not name.startswith(".data/") and name not in ("version", "byteorder")
        }
    name = draw.choice((_PROGRAM,) * 6 + ("data/weights/model_weights_config.json",) + (*records,))
    if name == _PROGRAM:
        program = json.loads(records[name])
        graph = program["graph_module"]["graph"]
        node = draw.choice(graph["nodes"])
        if draw.random() < 0.8:
            node["inputs"] = mutated(node["inputs"], draw)
        else:
            program = mutated(program, draw)
        records[name] = json.dumps(program).encode()
    elif name.endswith(".json"):
        records[name] = json.dumps(mutated(json.loads(records[name]), draw)).encode()
    else:
        content = bytearray(records[name])
        for _ in range(8 if content else 0):
            content[draw.randrange(len(content))] = draw.choice((0, 1, 127, 128, 255))
        records[name] = bytes(
            content[: draw.choice((len(content), draw.randrange(len(content) + 1)))]
        )
    with PT2ArchiveWriter(str(folder / "mutant.pt2")) as writer:
        for each, content in records.items():
            writer.write_bytes(each, bytes(content))
    return name


def _use_program(folder: Path) -> None:
    found = load_classifier(folder / "mutant.pt2")
    found(IMAGES)


# ---- detectors ----


def _estimator(method: str) -> Any:
    from sklearn.ensemble import IsolationForest
    from sklearn.neighbors import KernelDensity, LocalOutlierFactor

    return {
        "iforest": IsolationForest(n_estimators=4, max_features=4, random_state=0),
        "iforest of all": IsolationForest(n_estimators=4, random_state=0),
        "lof": LocalOutlierFactor(novelty=True),
        "lof by balls": LocalOutlierFactor(novelty=True, algorithm="ball_tree"),
        "lof by all": LocalOutlierFactor(novelty=True, algorithm="brute"),
        "density": KernelDensity(),
    }.get(method, method)


def _make_detector(folder: Path, method: str) -> None:
    detector = NoveltyDetector(method=_estimator(method), seed=0)
    detector.fit(ROWS, ROWS[:20] + 4 if method == "logistic" else None)
    detector.save(folder / "head.safetensors")


def _mutate_detector(folder: Path, draw: random.Random) -> str:
    tensors, metadata = load_tensors(folder / "head.safetensors")
    if "estimator" in tensors and draw.random() < 0.9:
        said, data = _mutated_skops(tensors["estimator"].numpy().tobytes(), draw)
        tensors["estimator"] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    elif draw.random() < 0.5:
        said = draw.choice([*tensors])
        tensors[said] = torch.from_numpy(np.array(mutated_array(tensors[said].numpy(), draw)))
    else:
        said = "record"
        metadata["pyxai"] = json.dumps(mutated(json.loads(metadata["pyxai"]), draw))
    save_tensors(folder / "mutant.safetensors", tensors, metadata)
    return said


def _mutated_skops(data: bytes, draw: random.Random) -> tuple[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice(("schema.json",) * max(1, len(records) // 3) + (*records,))
    if name == "schema.json":
        records[name] = json.dumps(mutated(json.loads(records[name]), draw)).encode()
    elif name.endswith(".npy"):
        buffer = io.BytesIO()
        np.save(buffer, mutated_array(np.load(io.BytesIO(records[name])), draw))
        records[name] = buffer.getvalue()
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for each, content in records.items():
            archive.writestr(each, content)
    return name, written.getvalue()


def _use_detector(folder: Path) -> None:
    found = NoveltyDetector.load(folder / "mutant.safetensors")
    found.score_samples(ROWS)


Steps = tuple[Callable[[Path], None], Callable[[Path, random.Random], str], Callable[[Path], None]]
METHODS = (
    *("iforest", "iforest of all", "lof", "lof by balls", "lof by all", "ocsvm", "density"),
    *("knn", "logistic"),
)
KINDS: dict[str, Steps] = {
    "program": (lambda at: _make_program(at, decomposed=False), _mutate_program, _use_program),
    "program, core": (lambda at: _make_program(at, decomposed=True), _mutate_program, _use_program),
    **{
        f"detector {method}": (
            lambda at, method=method: _make_detector(at, method),  # type: ignore[misc]
            _mutate_detector,
            _use_detector,
        )
        for method in METHODS
    },
}


# ---- running ----


def work(place: Path, kinds: list[str], seed: int, start: int, stop: int) -> Iterator[str]:
    """Runs cases; yields a line of JSON before and after each."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    _limit_memory()
    for number in range(start, stop):
        kind = kinds[number % len(kinds)]
        make, mutate, use = KINDS[kind]
        folder = place / kind
        if not (folder / "made").exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            (folder / "made").touch()
        name = mutate(folder, random.Random(f"{seed} {number}"))
        yield json.dumps({"case": number, "kind": kind, "name": name})
        try:
            use(folder)
            what, said = "answer", ""
        except Exception as error:
            what, said = "error", f"{type(error).__name__}: {error}"[:300]
        yield json.dumps({"case": number, "what": what, "said": said})


def _limit_memory() -> None:
    """A size that is too large is an error then, and does not end other processes."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def torture(
    cases: int, seed: int, kinds: list[str], say: Callable[[str], object] = print
) -> dict[str, Counter[str]]:
    """Mutates and uses; how often what came of it, for each kind."""
    found: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    with tempfile.TemporaryDirectory() as place:

        def command(start: int) -> list[str]:
            plan = json.dumps([place, kinds, seed, start, cases])
            return ["-m", "benchmarks.torture", "mutants", "--worker", plan]

        for each in watched(command, cases):
            found[each["kind"]][each["what"]] += 1
            if each["what"] in FAULTS:
                say(f"{each['what']}: case {each['case']}, {each['kind']}, {each.get('name')}")
    return found


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m benchmarks.torture mutants"
    )
    parser.add_argument("--cases", type=int, default=3000)
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
    for kind, counts in found.items():
        print(f"{kind}: {', '.join(f'{count} {what}' for what, count in sorted(counts.items()))}")
    return int(any(counts[each] for counts in found.values() for each in FAULTS))
