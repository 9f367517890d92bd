"""The index: building, keeping, searching; and what it refuses."""

from __future__ import annotations

import copy
import json
import sys

import numpy as np
import pytest
import torch
from gallery_photos import COLORS, NAMES, PLAIN, ColorNet, color_classifier, folder_of_photos
from in_threads import in_threads
from networks import SmallViT, random_net
from PIL import Image
from torch import nn

import pyxai
from pyxai import Classifier, ImageIndex, Preprocessing
from pyxai.classifier import Examined
from pyxai.classifier.features import pooled_features
from pyxai.images import ImageError
from pyxai.runs import going, working
from pyxai.search import extraction
from pyxai.search.layers import spread_layers

SMALL = Preprocessing((0.5,) * 3, (0.5,) * 3, resize=(32, 32))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return folder_of_photos(tmp_path_factory.mktemp("photos") / "colours", count=4)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return random_net()


@pytest.fixture
def classifier(network):
    return Classifier(network, preprocessing=SMALL, name="small")


@pytest.fixture
def index(classifier, photos):
    return ImageIndex.build(classifier, photos, progress=False)


# ---- building ----


def test_features_are_those_of_the_network(index, classifier, photos):
    names = [layer.name for layer in index.networks[0].layers]
    inputs = classifier.to_input([photo.path for photo in index.photos])
    expected = pooled_features(Examined(classifier, inputs), names)
    for name in names:
        torch.testing.assert_close(index.features(name), expected[name], rtol=1e-4, atol=1e-5)
    assert [photo.label for photo in index.photos] == sorted(list(COLORS) * 4)
    assert (index.photos[0].width, index.photos[0].height) == (96, 96)


@pytest.mark.parametrize("pooling", ["average", "max", "gem", "flatten"])
def test_pooling(classifier, photos, pooling):
    index = ImageIndex.build(classifier, photos, layers="stage2", pooling=pooling, progress=False)
    inputs = classifier.to_input([photo.path for photo in index.photos])
    raw = classifier.activations(inputs, "stage2")["stage2"]
    expected = {
        "average": raw.mean(dim=(2, 3)),
        "max": raw.amax(dim=(2, 3)),
        "gem": raw.clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3),
        "flatten": raw.flatten(1),
    }[pooling]
    torch.testing.assert_close(index.features(), expected, rtol=1e-4, atol=1e-5)


def test_each_photo_is_decoded_once_and_each_network_runs_once(photos, monkeypatch):
    opened, forwards = [], []
    original = working.open_photo

    def counting(source, *, name):
        opened.append(name)
        return original(source, name=name)

    monkeypatch.setattr(working, "open_photo", counting)
    nets = [random_net(), random_net()]
    for net in nets:
        net.stem[0].register_forward_hook(
            lambda module, inputs, output: forwards.append(len(output))
        )
    models = {"a": Classifier(nets[0], preprocessing=SMALL), "b": nets[1]}
    index = ImageIndex.build(models, photos, layers=["stage1", "stage3"], progress=False)
    assert len(opened) == len(set(opened)) == len(index) == 12
    # Beside the photos only what is run to find layouts and widths.
    assert sum(forwards) == 2 * 12 + 2 * 2
    assert [network.name for network in index.networks] == ["a", "b"]
    assert index.search(0, model="b").network == "b"


def test_the_model_is_as_it_was(network, photos):
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    index = ImageIndex.build(Classifier(network, preprocessing=SMALL), photos, progress=False)
    index.search([0, 1])
    index.project()
    index.evaluate(bootstrap=5)
    assert network.training
    assert all(not module._forward_hooks for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    network.eval()


def test_layers_are_spread_over_the_depth():
    inputs = torch.randn(1, 3, 32, 32)
    names = spread_layers(Examined(Classifier(random_net()), inputs))
    assert len(names) == 8
    assert names[0] == "stem"
    assert names[-1] == "stage3"
    assert spread_layers(Examined(Classifier(random_net()), inputs), 3)[::2] == [
        "stem",
        "stage3",
    ]
    # The stages stand for themselves where there are enough of them; the head is left out.
    deep = nn.Sequential(
        *(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()) for _ in range(12)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, 4),
    )
    assert spread_layers(Examined(Classifier(deep), inputs)) == [
        "0",
        "2",
        "3",
        "5",
        "6",
        "8",
        "9",
        "11",
    ]
    tokens = spread_layers(Examined(Classifier(SmallViT().eval()), inputs))
    assert {"patch", "blocks.0", "blocks.1", "norm"} <= set(tokens)
    assert "head" not in tokens


