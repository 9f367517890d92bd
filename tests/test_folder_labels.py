"""The class and the split of a photo, told from its folders."""

from __future__ import annotations

import pytest

from pyxai.images import FolderLabels, split_folders


def tree(root, *files):
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    ("name", "label", "split"),
    [
        ("cat/1.jpg", "cat", None),
        ("cat/kittens/small/2.jpg", "cat", None),
        ("3.jpg", None, None),
    ],
)
def test_a_folder_of_classes(tmp_path, name, label, split):
    labels = FolderLabels(tree(tmp_path, "cat/1.jpg", "dog/2.jpg"))
    assert (labels.label(tmp_path / name), labels.split(tmp_path / name)) == (label, split)


@pytest.mark.parametrize(
    ("name", "label", "split"),
    [
        ("train/cat/1.jpg", "cat", "train"),
        ("train/cat/kittens/1.jpg", "cat", "train"),
        ("Val/dog/2.jpg", "dog", "valid"),
        ("testing/dog/2.jpg", "dog", "test"),
        ("train/3.jpg", None, "train"),
        ("4.jpg", None, None),
    ],
)
def test_a_folder_of_splits(tmp_path, name, label, split):
    labels = FolderLabels(tree(tmp_path, "train/cat/1.jpg", "Val/cat/2.jpg"))
    assert (labels.label(tmp_path / name), labels.split(tmp_path / name)) == (label, split)


def test_splits_below_the_classes(tmp_path):
    labels = FolderLabels(tree(tmp_path, "cat/train/1.jpg", "dog/test/1.jpg"))
    path = tmp_path / "cat" / "train" / "1.jpg"
    assert (labels.label(path), labels.split(path)) == ("cat", "train")


def test_trains_are_a_class_among_others(tmp_path):
    root = tree(tmp_path, "bus/1.jpg", "train/2.jpg", "tram/3.jpg")
    labels = FolderLabels(root)
    assert labels.label(root / "train" / "2.jpg") == "train"
    assert labels.label(root / "train" / "steam" / "2.jpg") == "train"
    assert labels.split(root / "train" / "2.jpg") is None
    assert split_folders(root) == {}


def test_trains_and_tests_are_classes_among_others(tmp_path):
    root = tree(tmp_path, "bus/1.jpg", "train/2.jpg", "test/3.jpg")
    labels = FolderLabels(root)
    assert [labels.label(root / name / "9.jpg") for name in ("train", "test")] == ["train", "test"]
    assert labels.split(root / "test" / "3.jpg") is None
    tree(tmp_path, "train/bus/1.jpg")
    assert FolderLabels(root).label(root / "train" / "bus" / "1.jpg") == "bus"


def test_only_one_split(tmp_path):
    labels = FolderLabels(tree(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg"))
    assert labels.label(tmp_path / "train" / "cat" / "1.jpg") == "cat"


def test_several_folders_and_files(tmp_path):
    root = tree(tmp_path, "cat/1.jpg", "dog/old/2.jpg", "more/fox/3.jpg")
    labels = FolderLabels([root / "cat", root / "dog", str(root / "more" / "fox" / "3.jpg")])
    assert labels.label(root / "cat" / "1.jpg") == "cat"
    assert labels.label(root / "dog" / "old" / "2.jpg") == "old"
    assert labels.label(root / "more" / "fox" / "3.jpg") == "fox"


def test_the_only_folder_that_was_given(tmp_path):
    root = tree(tmp_path, "cat/1.jpg")
    labels = FolderLabels(root / "cat")
    assert labels.label(root / "cat" / "1.jpg") is None
    assert labels.label(root / "cat" / "1.jpg", own=True) == "cat"


def test_relative_and_absolute_names(tmp_path, monkeypatch):
    root = tree(tmp_path, "photos/cat/1.jpg")
    monkeypatch.chdir(root)
    for given in ("photos", root / "photos", ".", "photos/../photos"):
        for path in ("photos/cat/1.jpg", root / "photos" / "cat" / "1.jpg"):
            expected = "photos" if given == "." else "cat"
            assert FolderLabels(given).label(path) == expected


def test_what_is_no_path():
    for given in (None, 3, [3], iter(["x"])):
        assert FolderLabels(given).label("photos/cat/1.jpg") == "cat"


def test_split_folders(tmp_path):
    root = tree(tmp_path, "train/a/1.jpg", "val/a/1.jpg", "validation/a/1.jpg", ".test/1.jpg")
    assert split_folders(root) == {"train": root / "train", "valid": root / "val"}
    assert split_folders(root / "nowhere") == {}
