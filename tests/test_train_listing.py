"""Folders and tables of labelled photos, and how they are split."""

from __future__ import annotations

import pytest
from networks import SmallNet
from train_photos import COLORS, quick

from pyxai.train import listing as listings

pytestmark = pytest.mark.usefixtures("one_thread")


def test_small_and_unreadable_photos_are_left_out_and_listed(mixed):
    found = quick(SmallNet(), mixed)
    assert found.too_small == (str(mixed / "red" / "small.png"),)
    ((path, reason),) = found.failures
    assert path == str(mixed / "blue" / "broken.jpg")
    assert reason
    assert int(found.confusion.sum()) in (1, 2)  # a fifth of both classes


@pytest.mark.parametrize("share", [None, 0.5])
def test_a_share_of_each_class_is_held_out(squares, share):
    train, held_out = listings.training_and_validation(squares / "train", share, 0)
    assert not {*train.paths} & {*held_out.paths}
    assert len(train.paths) + len(held_out.paths) == 24
    assert [held_out.names.count(name) for name in COLORS] == [4 if share else 2] * 3
    again = listings.training_and_validation(squares / "train", share, 0)
    assert again == (train, held_out)
    assert listings.training_and_validation(squares / "train", share, 1) != again


def test_validation_photos_from_another_folder(squares, mixed):
    _, held_out = listings.training_and_validation(squares, mixed, 0)
    assert {path.parent.parent for path in held_out.paths} == {mixed}
    with pytest.raises(ValueError, match=r"valid: expected classes among \['blue', 'red'\], got"):
        listings.training_and_validation(mixed, squares / "valid", 0)


def test_bad_folders_and_models(mixed, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(ValueError, match=r"each of two or more classes in .* got 'none'"):
        quick(SmallNet(), empty)
    (empty / "one").mkdir()
    with pytest.raises(ValueError, match=r"two or more classes in .* got \['one'\]"):
        quick(SmallNet(), empty)
    (empty / "two").mkdir()
    with pytest.raises(ValueError, match="one: expected a folder with photos, found none"):
        quick(SmallNet(), empty)
    with pytest.raises(ValueError, match="photos: expected a folder with a sub-folder"):
        quick(SmallNet(), mixed / "nowhere")
    with pytest.raises(ValueError, match=r"model: expected a torch\.nn\.Module"):
        quick("resnet18", mixed)


# ---- tables ----


def table(folder, rows, columns="path,label,split", name="photos.csv"):
    file = folder / name
    file.write_text("\n".join([columns, *rows]) + "\n", encoding="utf-8")
    return file


def all_rows(squares, split=True):
    return [
        f"{path.relative_to(squares)},{path.parent.name}" + f",{path.parts[-3]}" * split
        for path in sorted(squares.glob("*/*/*.png"))
    ]


def test_a_table_trains_as_its_folder_does(squares):
    file = table(squares, all_rows(squares))
    tabled, foldered = (listings.training_and_validation(each, None, 0) for each in (file, squares))
    assert tabled == foldered
    first, second = (quick(SmallNet(3), each, unfreeze="head") for each in (file, squares))
    assert first.classifier.class_names == second.classifier.class_names
    assert [each.train_accuracy for each in first.history] != []


def test_a_table_without_splits_is_split_by_share(squares):
    file = table(squares, all_rows(squares, split=False), "path,label", "plain.csv")
    train, held_out = listings.training_and_validation(file, 0.25, 0)
    assert len(train.paths) == 27
    assert [held_out.names.count(name) for name in COLORS] == [3, 3, 3]
    _, judged = listings.training_and_validation(squares / "train", file, 0)
    assert len(judged.paths) == 36


def test_a_share_wins_over_the_split_of_a_table(squares):
    file = table(squares, all_rows(squares))
    train, held_out = listings.training_and_validation(file, 0.5, 0)
    assert (len(train.paths), len(held_out.paths)) == (12, 12)


def test_validation_may_lack_a_class(squares):
    rows = [row for row in all_rows(squares) if not row.endswith("red,valid")]
    found = quick(SmallNet(), table(squares, rows, name="no-red.csv"))
    assert [each.photos for each in found.metrics.classes] == [4, 4, 0]
    assert found.metrics.classes[2].recall == 0
    recalls = [each.recall for each in found.metrics.classes[:2]]
    assert found.metrics.balanced_accuracy == pytest.approx(sum(recalls) / 2)


@pytest.mark.parametrize(
    ("columns", "rows", "message"),
    [
        ("file,label", ["a.png,red"], r"the columns path and label in .* got \['file', 'label'\]"),
        ("path,label", [], "photos of two or more classes .* got 'none'"),
        ("path,label", ["a.png,red", "b.png,red"], r"two or more classes .* got \['red'\]"),
        ("path,label", ["a.png,"], "a path, a label and, as a split, train or valid in line 2"),
        ("path,label", ["a.png"], "a path, a label and, as a split, train or valid in line 2"),
        ("path,label,split", ["a.png,red,test"], r"in line 2 .* got \('a.png', 'red', 'test'\)"),
        ("path,label", ["a.png,red", "b.png,blue"], "valid: expected a share that leaves photos"),
        (
            "path,label,split",
            ["a,red,train", "b,blue,train", "c,grey,valid"],
            r"valid: expected classes among \['blue', 'red'\], got \['grey'\]",
        ),
        (
            "path,label,split",
            ["a,red,train", "b,blue,train", "c,red,valid"],
            "photos: expected photos that can be used of every class; left out: 0 .* 2 unreadable",
        ),
    ],
)
def test_bad_tables(tmp_path, columns, rows, message):
    with pytest.raises(ValueError, match=message):
        quick(SmallNet(), table(tmp_path, rows, columns))


def test_a_photo_taken_for_a_table(squares):
    photo = next((squares / "train" / "red").iterdir())
    with pytest.raises(ValueError, match=r"photos: expected (a CSV file in UTF-8|the columns)"):
        quick(SmallNet(), photo)


def test_one_photo_of_a_class_cannot_be_split(squares, tmp_path):
    rows = [*all_rows(squares, split=False)[:5], f"{squares}/train/red/0.png,red"]
    file = table(squares, rows, "path,label", "tiny.csv")
    with pytest.raises(ValueError, match="valid: expected a share that leaves photos of 'red'"):
        quick(SmallNet(), file)