def test_half_precision_on_disk(classifier, photos, tmp_path):
    half = ImageIndex.build(
        classifier, photos, directory=tmp_path / "half", dtype="float16", progress=False
    )
    whole = ImageIndex.build(classifier, photos, progress=False)
    assert half.features().dtype == torch.float16
    torch.testing.assert_close(half.features().float(), whole.features(), rtol=1e-3, atol=1e-3)


def test_a_network_in_another_dtype_and_on_another_device(network, photos, device):
    half = Classifier(copy.deepcopy(network).to(device, torch.bfloat16), preprocessing=SMALL)
    index = ImageIndex.build(half, photos, progress=False)
    whole = ImageIndex.build(Classifier(network, preprocessing=SMALL), photos, progress=False)
    assert index.features().dtype == torch.float32
    torch.testing.assert_close(index.features(), whole.features(), rtol=0.05, atol=0.1)
    assert index.search(index.photos[3].path, 1).ids.tolist() == [3]


def test_photos_that_cannot_be_used(classifier, tmp_path):
    folder = folder_of_photos(tmp_path / "photos", count=2)
    (folder / "red" / "broken.png").write_bytes(b"no picture")
    (folder / "red" / "0.jpg").write_bytes(b"")
    index = ImageIndex.build(classifier, folder, directory=tmp_path / "index", progress=False)
    assert len(index) == 6
    bad = [str(folder / "red" / name) for name in ("0.jpg", "broken.png")]
    assert sorted(path for path, _ in index.failures) == bad
    assert ImageIndex.load(tmp_path / "index").failures == index.failures


def test_features_that_are_not_finite(photos):
    class Broken(ColorNet):
        def forward(self, images):
            bright = images.amax((1, 2, 3), True) > 0.8
            return super().forward(images + torch.where(bright, torch.inf, 0.0))

    odd = Classifier(Broken().eval(), preprocessing=PLAIN)
    index = ImageIndex.build(odd, photos, layers="relu", progress=False)
    assert 0 < len(index) < 12
    assert all("not finite" in reason for _, reason in index.failures)
    assert len(index) + len(index.failures) == 12


def test_labels(classifier, photos, tmp_path):
    files = sorted(photos.rglob("*.png"))[:2]
    single = ImageIndex.build(classifier, files, progress=False)
    assert [photo.label for photo in single.photos] == ["blue", "blue"]
    flat = ImageIndex.build(classifier, photos / "red", progress=False)
    assert {photo.label for photo in flat.photos} == {None}
    chosen = ImageIndex.build(classifier, photos, labels=lambda path: path[-5], progress=False)
    assert {photo.label for photo in chosen.photos} == set("0123")
    assert not any(photo.label for photo in ImageIndex.build(classifier, files, labels=None).photos)


def test_photos_in_memory(classifier):
    pictures = [Image.new("RGB", (40, 40), color) for color in ("red", "blue", "red")]
    index = ImageIndex.build(classifier, pictures, progress=False)
    found = index.search(0, 1)
    assert found.paths == ("images[2]",)
    assert found.figure().width > 100  # empty places for what no file has


# ---- keeping ----


def test_save_and_load(index, classifier, tmp_path):
    before = index.search(0, 5)
    index.save(tmp_path / "index")
    for found in (index, ImageIndex.load(tmp_path / "index")):
        after = found.search(0, 5)
        assert after.to_dict() == before.to_dict()
    assert ImageIndex.load(tmp_path / "index", classifier).search(index.photos[0].path, 1).ids == [
        0
    ]
    assert not list((tmp_path / "index").glob("*.part"))
    with pytest.raises(ValueError, match="directory: expected a folder without an index"):
        ImageIndex.build(classifier, index.photos[0].path, progress=False).save(tmp_path / "index")


def test_save_a_copy(index, classifier, tmp_path):
    index.save(tmp_path / "one")
    index.save(tmp_path / "one")  # it is there
    index.save(tmp_path / "two")
    again = [ImageIndex.load(tmp_path / name, classifier) for name in ("one", "two")]
    assert torch.equal(again[0].features("stem"), again[1].features("stem"))
    assert len(again[1].add(index.photos[0].path, progress=False)) == len(again[0]) == 12


