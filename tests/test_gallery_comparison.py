"""Galleries compared by numbers and by people."""

from __future__ import annotations

import json

import pytest
from gallery_photos import COLORS, CROP, color_classifier, folder_of_photos, photo
from PIL import Image
from scipy.stats import binomtest

from pyxai import ClassGallery
from pyxai.playground.voting import compare, count_votes, sign_test


@pytest.fixture(scope="module")
def galleries(tmp_path_factory):
    folder = folder_of_photos(tmp_path_factory.mktemp("photos") / "p", count=3)
    settings = (
        {"evidence": "cam"},
        {"evidence": "sliding_window", "clusters": 3},
        {"per_photo": 1},
    )
    return [
        ClassGallery(color_classifier(), CROP, **{"stride": 8, "clusters": 2, **each}).fit(folder)
        for each in settings
    ]


def test_table(galleries, tmp_path):
    found = compare(galleries, tmp_path)
    assert [row["gallery"] for row in found.rows] == ["A", "B", "C"]
    assert [row["evidence"] for row in found.rows] == ["cam", "sliding_window (exhaustive)", "cam"]
    for row, gallery in zip(found.rows, galleries, strict=True):
        report = gallery.to_dict()
        assert (row["purity"], row["silhouette"]) == (report["purity"], report["silhouette"])
        assert row["crops"] == sum(each["crops"] for each in report["classes"].values())
    lines = str(found).splitlines()
    assert lines[0].split()[:3] == ["gallery", "evidence", "crop"]
    assert len(lines) == 4
    assert "Ward, 3 clusters" in lines[2]


def test_sides_and_order_are_drawn_and_the_page_does_not_tell(galleries, tmp_path):
    first = compare(galleries[:2], tmp_path / "0", seed=0)
    again = compare(galleries[:2], tmp_path / "1", seed=0)
    assert first.page.read_bytes() == again.page.read_bytes()
    assert first.key.read_bytes() == again.key.read_bytes()
    assert first.key.parent not in first.page.parents[:1]
    page = first.page.read_text()
    assert "cam" not in page
    assert "sliding" not in page
    assert "http" not in page
    files = sorted(path.name for path in (first.page.parent / "pictures").iterdir())
    assert files == sorted(f"{n:04d}-{s}.jpg" for n in range(first.questions) for s in SIDES)
    assert all(f"pictures/{name}" in page for name in files)
    draws = set()
    for seed in range(12):
        found = compare(galleries[:2], tmp_path / f"seed {seed}", seed=seed)
        questions = json.loads(found.key.read_text())["questions"]
        assert sorted(question["class"] for question in questions) == sorted([*COLORS, "grey"])
        assert all({question["left"], question["right"]} == {0, 1} for question in questions)
        draws.add(tuple((question["class"], question["left"]) for question in questions))
    assert len(draws) > 8
    lefts = [side for draw in draws for _, side in draw]
    assert len(lefts) / 4 < lefts.count(0) < 3 * len(lefts) / 4


SIDES = ("left", "right")


def test_pictures_are_those_of_the_key(galleries, tmp_path):
    found = compare(galleries, tmp_path)
    questions = json.loads(found.key.read_text())["questions"]
    assert len(questions) == found.questions == 3 * 4
    for number, question in enumerate(questions):
        for side in SIDES:
            path = found.page.parent / "pictures" / f"{number:04d}-{side}.jpg"
            expected = galleries[question[side]].figure(question["class"], titles=False)
            with Image.open(path) as picture:
                assert picture.size == expected.size


def write_votes(tmp_path, name, comparison, votes, ballot=None):
    path = tmp_path / f"{name}.json"
    record = {"comparison": comparison, "ballot": ballot or name, "votes": votes}
    path.write_text(json.dumps(record))
    return path


