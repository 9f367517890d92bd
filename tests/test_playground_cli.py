"""`pyxai playground`, run as users run it."""

from __future__ import annotations

import pytest
from gallery_photos import folder_of_photos

from pyxai.cli.playground import read_labels
from pyxai.playground.editions import data_folder
from pyxai.playground.server import read_site
from pyxai.playground.writing import read_data

QUICK = ("--units", 0, "--undesirable", 0, "--no-galleries", "--no-windows", "--map", "pca")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return folder_of_photos(tmp_path_factory.mktemp("photos") / "colours", count=2, size=64)


def test_build_two_data_sets_by_two_networks(run, photos, tmp_path):
    code, out, _ = run(
        *("playground", "build", photos, photos / "red", "--model", "demo", "--model", "demo"),
        *("--layer", "stage3", "--metric", "cosine", "-o", "site", "--explained", 1, *QUICK),
    )
    assert code == 0
    assert out == "site/index.html: open it, or run: pyxai playground serve site\n"
    about = read_site(tmp_path / "site")
    assert [(each["name"], each["photos"]) for each in about["sets"]] == [
        ("colours", 6),
        ("red", 2),
    ]
    assert [each["name"] for each in about["networks"]] == ["demo", "demo-2"]
    assert [each["layers"][0]["name"] for each in about["networks"]] == ["stage3", "stage3"]
    assert about["sets"][0]["explained"] == 1
    assert (tmp_path / "site.index" / "1" / "index.json").exists()  # for --live


def test_a_photo_that_is_gone(run, tmp_path):
    folder = folder_of_photos(tmp_path / "mine", count=2, size=48)
    (folder / "broken.png").write_bytes(b"no photo")
    build = ("playground", "build", folder, "--layer", "stage3", "--metric", "cosine", "-o", "site")
    build = (*build, "--explained", 0, *QUICK)
    code, _, err = run(*build)
    assert code == 0
    assert f"pyxai: not read: {folder}/broken.png: expected an image" in err
    (folder / "red" / "0.png").unlink()
    code, _, err = run(*build)
    assert code == 0
    assert f"pyxai: removed: {folder}/red/0.png\npyxai: photos removed: 1\n" in err
    assert read_site(tmp_path / "site")["sets"][0]["photos"] == 5


def test_classes_from_a_table(run, photos, tmp_path):
    lines = ["path,label"]
    lines += [
        f"{photos}/{name}/{i}.png,{'warm' if name == 'red' else 'cold'}"
        for name in ("red", "blue")
        for i in range(2)
    ]
    (tmp_path / "kinds.csv").write_text("\n".join(lines) + "\n")
    code, _, _ = run(
        *("playground", "build", photos, "--labels", "kinds.csv", "-o", "site", "--explained", 0),
        *("--layer", "stage3", "--metric", "cosine", *QUICK),
    )
    assert code == 0
    (one,) = read_site(tmp_path / "site")["sets"]
    assert one["classes"] == ["cold", "warm"]
    found = read_data(data_folder(tmp_path / "site") / "sets" / "0" / "photos-0.js")
    kinds = dict(zip(found["names"], found["labels"], strict=True))
    assert kinds["red/0.png"] == 1
    assert kinds["blue/1.png"] == 0
    assert kinds["green/0.png"] == -1


def test_relative_paths_of_a_table(tmp_path):
    (tmp_path / "kinds.csv").write_text("path,label,more\na/../b.png,x,1\n")
    assert read_labels(tmp_path / "kinds.csv") == {str(tmp_path / "b.png"): "x"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("build", "nowhere"), "nowhere: no such file"),
        (("build", "PHOTOS", "--metric", "cosinus"), "closest: 'cosine'"),
        (("build", "PHOTOS", "--architecture", "torchvision:x"), "--architecture: expected one"),
        (("build", "PHOTOS", "--labels", "PHOTOS/red/0.png"), "error"),
        (("serve", "nowhere"), "site: expected the folder of a site"),
        (("serve", "nowhere", "--live"), "site: expected the folder of a site"),
    ],
)
def test_what_users_can_mend(run, photos, arguments, message):
    given = [str(each).replace("PHOTOS", str(photos)) for each in arguments]
    code, _, err = run("playground", *given, *(("-o", "site") if given[0] == "build" else ()))
    assert code == 2
    assert message in err
    assert "Traceback" not in err