def test_add(classifier, photos, tmp_path):
    index = ImageIndex.build(classifier, photos / "red", directory=tmp_path / "a", progress=False)
    assert len(index.search(0)) == 3
    index.add(photos / "green", progress=False).add(photos / "green", progress=False)
    assert len(index) == 8
    assert len(index.search(0)) == 7
    loaded = ImageIndex.load(tmp_path / "a", classifier)
    loaded.add(photos, progress=False)
    assert len(loaded) == 12
    whole = ImageIndex.build(classifier, photos, progress=False)
    place = {photo.path: at for at, photo in enumerate(loaded.photos)}
    order = [place[photo.path] for photo in whole.photos]
    torch.testing.assert_close(loaded.features()[order], whole.features(), rtol=1e-4, atol=1e-5)


def test_an_interrupted_run_goes_on(classifier, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(working, "_MOST", 3)
    original, seen = going.name_photos, []

    def interrupted(sources):
        for at, pair in enumerate(original(sources)):
            if at == 8:
                raise KeyboardInterrupt
            yield pair

    monkeypatch.setattr(going, "name_photos", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ImageIndex.build(classifier, photos, directory=tmp_path / "i", progress=False)
    assert len(ImageIndex.load(tmp_path / "i")) == 6
    original_forward = extraction.features_of

    def watched(model, inputs, *rest):
        seen.extend(inputs)
        return original_forward(model, inputs, *rest)

    monkeypatch.setattr(going, "name_photos", original)
    monkeypatch.setattr(extraction, "features_of", watched)
    index = ImageIndex.build(classifier, photos, directory=tmp_path / "i", progress=False)
    assert len(seen) == 6  # only those that were not there
    whole = ImageIndex.build(classifier, photos, progress=False)
    assert index.photos == whole.photos
    torch.testing.assert_close(index.features(), whole.features())
    # Once it is whole, the same call does nothing, and small parts have become one.
    assert len(ImageIndex.build(classifier, photos, directory=tmp_path / "i")) == 12
    assert len(list((tmp_path / "i").glob("*.safetensors"))) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_features_are_mapped_and_not_read(index, tmp_path):
    index.save(tmp_path / "index")
    loaded = ImageIndex.load(tmp_path / "index")
    loaded.search(0, 1)
    with open("/proc/self/maps") as file:  # noqa: PTH123
        assert any(str(tmp_path / "index") in line for line in file)


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: (d / "index.json").write_text("{"),
        lambda d: (d / "index.json").write_text("[]"),
        lambda d: (d / "index.json").write_text('{"format": "something else"}'),
        lambda d: next(d.glob("*.safetensors")).unlink(),
        lambda d: next(d.glob("index-*.json")).write_text("{}"),
        lambda d: _cut_off(next(d.glob("*.safetensors"))),
        lambda d: _change(d / "index.json", lambda r: r["parts"][0].update(photos=11)),
        lambda d: _change(d / "index.json", lambda r: r["parts"][0].update(stem="../x")),
        lambda d: _change(d / "index.json", lambda r: r["identity"].update(dtype="float16")),
        lambda d: _change(d / "index.json", lambda r: r["identity"]["networks"][0]["layers"].pop()),
        lambda d: _change(next(d.glob("index-*.json")), lambda r: r["path"].pop()),
    ],
)
def test_damaged_indexes_are_refused(index, tmp_path, damage):
    index.save(tmp_path / "index")
    damage(tmp_path / "index")
    with pytest.raises(ValueError, match=r"directory: expected an index saved by pyxai"):
        ImageIndex.load(tmp_path / "index")


def _cut_off(path):
    data = path.read_bytes()
    path.unlink()  # what is mapped stays valid
    path.write_bytes(data[:-8])


