"""`pyxai.playground.build`: what the files of a site say, and what a second call keeps."""

from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import SmallNet, SmallViT, random_net
from PIL import Image
from train_photos import COLORS, SQUARE, photo

import pyxai
from pyxai.playground import SiteSettings, build
from pyxai.playground.editions import data_folder, site_home
from pyxai.playground.explanations import Explainer, Explaining
from pyxai.playground.server import read_site
from pyxai.playground.similar import on_a_square
from pyxai.playground.unit_pictures import drawn_channels
from pyxai.playground.writing import SiteFolder, read_data

HOSTILE = "<img src=x onerror=alert(1)>.png"
QUICK = SiteSettings(
    units=2, unit_steps=2, crops=2, undesirable=1, undesirable_steps=2, maps=("pca",)
)


def classifiers():
    torch.manual_seed(0)
    names = ["blue", "green", "red", "</script>"]
    return {
        "first": pyxai.Classifier(
            random_net(classes=4), class_names=names, preprocessing=SQUARE, name="first"
        ),
        "second": pyxai.Classifier(random_net(classes=7), preprocessing=SQUARE, name="second"),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine photos of three colours, one with a hostile name, one that is broken."""
    root, random = tmp_path_factory.mktemp("photos") / "colours", np.random.default_rng(0)
    for name, color in COLORS.items():
        (root / name).mkdir(parents=True)
        for number in range(3):
            file = HOSTILE if (name, number) == ("red", 2) else f"{number}.png"
            photo(color, (48, 40), random).save(root / name / file)
    (root / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff and no more")
    return root


@pytest.fixture(scope="module")
def site(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("site") / "out"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = build(classifiers(), folder, root, settings=QUICK, progress=False)
    torch.set_num_threads(threads)
    assert made.page == root / "index.html"
    assert (made.photos, [each.path for each in made.failures], made.removed) == (
        9,
        [str(folder / "red" / "broken.jpg")],
        (),
    )
    assert repr(made) == f"Site(9 photos, 1 not readable, 0 removed: {made.page})"
    return root


def data(site, address):
    return read_data(data_folder(site) / f"{address}.js")


def unpacked(array):
    kinds = {"uint8": "<u1", "uint16": "<u2", "uint32": "<u4", "float32": "<f4"}
    numbers = np.frombuffer(base64.b64decode(array["data"]), kinds[array["type"]])
    return numbers.reshape(array["shape"])


# ---- what the files say ----


def test_site_says_what_there_is(site):
    about = read_site(site)
    (one,) = about["sets"]
    assert (one["name"], one["photos"], one["unreadable"]) == ("colours", 9, 1)
    assert one["classes"] == ["blue", "green", "red"]
    assert one["sizes"] == [3, 3, 3]
    assert about["k"] == 8
    assert about["metrics"] == ["cosine", "euclidean", "sqeuclidean", "minkowski"]
    assert [each["name"] for each in about["networks"]] == ["first", "second"]
    network = about["networks"][0]
    model = classifiers()["first"].network
    assert network["parameters"] == sum(each.numel() for each in model.parameters())
    names = data(site, "networks/0/names")["names"]
    assert names == ["blue", "green", "red", "</script>"]
    assert data(site, "networks/1/names")["names"][6] == "class 6"
    modules = data(site, "networks/0/modules")["modules"]
    for place, layer in enumerate(network["layers"]):
        module = modules[layer["index"]]
        assert (module["name"], module["layer"]) == (layer["name"], place)
        found = classifiers()["first"].activations(torch.zeros(1, 3, 32, 32), layer["name"])
        assert tuple(found[layer["name"]].shape[1:]) == tuple(module["shape"])
        assert layer["channels"] == module["shape"][0]
        assert layer["positions"] == module["shape"][1:]
    assert modules[0]["name"] == "stem.0"
    assert modules[0]["parameters"] == 8 * 3 * 9 + 8
    so_far = [layer["parameters_so_far"] for layer in network["layers"]]
    assert so_far == sorted(so_far)
    assert so_far[-1] <= network["parameters"] - 24 * 4  # all but the head


def test_photos_have_names_classes_and_copies(site, folder):
    photos = data(site, "sets/0/photos-0")
    assert photos["first"] == 0
    assert photos["names"][0] == "blue/0.png"
    assert f"red/{HOSTILE}" in photos["names"]
    assert photos["labels"] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert photos["sizes"] == [[48, 40]] * 9
    assert unpacked(data(site, "sets/0/labels")["labels"]).tolist() == photos["labels"]
    for kind in ("thumbs", "photos"):
        with Image.open(data_folder(site) / "sets" / "0" / kind / "0" / "8.jpg") as copy:
            assert copy.size == (48, 40)
    assert str(folder) not in (data_folder(site) / "sets" / "0" / "photos-0.js").read_text()


def test_nothing_in_a_site_can_end_a_script_or_names_this_machine(site, folder):
    root = data_folder(site)
    for path in sorted(root.rglob("*")):
        assert HOSTILE not in path.name
        if path.is_file() and path.suffix != ".jpg":
            assert str(folder.parent) not in path.read_text("utf-8")
        if path.suffix == ".js" and "pages" not in path.parts:
            text = path.read_text("ascii")
            assert "<" not in text
            assert text.startswith(f'playground.receive("{path.relative_to(root)}'[:-3])


def test_large_photos_are_shrunk(tmp_path):
    for number in range(2):
        Image.new("RGB", (1500, 300), (number * 90, 0, 0)).save(tmp_path / f"{number}.png")
    plain = replace(QUICK, units=0, undesirable=0, galleries=False, explained=0)
    build(classifiers()["first"], tmp_path, tmp_path / "site", settings=plain, progress=False)
    copies = data_folder(tmp_path / "site") / "sets" / "0"
    with Image.open(copies / "photos" / "0" / "1.jpg") as copy:
        assert copy.size == (640, 128)
    with Image.open(copies / "thumbs" / "0" / "1.jpg") as copy:
        assert copy.size == (128, 26)


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "minkowski"])
def test_neighbors_are_those_of_the_index(site, folder, metric):
    index = pyxai.ImageIndex.build(classifiers(), folder, progress=False)
    for number, network in enumerate(index.networks):
        for place, layer in enumerate(network.layers):
            address = f"sets/0/networks/{number}/layers/{place}/neighbors-{metric}-0"
            found = data(site, address)
            expected = index.search(
                range(9), 8, metric=metric, layer=layer.name, model=network.name
            )
            assert np.array_equal(unpacked(found["ids"]), [each.ids for each in expected])
            distances = np.array([each.distances for each in expected])
            assert np.allclose(unpacked(found["distances"]), distances, rtol=1e-6)
            scale = 1.0 if metric == "cosine" else found["typical"]
            similarity = 100 * np.maximum(0, 1 - distances / scale)
            assert np.allclose(similarity, [each.similarity for each in expected])


def test_maps_keep_proportions(site):
    points = unpacked(data(site, "sets/0/networks/0/layers/0/map-pca")["points"])
    assert points.shape == (9, 2)
    assert points.min() == 0
    assert points.max() == 65535
    wide = on_a_square(np.array([[0.0, 1.0], [4.0, 2.0]], np.float32))
    assert wide.tolist() == [[0, 24576], [65535, 40959]]
    same = on_a_square(np.zeros((3, 2), np.float32))
    assert (same == 32768).all()


def test_retrieval_is_that_of_the_index(site, folder):
    found = data(site, "sets/0/retrieval")
    index = pyxai.ImageIndex.build(classifiers(), folder, progress=False)
    report = index.evaluate((1, 10, 50), metrics="cosine", layers="stage3", model="second")
    measures = read_site(site)["measures"]
    layers = [layer["name"] for layer in read_site(site)["networks"][1]["layers"]]
    (row,) = (
        row
        for row in found["rows"]
        if (row["network"], row["metric"], row["class"]) == (1, "cosine", None)
        and layers[row["layer"]] == "stage3"
    )
    for name, (value, low, high) in zip(measures, row["measures"], strict=True):
        assert value == pytest.approx(report.rows[0].measures[name].value)
        assert low <= value <= high
    assert found["chance"] == pytest.approx(2 / 8)
    start = read_site(site)["sets"][0]["start"]
    best = max(
        (each for each in found["rows"] if each["class"] is None and each["metric"] == "cosine"),
        key=lambda each: each["measures"][measures.index("mAP")][0],
    )
    assert (start["network"], start["layer"]) == (best["network"], best["layer"])


def test_units_have_pictures_and_crops(site):
    for number in range(2):
        for place, layer in enumerate(read_site(site)["networks"][number]["layers"]):
            base = f"networks/{number}/layers/{place}"
            units = data(site, f"{base}/units")
            channels = [unit["channel"] for unit in units["units"]]
            assert channels == drawn_channels(layer["channels"], 2, 0)
            assert (layer["units"], layer["thumbnail"]) == (2, channels[0])
            assert units["size"] == 32  # of the network's input, below 128
            for unit in units["units"]:
                with Image.open(data_folder(site) / f"{base}/units/{unit['channel']}.jpg") as made:
                    assert made.size == (32, 32)
                assert len(unit["responses"]) == 2
                strongest = [crop["response"] for crop in unit["crops"]]
                assert strongest == sorted(strongest, reverse=True)
                for rank, crop in enumerate(unit["crops"]):
                    assert crop["set"] == 0
                    assert 0 <= crop["photo"] < 9
                    assert (
                        data_folder(site) / f"{base}/crops/{unit['channel']}-{rank}.jpg"
                    ).exists()


def test_explanations_are_those_of_the_library(site, folder):
    explained = data(site, "sets/0/networks/0/explained-0")["photos"]
    assert len(explained) == 9
    model = classifiers()["first"]
    path = folder / "green" / "1.png"
    shares = model(path)[0].softmax(0)
    one = explained[4]
    assert one["top"][0] == [int(shares.argmax()), pytest.approx(float(shares.max()), abs=1e-5)]
    targets = {each["target"] for each in one["maps"]}
    assert 1 in targets  # the class that the folder is named after
    kinds = [(each["kind"], each["method"]) for each in one["maps"]]
    assert {("cam", "cam"), ("cam", "layercam"), ("windows", "exhaustive")} <= set(kinds)
    for each in one["maps"]:
        assert each["region"] == [0, 0, 48, 40]
        if each["method"] == "cam":
            raw = pyxai.cam(model, path, each["target"], size=None, normalize=None)[0].numpy()
            shown = unpacked(each["values"]) / 255 * (each["high"] - each["low"]) + each["low"]
            assert np.allclose(shown, raw, atol=(raw.max() - raw.min()) / 500)
    undesirable = [
        number
        for number, one in enumerate(explained)
        for each in one["maps"]
        if each["kind"] == "undesirable"
    ]
    assert undesirable == [0]


def test_networks_without_positions_or_of_one_size_are_explained_by_windows(folder):
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 4))
    settings = Explaining(methods=("auto", "layercam"), windows=True)
    picture = Image.open(folder / "red" / "0.png").convert("RGB")
    found = Explainer(pyxai.Classifier(flat.eval(), preprocessing=SQUARE), settings)(picture)
    assert [each["kind"] for each in found["maps"]] == ["windows"]
    vit = pyxai.Classifier(SmallViT().eval(), preprocessing=SQUARE)
    kinds = {each["kind"] for each in Explainer(vit, settings)(picture)["maps"]}
    assert kinds == {"cam", "windows"}


def test_classes_have_crops(site):
    classes = data(site, "sets/0/networks/0/classes")
    assert classes["classes"]
    for row in classes["classes"]:
        crops = data(site, f"sets/0/networks/0/class-{row['class']}")
        several = [crop for group in [*crops["clusters"], crops["noise"]] for crop in group]
        assert len(several) == row["crops"]
        assert row["clusters"] == len(crops["clusters"])
        assert {crop["i"] for crop in several} == set(range(row["crops"]))
        for crop in several:
            assert (
                data_folder(site) / f"sets/0/networks/0/crops/{row['class']}-{crop['i']}.jpg"
            ).exists()
        picture = data_folder(site) / f"networks/0/classes/{row['class']}.jpg"
        assert picture.exists() == row["picture"]
    assert sum(row["picture"] for row in classes["classes"]) == min(2, len(classes["classes"]))


def test_models_are_left_as_they_were(folder, tmp_path):
    torch.manual_seed(3)
    model = SmallNet(4).train()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    random = torch.get_rng_state()
    build(
        pyxai.Classifier(model, preprocessing=SQUARE),
        folder,
        tmp_path / "site",
        settings=QUICK,
        progress=False,
    )
    assert model.training
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert all(each.grad is None and each.requires_grad for each in model.parameters())
    assert torch.equal(random, torch.get_rng_state())


# ---- a second call ----


def written(site):
    root = data_folder(site)
    return {
        path.relative_to(root).as_posix(): (path.stat().st_mtime_ns, path.stat().st_ino)
        for path in root.rglob("*.js")
    }


def test_a_second_call_keeps_what_does_not_change(site, folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(site, copy)
    before = written(copy)
    lost = "sets/0/networks/1/explained-0.js"
    (data_folder(copy) / lost).unlink()
    expected = (data_folder(site) / lost).read_text()
    build(classifiers(), folder, copy, settings=QUICK, progress=False)
    assert (data_folder(copy) / lost).read_text() == expected
    changed = {name for name, state in written(copy).items() if before[name] != state}
    assert changed == {lost}  # all else is linked


def test_another_preprocessing_of_the_same_weights_is_another_network(site, folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(site, copy)
    first = classifiers()["first"]
    darker = pyxai.Preprocessing(mean=(0.9, 0.9, 0.9), resize=(32, 32))
    other = pyxai.Classifier(
        first.model, class_names=first.class_names, preprocessing=darker, name="first"
    )
    build(
        {"first": other, "second": classifiers()["second"]},
        folder,
        copy,
        settings=QUICK,
        progress=False,
    )
    index = pyxai.ImageIndex.build(other, folder, progress=False)
    layer = index.networks[0].layers[0].name
    found = unpacked(data(copy, "sets/0/networks/0/layers/0/neighbors-euclidean-0")["distances"])
    expected = index.search(range(9), 8, metric="euclidean", layer=layer)
    assert np.allclose(found, [each.distances for each in expected], rtol=1e-5)
    names = ("explained-0", "layers/0/neighbors-cosine-0", "class-", "layers/0/map-pca")
    for name, state in written(site).items():
        if "sets/0/networks/1" in name and any(each in name for each in names):
            assert written(copy)[name][0] == state[0]  # the second network is the same
    one, two = (data(root, "sets/0/networks/0/explained-0") for root in (site, copy))
    assert one != two


def test_other_settings_leave_no_stale_files(site, folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(site, copy)
    settings = replace(QUICK, metrics=("manhattan",), units=0, galleries=False)
    build(classifiers()["second"], folder, copy, settings=settings, progress=False)
    root = data_folder(copy)
    names = {path.relative_to(root).as_posix() for path in root.rglob("*.*")}
    names = {name for name in names if not name.startswith("pages/")}
    assert not [name for name in names if "networks/1" in name or "cosine" in name]
    assert not [name for name in names if "units" in name or "crops" in name or "class-" in name]
    assert [name for name in names if "manhattan" in name]
    assert read_site(copy)["networks"][0]["name"] == "second"


def test_a_run_that_was_interrupted_goes_on(folder, tmp_path, monkeypatch):
    calls, real = [], Explainer.__call__

    def broken(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return real(self, *arguments, **options)

    monkeypatch.setattr(Explainer, "__call__", broken)
    settings = replace(QUICK, units=0, undesirable=0)
    options = {"settings": settings, "index": tmp_path / "index", "progress": False}
    with pytest.raises(KeyboardInterrupt):
        build(classifiers(), folder, tmp_path / "site", **options)
    with pytest.raises(ValueError, match="site: expected the folder of a site that"):
        read_site(tmp_path / "site")
    build(classifiers(), folder, tmp_path / "site", **options)
    assert len(calls) == 12 + 9  # the nine photos of the first network were not explained again
    assert read_site(tmp_path / "site")["sets"][0]["explained"] == 9


def test_several_data_sets(site, folder, tmp_path):
    sets = {"cold": folder / "blue", "warm": [folder / "red" / "0.png", folder / "green"]}
    settings = replace(QUICK, units=0, undesirable=0, explained=2)
    build(classifiers()["first"], sets, tmp_path / "site", settings=settings, progress=False)
    about = read_site(tmp_path / "site")
    assert [(each["name"], each["photos"]) for each in about["sets"]] == [("cold", 3), ("warm", 4)]
    assert about["title"] == "cold, warm"
    assert [each["retrieval"] for each in about["sets"]] == [False, False]
    names = data(tmp_path / "site", "sets/1/photos-0")["names"]
    assert names == ["0.png", "0.png", "1.png", "2.png"]
    explained = data(tmp_path / "site", "sets/1/networks/0/explained-0")["photos"]
    assert [each is not None for each in explained] == [True, False, True, False]


# ---- bad input ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ("cosinus",)}, "metric: expected one of .*closest: 'cosine'"),
        ({"metrics": ()}, "metrics: expected at least one of"),
        ({"maps": ("tsne",)}, "maps: expected some of 'pca' and 'umap'"),
        ({"methods": ("gradcamm",)}, "method: expected one of .*closest"),
        ({"units": -1}, "units: expected an int of at least 0"),
        ({"explained": -1}, "explained: expected None or an int of at least 0"),
        ({"unit_steps": 0}, "unit_steps: expected an int of at least 1"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        SiteSettings(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": replace(QUICK, layers="stage9")}, "stage9.*closest"),
        ({"settings": {"units": 3}}, r"settings: expected None or SiteSettings\(...\), got a dict"),
        ({"seed": -1}, "seed: expected an int of at least 0"),
    ],
)
def test_bad_arguments(folder, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        build(classifiers()["first"], folder, tmp_path / "site", progress=False, **options)


def test_bad_photos(folder, tmp_path):
    model = classifiers()["first"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(pyxai.images.ImageError, match="expected a folder with photos, found none"):
        build(model, tmp_path / "empty", tmp_path / "site", settings=QUICK, progress=False)
    with pytest.raises(ValueError, match="expected at least two that can be read, got one"):
        build(model, folder / "red" / "0.png", tmp_path / "site", settings=QUICK, progress=False)
    for photos in ([Image.new("RGB", (40, 40))], {}, 3):
        with pytest.raises(ValueError, match="photos: expected a folder, files, or a mapping"):
            build(model, photos, tmp_path / "site", settings=QUICK, progress=False)


def test_a_folder_with_other_files_is_left_alone(folder, tmp_path):
    (tmp_path / "thesis.txt").write_text("important")
    with pytest.raises(ValueError, match="holds other files"):
        build(classifiers()["first"], folder, tmp_path, settings=QUICK, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_hosts_of_sites_ask_for_may_be_there_first(tmp_path):
    kept = {"CNAME": "example.org", "robots.txt": "", ".git/HEAD": "ref"}
    (tmp_path / ".git").mkdir()
    for name, text in kept.items():
        (tmp_path / name).write_text(text)
    with site_home(tmp_path):
        pass
    assert {name: (tmp_path / name).read_text() for name in kept} == kept


def test_data_are_plain_ascii(tmp_path):
    with site_home(tmp_path / "site") as home:
        site = SiteFolder(home)
        record = {"text": '</script> "quoted" ü \u2028', "list": [1.5, None, True]}
        site.write("odd", record)
        path = tmp_path / "site" / "data" / ".next" / "odd.js"
        assert "</" not in path.read_text("ascii")
        assert site.read("odd") == record
        with pytest.raises(ValueError, match="Out of range float"):
            site.write("nan", {"value": float("nan")})
        assert not site.has("nan")
        path.write_text(json.dumps(record))
        with pytest.raises(ValueError, match="expected a file of data"):
            read_data(path)


def test_pages_are_copied(site):
    pages = Path(pyxai.__file__).parent / "playground" / "site"
    folder = data_folder(site).relative_to(site).as_posix()
    html = (site / "index.html").read_text()
    links = re.findall(r'(?:src|href|content)="([^"#]*)"', html)
    for link in links:
        if link.startswith(folder) and link != folder:
            page = link.removeprefix(f"{folder}/pages/")
            assert (site / link).read_bytes() == (pages / page).read_bytes()
            html = html.replace(link, page)
    assert html.replace(folder, "data") == (pages / "index.html").read_text()
    assert len([link for link in links if link.startswith(f"{folder}/pages/")]) > 20
    shown = {path.name for path in (data_folder(site) / "pages").rglob("*.*")}
    assert shown == {path.name for path in pages.rglob("*.*")} - {"index.html"}
