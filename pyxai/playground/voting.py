"""Galleries side by side: a table of numbers, and a page on which people choose without knowing."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from pyxai._errors import argument_error
from pyxai._files import write_text
from pyxai._outputs import OutputFolder
from pyxai._results import Report, Rows, plain
from pyxai._sealed import DamagedError, read_record, write_record
from pyxai._text import text_table
from pyxai.draw.bars import Bar, bars
from pyxai.draw.page import page, text
from pyxai.galleries.page import share
from pyxai.images.errors import printable

if TYPE_CHECKING:
    from pyxai.galleries.gallery import ClassGallery

_FORMAT = "pyxai gallery comparison 1"
_CHOICES = ("left", "right", "same")
_COUNTS = ("first_wins", "second_wins", "same")
_COLUMNS = ("gallery", "evidence", "crop", "layer", "clusters", "crops", "purity", "silhouette")

_STYLE = """
.pair { display: grid; gap: 1rem; grid-template-columns: 1fr 1fr; max-width: 60rem; }
.pair img { max-width: 30rem; }
fieldset { border: 0; margin: 0 0 2rem; padding: 0; }
legend { font-size: 1.3rem; font-weight: 600; padding: 1rem 0 0.5rem; }
.choice { display: grid; grid-template-columns: 1fr 1fr 1fr; max-width: 60rem; text-align: center; }
.choice label { border: 1px solid #8888; cursor: pointer; padding: 0.6rem 0.2rem; }
button { font: inherit; padding: 0.6rem 1.2rem; }
"""

# Collects the answers and hands them out as a file; nothing is sent anywhere.
_SCRIPT = """
const data = JSON.parse(document.getElementById("data").textContent);
const ballot = Date.now().toString(36) + Math.random().toString(36).slice(2);
const form = document.getElementById("form");
const state = document.getElementById("state");
function votes() {
  const found = {};
  for (const [name, value] of new FormData(form)) found[name] = value;
  return found;
}
function show() {
  state.textContent = Object.keys(votes()).length + " of " + data.questions + " answered";
}
form.addEventListener("change", show);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const record = { comparison: data.comparison, ballot: ballot, votes: votes() };
  const blob = new Blob([JSON.stringify(record, null, 1)], { type: "application/json" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = "votes-" + ballot + ".json";
  document.body.append(link);
  link.click();
  link.remove();
});
show();
"""


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Report):
    """What `compare` wrote; as text, the table.

    Attributes:
        rows: one dictionary a gallery, in the order given: what it was made from, and what it is
            like.
        questions: how many pairs of pictures people are asked about.
        page: the page to vote on; hand out the folder that it is in.
        key: the file that says which picture is from which gallery; keep it apart.
    """

    rows: list[dict[str, Any]]
    questions: int
    page: Path
    key: Path

    def _facts(self) -> str:
        where = printable(str(self.page))
        return f"{len(self.rows)} galleries, {self.questions} questions: {where}"

    def to_dict(self) -> dict[str, Any]:
        """The galleries, and where the vote is."""
        return {each.name: plain(getattr(self, each.name)) for each in fields(self)}

    def figure(self) -> Image.Image:
        """The purity and the silhouette of each gallery."""
        shown = [
            Bar(f"{row['gallery']}: {name}", math.nan if row[name] is None else max(row[name], 0))
            for name in ("purity", "silhouette")
            for row in self.rows
        ]
        notes = [f"{row['gallery']}: {row['model']}, crop {row['crop']}" for row in self.rows]
        return bars(shown, title="galleries: 1 is best, no number where none is known", notes=notes)

    def _table(self) -> Rows:
        return _COLUMNS, [[row[name] for name in _COLUMNS] for row in self.rows]

    def __str__(self) -> str:
        cells = [[_cell(row[name]) for name in _COLUMNS] for row in self.rows]
        return text_table([_COLUMNS, *cells])


@dataclass(frozen=True, eq=False, repr=False)
class VoteCount(Report):
    """What people chose; as text, a table.

    Attributes:
        ballots: how many people voted.
        pairs: one dictionary for each two galleries: "first" and "second" (letters of the table),
            "first_wins", "second_wins", "same", and "p_value", the probability of a split as
            uneven as this or more if both were equally good (sign test, two-sided; ties left out).
        by_class: for each class, the wins of each gallery.
    """

    ballots: int
    pairs: list[dict[str, Any]]
    by_class: dict[str, dict[str, int]]

    def _facts(self) -> str:
        return f"{self.ballots} ballots, {len(self.pairs)} pairs of galleries"

    def to_dict(self) -> dict[str, Any]:
        """The ballots, the wins of each pair and those by class."""
        return {each.name: plain(getattr(self, each.name)) for each in fields(self)}

    def figure(self) -> Image.Image:
        """The wins of both galleries of each pair."""
        shown = [
            Bar(f"{pair['first']} against {pair['second']}: {what}", pair[name])
            for pair in self.pairs
            for what, name in zip(("first", "second", "same"), _COUNTS, strict=True)
        ]
        most = max(1.0, *(bar.value for bar in shown))
        return bars(shown, title=f"wins in {self.ballots} ballots", most=most, form="d")

    def _table(self) -> Rows:
        names = ("first", "second", *_COUNTS, "p_value")
        return names, [[pair[name] for name in names] for pair in self.pairs]

    def __str__(self) -> str:
        head = ("pair", "first wins", "second wins", "same", "p")
        rows: list[Sequence[str]] = [head]
        for pair in self.pairs:
            counts = [str(pair[name]) for name in _COUNTS]
            name = f"{pair['first']} and {pair['second']}"
            rows.append([name, *counts, f"{pair['p_value']:.3g}"])
        return text_table(rows)


def compare(
    galleries: Sequence[ClassGallery], directory: str | os.PathLike[str], *, seed: int = 0
) -> Comparison:
    """Compares galleries of the same classes by numbers, and prepares a vote of people.

    On the page each question shows the representatives of one class from two galleries, without
    saying which they are from; order and sides are drawn. Votes are downloaded from the page as
    JSON files; `count_votes` counts them. No server is needed.

    Args:
        galleries: two or more, fitted or loaded.
        directory: gets `page/`, to be handed out, and `key.json`, to be kept.
        seed: of the draw.

    Raises:
        ValueError: fewer than two galleries, or galleries of different classes, or no class that
            has crops in two of them; the folder has files of these names that no comparison wrote.
    """
    if len(galleries) < 2:
        raise argument_error("galleries", "at least two", len(galleries))
    if len({gallery.class_names for gallery in galleries}) > 1:
        raise argument_error("galleries", "galleries of the same classes", galleries)
    rows = [_row(number, gallery) for number, gallery in enumerate(galleries)]
    names = galleries[0].class_names
    draw = random.Random(seed)
    questions: list[dict[str, Any]] = []
    for pair in combinations(range(len(galleries)), 2):
        for index, name in enumerate(names):
            if all(galleries[each][index] for each in pair):
                left, right = draw.sample(pair, 2)
                questions.append({"class": name, "index": index, "left": left, "right": right})
    if not questions:
        raise argument_error("galleries", "a class with crops in two of them", galleries)
    draw.shuffle(questions)
    key = {"format": _FORMAT, "seed": seed, "galleries": rows, "questions": questions}
    key["comparison"] = hashlib.blake2b(json.dumps(key).encode(), digest_size=8).hexdigest()
    folder = OutputFolder(directory, "directory", by="a comparison")
    folder.check("page/index.html", "page/pictures/0", "key.json")
    for number, question in enumerate(questions):
        for side in ("left", "right"):
            gallery = galleries[question[side]]
            picture = gallery.figure(question["index"], titles=False)
            with folder.writing(f"page/pictures/{number:04d}-{side}.jpg") as path:
                picture.save(path, quality=90)
    with folder.writing("page/index.html") as path:
        write_text(path, _vote_page(questions, str(key["comparison"])))
    with folder.writing("key.json") as path:
        write_record(path, key, indent=1)
    folder.finish()
    root = folder.path
    return Comparison(rows, len(questions), root / "page" / "index.html", root / "key.json")


def count_votes(directory: str | os.PathLike[str], *votes: str | os.PathLike[str]) -> VoteCount:
    """Counts votes that were downloaded from the page of `compare`.

    Args:
        directory: the folder that `compare` wrote.
        votes: the JSON files. Of several files of one visit to the page, the last counts.

    Raises:
        ValueError: a file is no vote on this comparison.
        OSError: a file is missing.
    """
    try:
        key = read_record(Path(directory) / "key.json")
    except DamagedError as error:
        expected = f"a folder that compare wrote ({error})"
        raise argument_error("directory", expected, str(directory)) from error
    if key.get("format") != _FORMAT:
        raise argument_error("directory", "a folder that compare wrote", str(directory))
    questions = key["questions"]
    ballots: dict[str, dict[str, str]] = {}
    for path in map(Path, votes):
        record = _read(path, "votes")
        if record.get("comparison") != key["comparison"]:
            raise argument_error("votes", "votes on this comparison", str(path))
        ballots[str(record.get("ballot"))] = _checked(record.get("votes"), len(questions), path)
    letters = [row["gallery"] for row in key["galleries"]]
    wins: dict[tuple[int, int], dict[int | None, int]] = {
        pair: {pair[0]: 0, pair[1]: 0, None: 0} for pair in combinations(range(len(letters)), 2)
    }
    by_class: dict[str, dict[str, int]] = {}
    for chosen in ballots.values():
        for number, choice in chosen.items():
            question = questions[int(number)]
            low, high = sorted((question["left"], question["right"]))
            winner = None if choice == "same" else question[choice]
            wins[low, high][winner] += 1
            counts = by_class.setdefault(question["class"], dict.fromkeys(letters, 0))
            if winner is not None:
                counts[letters[winner]] += 1
    pairs = [
        {
            "first": letters[first],
            "second": letters[second],
            "first_wins": found[first],
            "second_wins": found[second],
            "same": found[None],
            "p_value": sign_test(found[first], found[second]),
        }
        for (first, second), found in wins.items()
    ]
    return VoteCount(len(ballots), pairs, by_class)


def sign_test(first: int, second: int) -> float:
    """The two-sided p-value of so many wins each, if either side wins with probability 1/2."""
    count = first + second
    tail = sum(math.comb(count, k) for k in range(max(first, second), count + 1))
    return min(1.0, float(2 * tail / 2**count))


def _row(number: int, gallery: ClassGallery) -> dict[str, Any]:
    report = gallery.to_dict()
    return {
        "gallery": _letter(number),
        **gallery.made_by(),
        "crops": sum(row["crops"] for row in report["classes"].values()),
        "purity": report["purity"],
        "silhouette": report["silhouette"],
    }


def _letter(number: int) -> str:
    """A, B, ..., Z, A2, B2, ..."""
    again, letter = divmod(number, 26)
    return chr(ord("A") + letter) + (str(again + 1) if again else "")


def _vote_page(questions: list[dict[str, Any]], comparison: str) -> str:
    blocks = []
    for number, question in enumerate(questions):
        pictures = "".join(
            f'<img src="pictures/{number:04d}-{side}.jpg" alt="{side} pictures">'
            for side in ("left", "right")
        )
        shown = {"left": "left", "same": "no difference", "right": "right"}
        choices = "".join(
            f'<label><input type="radio" name="{number}" value="{value}"> {label}</label>'
            for value, label in shown.items()
        )
        blocks.append(
            f"<fieldset>\n<legend>{number + 1}. {text(question['class'])}</legend>\n"
            f'<div class="pair">{pictures}</div>\n<div class="choice">{choices}</div>\n</fieldset>'
        )
    data = json.dumps({"comparison": comparison, "questions": len(questions)})
    listed = "\n".join(blocks)
    body = (
        "<h1>Which pictures describe the word better?</h1>\n"
        "<p>Choose for each word the side whose pictures show better what it stands for. At the "
        "end, download your votes and send the file to whoever asked you.</p>\n"
        f'<form id="form">\n{listed}\n'
        '<p id="state" aria-live="polite"></p>\n<button>Download the votes</button>\n</form>\n'
        f'<script type="application/json" id="data">{data}</script>\n'
        f"<script>{_SCRIPT}</script>"
    )
    return page("Which pictures describe the word better?", body, style=_STYLE)


def _read(path: Path, argument: str) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{argument}: expected JSON, got {path} ({error})") from error
    if not isinstance(record, dict):
        raise argument_error(argument, f"a JSON object in {path}", record)
    return record


def _checked(votes: object, questions: int, path: Path) -> dict[str, str]:
    """The votes of one file by number of the question."""
    expected = f"answers to questions 0 to {questions - 1} in {path}"
    if not isinstance(votes, dict):
        raise argument_error("votes", expected, votes)
    for number, choice in votes.items():
        if not number.isdecimal() or int(number) >= questions or choice not in _CHOICES:
            raise argument_error("votes", expected, f"{number}: {choice}")
    return votes


def _cell(value: object) -> str:
    return share(value) if isinstance(value, float) or value is None else str(value)