def _change(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


# ---- searching ----


def test_alike_photos_are_found(photos):
    index = ImageIndex.build(color_classifier(), photos, layers="relu", progress=False)
    for at, photo in enumerate(index.photos):
        found = index.search(at, 3)
        assert set(found.labels) == {photo.label}
        assert at not in found.ids
        assert (np.diff(found.distances) >= 0).all()
        assert found.query_label == photo.label


def test_queries_of_every_kind_agree(index, classifier):
    path = index.photos[5].path
    by_id = index.search(5, 4, include_itself=True)
    assert by_id.ids[0] == 5
    assert by_id.distances[0] == pytest.approx(0, abs=1e-12)
    assert by_id.similarity[0] == pytest.approx(100)
    queries = [path, Image.open(path), np.asarray(Image.open(path)), 5]
    several = index.search(queries, 4, include_itself=True)
    tensors = index.search(classifier.to_input([path]), 4)
    for found in (*several, *tensors, index.search(path, 4), index.search(np.int64(5), 4)):
        same = 4 if 5 in found.ids else 3
        expected = by_id.ids if same == 4 else by_id.ids[1:]
        assert found.ids[:same].tolist() == expected.tolist()
    assert [found.ids.tolist() for found in index.search(range(3), 2)] == [
        index.search(at, 2).ids.tolist() for at in range(3)
    ]
    assert len(index.search(np.array([0, 1]), 2)) == 2


def test_search_by_a_piece(photos):
    index = ImageIndex.build(color_classifier(), photos, layers="relu", progress=False)
    green = [at for at, photo in enumerate(index.photos) if photo.label == "green"]
    photo = Image.open(index.photos[green[0]].path)
    page = Image.new("RGB", (300, 300), (90, 90, 90))
    page.paste(photo, (100, 50))
    page.paste((200, 80, 80), (0, 150, 300, 300))
    found = index.search(page, 4, box=(100, 50, 196, 146))
    assert found.ids[0] == green[0]
    assert set(found.labels) == {"green"}
    same = index.search(green[0], 4, box=(0, 0, 96, 96), include_itself=True)
    assert same.distances == pytest.approx(found.distances, abs=1e-6)
    assert green[0] not in index.search(green[0], 4, box=(0, 0, 96, 96)).ids


def test_similarity(index):
    cosine = index.search(0, 11)
    assert cosine.similarity == pytest.approx(100 * (1 - cosine.distances).clip(0, 1))
    far = index.search(0, 11, metric="euclidean")
    assert ((far.similarity >= 0) & (far.similarity <= 100)).all()
    assert (np.diff(far.similarity) <= 0).all()
    near = far.similarity > 0
    scale = far.distances[near] / (1 - far.similarity[near] / 100)
    assert scale == pytest.approx(np.full(near.sum(), scale[0]))


def test_default_layer_and_model(index):
    assert index.search(0).layer == index.networks[0].layers[-1].name == "stage3"
    assert len(index.search(0)) == 11  # 50 are asked for, there are no more
    assert index.search(0, layer="stem").layer == "stem"


def test_result(index, tmp_path):
    found = index.search(0, 5)
    record = json.loads(json.dumps(found.to_dict()))
    assert [row["id"] for row in record["results"]] == found.ids.tolist()
    page = found.figure(columns=3, cell=50)
    assert page.size == (4 * 56 + 6, 2 * (56 + 16) + 6)
    assert "5 photos by small stage3, cosine" in repr(found)
    with pytest.raises(ValueError, match="columns: expected"):
        found.figure(columns=0)


def test_threads(index):
    expected = [index.search(at, 3, metric="euclidean").ids.tolist() for at in range(12)]
    results = {}

    def work(at):
        results[at] = index.search(at, 3, metric="euclidean").ids.tolist()

    in_threads(work, 12)
    assert [results[at] for at in range(12)] == expected


def test_a_single_photo(classifier, photos):
    index = ImageIndex.build(classifier, photos / "red" / "0.png", progress=False)
    assert len(index.search(0)) == 0
    assert index.search(0).figure().width > 0
    assert len(index.search(index.photos[0].path, metric="euclidean")) == 1
    assert index.project().points.tolist() == [[0, 0]]


# ---- bad input ----


def test_an_index_of_another_network(index, classifier, tmp_path):
    index.save(tmp_path / "index")
    torch.manual_seed(1)
    other = Classifier(random_net(), preprocessing=SMALL, name="other")
    with pytest.raises(ValueError, match=r"models: expected networks of the index \(small\), got"):
        ImageIndex.load(tmp_path / "index", other)
    again = Classifier(classifier.model, preprocessing=PLAIN)
    with pytest.raises(ValueError, match="another preprocessing"):
        ImageIndex.load(tmp_path / "index", again)
    without = ImageIndex.load(tmp_path / "index")
    with pytest.raises(ValueError, match=r"model: expected an index with its network 'small'"):
        without.search(index.photos[0].path)
    with pytest.raises(ValueError, match="model: expected an index with its network"):
        without.add(index.photos[0].path)


def test_a_directory_with_another_index(classifier, photos, tmp_path):
    red = photos / "red"
    ImageIndex.build(classifier, red, directory=tmp_path / "i", layers="stem", progress=False)
    for options in ({"layers": "stage1"}, {"pooling": "max", "layers": "stem"}):
        with pytest.raises(ValueError, match="where these differ: "):
            ImageIndex.build(
                classifier, photos, directory=tmp_path / "i", progress=False, **options
            )
    assert len(ImageIndex.load(tmp_path / "i")) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "stge1"}, r"layer: expected a layer of the index .*closest: 'stage1'"),
        ({"model": "large"}, "model: expected one of 'small'"),
        ({"metric": "euclid"}, "metric: expected one of cosine, .*closest: 'euclidean'"),
        ({"metric": None}, "metric: expected one of"),
        ({"metric": "minkowski", "p": 0.5}, "p: expected a number of at least 1, got 0.5"),
        ({"metric": "minkowski", "p": float("nan")}, "p: expected a number of at least 1"),
        ({"p": 3}, "p: expected None for cosine"),
        ({"n_neighbors": 0}, "n_neighbors: expected an int of at least 1, got 0"),
        ({"n_neighbors": 2.5}, "n_neighbors: expected an int"),
        ({"backend": "annoy"}, "backend: expected one of exact, faiss, lancedb"),
        ({"query": 12}, "query: expected an id from 0 to 11, or a photo, got 12"),
        ({"query": -1}, "query: expected an id from 0 to 11"),
        ({"query": True}, "query: expected an id"),
        ({"query": []}, "query: expected a photo, an id, or several"),
        ({"query": "missing.png"}, "missing.png: "),
        ({"query": torch.full((1, 3, 32, 32), torch.nan)}, "query: expected photos with finite"),
        ({"box": (0, 0, 97, 10)}, r"box: expected \(x0, y0, x1, y1\) inside 96 × 96 pixels"),
        ({"box": (5, 5, 5, 9)}, "box: expected"),
        ({"box": "all"}, "box: expected"),
        ({"query": torch.zeros(1, 3, 32, 32), "box": (0, 0, 1, 1)}, "box: expected None"),
    ],
)
def test_searches_that_are_refused(index, options, message):
    with pytest.raises(ValueError, match=message):
        index.search(**{"query": 0, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "mean"}, "pooling: expected one of average, max, gem, flatten"),
        ({"dtype": "int8"}, "dtype: expected one of float32, float16"),
        ({"layers": "stage9"}, "layer: expected the name of a submodule"),
        ({"layers": []}, "layers: expected at least one layer"),
        ({"layers": {"big": "stem"}}, r"layers: expected layers by name of a network \(small\)"),
        ({"labels": "class"}, "labels: expected 'folder', None or a function"),
        ({"models": "resnet"}, "model: expected a torch.nn.Module or pyxai.Classifier"),
        ({"models": []}, "models: expected a classifier, or several"),
    ],
)
def test_builds_that_are_refused(classifier, photos, options, message):
    with pytest.raises(ValueError, match=message):
        ImageIndex.build(**{"models": classifier, "photos": photos, "progress": False, **options})