def test_votes_are_counted(galleries, tmp_path):
    key = json.loads(compare(galleries, tmp_path).key.read_text())
    questions = key["questions"]

    def preferring(order):
        """The votes of a person with this taste."""
        return {
            str(number): min(SIDES, key=lambda side, q=question: order.index(q[side]))
            for number, question in enumerate(questions)
        }

    files = [
        write_votes(tmp_path, "anna", key["comparison"], preferring([1, 0, 2])),
        write_votes(tmp_path, "bert", key["comparison"], preferring([1, 2, 0])),
        write_votes(tmp_path, "carl", key["comparison"], {"0": "same"}),
        write_votes(tmp_path, "dora", key["comparison"], {"0": "left"}),
        write_votes(tmp_path, "dora-2", key["comparison"], {}, ballot="dora"),
    ]
    found = count_votes(tmp_path, *files)
    assert found.ballots == 4
    wins = {(p["first"], p["second"]): (p["first_wins"], p["second_wins"]) for p in found.pairs}
    assert wins == {("A", "B"): (0, 8), ("A", "C"): (4, 4), ("B", "C"): (8, 0)}
    assert sum(pair["same"] for pair in found.pairs) == 1
    p_values = {(p["first"], p["second"]): p["p_value"] for p in found.pairs}
    assert p_values["A", "B"] == pytest.approx(2 / 2**8)
    assert p_values["A", "C"] == 1.0
    assert found.by_class["red"]["B"] == 4
    assert str(found).splitlines()[1].split()[:5] == ["A", "and", "B", "0", "8"]
    assert count_votes(tmp_path).ballots == 0


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (8, 2), (10, 0), (31, 44), (5, 5)])
def test_sign_test(first, second):
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert sign_test(first, second) == pytest.approx(expected)
    assert sign_test(first, second) == sign_test(second, first)


def test_wrong_votes(galleries, tmp_path):
    key = json.loads(compare(galleries[:2], tmp_path).key.read_text())

    def count(votes, comparison=key["comparison"]):
        return count_votes(tmp_path, write_votes(tmp_path, "x", comparison, votes))

    with pytest.raises(ValueError, match="votes: expected votes on this comparison"):
        count({}, "other")
    for votes in ({"9": "left"}, {"-1": "left"}, {"0": "both"}, {"²": "left"}, ["left"], None):
        with pytest.raises(ValueError, match="votes: expected answers to questions 0 to 3"):
            count(votes)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match="votes: expected JSON"):
        count_votes(tmp_path, tmp_path / "bad.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="votes: expected a JSON object"):
        count_votes(tmp_path, tmp_path / "list.json")
    (tmp_path / "key.json").write_text("{}")
    with pytest.raises(ValueError, match="directory: expected a folder that compare wrote"):
        count_votes(tmp_path)
    with pytest.raises(FileNotFoundError):
        count_votes(tmp_path / "nowhere")


def test_what_cannot_be_compared(galleries, tmp_path):
    with pytest.raises(ValueError, match="galleries: expected at least two, got 1"):
        compare(galleries[:1], tmp_path)
    other = ClassGallery(color_classifier(names=("a", "b", "c", "d")), CROP)
    other = other.fit([photo(1, "red")])
    with pytest.raises(ValueError, match="galleries: expected galleries of the same classes"):
        compare([galleries[0], other], tmp_path)
    red, blue = (
        ClassGallery(color_classifier(), 96).fit([photo(1, color, (0, 0), side=96)])
        for color in ("red", "blue")
    )
    with pytest.raises(ValueError, match="a class with crops in two of them"):
        compare([red, blue], tmp_path)


def test_loaded_galleries_will_do(galleries, tmp_path):
    assert compare(galleries[:2], tmp_path, seed=3).questions == 4
    saved = [gallery.save(tmp_path / str(n)) for n, gallery in enumerate(galleries[:2])]
    loaded = [ClassGallery.load(path) for path in saved]
    assert str(compare(loaded, tmp_path / "b")) == str(compare(galleries[:2], tmp_path / "c"))


def test_hostile_class_names(tmp_path):
    names = ("</script><b>", "b", "c", "d")
    made = [
        ClassGallery(color_classifier(names=names), CROP, stride=stride).fit([photo(1, "red")])
        for stride in (8, 16)
    ]
    page = compare(made, tmp_path).page.read_text()
    assert "<b>" not in page
    assert page.count("</script>") == 2