def test_folders_that_are_refused(classifier, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="expected a folder with photos"):
        ImageIndex.build(classifier, tmp_path / "empty", progress=False)
    with pytest.raises(ImageError, match="at least one"):
        ImageIndex.build(classifier, [], progress=False)
    (tmp_path / "empty" / "a.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"a\.png"):
        ImageIndex.build(classifier, tmp_path / "empty", progress=False)
    with pytest.raises(ValueError, match=r"directory: expected a folder with an index"):
        ImageIndex.load(tmp_path / "empty")


def test_flattening_needs_one_size(network):
    raw = Classifier(network, preprocessing=PLAIN)
    pictures = [Image.new("RGB", (size, size)) for size in (32, 40)]
    with pytest.raises(ValueError, match="pooling: expected"):
        ImageIndex.build(raw, pictures, pooling="flatten", layers="stage2", progress=False)
    index = ImageIndex.build(raw, pictures[:1], pooling="flatten", layers="stage2", progress=False)
    with pytest.raises(ValueError, match="query: expected photos that give"):
        index.search(pictures[1])


def test_hostile_file_names(classifier, tmp_path):
    name = "<img src=x onerror=alert(1)>\n.png"
    Image.new("RGB", (20, 20)).save(tmp_path / name)
    Image.new("RGB", (20, 20), "red").save(tmp_path / "b.png")
    index = ImageIndex.build(classifier, tmp_path, directory=tmp_path / "index", progress=False)
    loaded = ImageIndex.load(tmp_path / "index")
    assert [photo.path for photo in loaded.photos] == [photo.path for photo in index.photos]
    assert "\n" not in repr(index.search(str(tmp_path / name)))


def test_public_name():
    assert pyxai.ImageIndex is ImageIndex
    assert NAMES[:3] == COLORS
