"""Class galleries: which crops are chosen, and how they are clustered."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from gallery_photos import (
    COLORS,
    CROP,
    NAMES,
    PLAIN,
    color_classifier,
    facts,
    folder_of_photos,
    photo,
)
from networks import random_net
from PIL import Image

import pyxai
from pyxai import ClassGallery, Classifier, Preprocessing
from pyxai.galleries.contents import Settings
from pyxai.galleries.evidence import WindowEvidence, choose_evidence
from pyxai.galleries.selection import POOL, Candidate, Search, Selection, without_duplicates
from pyxai.images import ImageError
from pyxai.runs import PhotoState
from pyxai.runs.working import Task, work_on

EVIDENCE = ["cam", "sliding_window"]


def new(model=None, crop=CROP, **options):
    options = {"stride": 8, "clusters": 2, **options}
    return ClassGallery(color_classifier() if model is None else model, crop, **options)


@pytest.fixture
def folder(tmp_path):
    return folder_of_photos(tmp_path / "photos")


# ---- which crops ----


@pytest.mark.parametrize("evidence", EVIDENCE)
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_the_coloured_square_is_found(folder, evidence, head):
    gallery = new(color_classifier(head), evidence=evidence, per_photo=1).fit(folder)
    for index, name in enumerate(COLORS):
        crops = gallery[name]
        assert len(crops) == 5
        assert [crop.score for crop in crops] == sorted((c.score for c in crops), reverse=True)
        for crop in crops:
            number = int(crop.name.rsplit("/", 1)[1][0])
            seed = 100 * index + number
            x, y = 8 * (seed % 8), 8 * (seed % 7)
            assert crop.box == (x, y, x + CROP, y + CROP)
            assert crop.label == name
        assert gallery.to_dict()["classes"][name]["purity"] == 1.0
    if gallery["grey"]:  # no photo lies in a folder of this name
        assert gallery.to_dict()["purity"] < 1


@pytest.mark.parametrize("evidence", EVIDENCE)
def test_scores_are_probabilities_of_the_crops(folder, evidence):
    model = color_classifier()
    gallery = new(model, evidence=evidence).fit(folder)
    for index, name in enumerate(COLORS):
        for crop in gallery[name]:
            pixels = torch.from_numpy(np.array(crop.picture())).permute(2, 0, 1)[None] / 255
            probability = model(pixels).softmax(dim=1)[0]
            assert crop.score == pytest.approx(float(probability[index]), abs=1e-5)
            assert int(probability.argmax()) == index


def test_resize_is_what_the_network_gets():
    seen = []

    class Watching(type(color_classifier().model)):
        def forward(self, images):
            seen.append(tuple(images.shape[-2:]))
            return super().forward(images)

    model = Classifier(Watching().eval(), class_names=NAMES, preprocessing=PLAIN)
    new(model, evidence="sliding_window", resize=24).fit([photo(1, "red")])
    assert set(seen) == {(24, 24)}


def test_grad_cam_is_weighted_by_the_photo_and_lies_in_its_region():
    """The preprocessing cuts the sides off a photo: nothing there can count."""
    wide = Image.new("RGB", (160, 120))
    wide.paste(photo(1, "red", (0, 0), size=80), (0, 0))
    wide.paste(photo(2, "red", (0, 16), size=80), (80, 24))
    narrow = Preprocessing(mean=PLAIN.mean, std=PLAIN.std, crop=80)
    model = Classifier(color_classifier("mlp").model, class_names=NAMES, preprocessing=narrow)
    gallery = new(model, evidence="cam", per_photo=9, max_overlap=1.0).fit([wide])
    best = gallery["red"][0]
    assert best.box == (80, 40, 112, 72)
    region_probability = model(wide).softmax(dim=1)[0, 0]
    assert best.score == pytest.approx(float(region_probability))  # the map is 1 all over it
    # The square at the left lies outside; windows that touch the region only there score 0.
    assert all(crop.box[2] > 40 for crop in gallery["red"])


def test_networks_of_one_size_fall_back_on_grad_cam():
    fixed = Preprocessing(mean=PLAIN.mean, std=PLAIN.std, resize=(96, 96))
    model = Classifier(
        color_classifier(size=96).model, class_names=NAMES, preprocessing=fixed, name="fixed"
    )
    gallery = new(model, resize=96, per_photo=1).fit([photo(1, "green"), photo(2, "red")])
    assert [crop.box for crop in gallery["green"]] == [(32, 16, 64, 48)]


def test_a_photo_gives_few_crops_that_lie_apart():
    pixels = np.array(photo(1, "red", (0, 0), side=96))
    for per_photo, overlap in ((1, 0.3), (2, 0.3), (4, 0.0), (50, 0.5)):
        crops = new(per_photo=per_photo, max_overlap=overlap).fit([pixels])["red"]
        assert 1 <= len(crops) <= per_photo
        boxes = np.array([crop.box for crop in crops])
        for first in range(len(boxes)):
            for second in range(first):
                assert iou(boxes[first], boxes[second]) <= overlap
    assert len(new(per_photo=2, max_overlap=1.0).fit([pixels])["red"]) == 2


def iou(a, b):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return width * height / (2 * CROP * CROP - width * height)


def test_near_duplicates_across_photos_are_left_out(tmp_path):
    original = photo(1, "red")
    brighter = Image.fromarray((np.array(original) * 0.9 + 10).astype(np.uint8))
    sources = [original, brighter, original, photo(2, "red")]
    gallery = new(per_photo=1).fit(sources)
    assert sorted(crop.name for crop in gallery["red"]) != []
    assert len(gallery["red"]) == 2
    assert "images[3]" in [crop.name for crop in gallery["red"]]
    assert gallery.to_dict()["classes"]["red"]["near_duplicates"] == 2


def candidate(score, name="a", gray=None, box=(0, 0, 8, 8)):
    seed = abs(hash((score, name))) % 2**32
    values = np.random.default_rng(seed).integers(0, 255, 256) if gray is None else gray
    return Candidate(score, name, box, np.asarray(values, np.uint8).tobytes())


def test_near_duplicates_by_hand():
    values = np.random.default_rng(0).integers(50, 200, 256)
    noisy = values + np.random.default_rng(1).integers(-5, 6, 256)
    other = np.random.default_rng(2).integers(50, 200, 256)
    flat, other_flat = np.full(256, 10), np.full(256, 240)
    group = [
        candidate(-1.0, "a", values),
        candidate(-2.0, "b", noisy),
        candidate(-3.0, "c", other),
        candidate(-4.0, "d", flat),
        candidate(-5.0, "e", other_flat),
    ]
    chosen, dropped = without_duplicates(group, 9)
    assert [each.name for each in chosen] == ["a", "c", "d"]
    assert dropped == 2
    chosen, dropped = without_duplicates(group, 2)  # nothing is looked at beyond what is wanted
    assert [each.name for each in chosen] == ["a", "c"]
    assert dropped == 1
    assert without_duplicates([], 3) == ([], 0)


def test_candidates_have_one_order():
    group = [
        candidate(-1.0, "b"),
        candidate(-1.0, "a", box=(1, 0, 9, 8)),
        candidate(-1.0, "a"),
        candidate(-0.5, "z"),
    ]
    for seed in range(5):
        random.Random(seed).shuffle(group)
        ordered = [(each.name, each.box[0]) for each in sorted(group, reverse=True)]
        assert ordered == [("z", 0), ("a", 0), ("a", 1), ("b", 0)]


def test_memory_is_bounded_and_order_does_not_matter():
    settings = Settings(8, "cam", None, None, 5, 2, 0.3, None, None, "exhaustive", 0)
    rng = np.random.default_rng(0)
    photos = []
    for number in range(200):
        boxes = np.array([[x, 0, x + 8, 8] for x in (0, 8, 16)])
        scores = np.log(rng.integers(1, 20, 3) / 20)  # many ties
        found = WindowEvidence(boxes, rng.integers(0, 2, 3), scores, 3)
        picture = Image.fromarray(rng.integers(0, 255, (8, 24, 3), dtype=np.uint8))
        photos.append((Task(PhotoState(f"photo {number}", ""), picture), found))
    results = []
    for seed in range(3):
        random.Random(seed).shuffle(photos)
        selection = Selection(settings, None)
        for task, found in photos:
            search = Search(lambda picture, found=found: found, settings, None)
            selection.take(work_on(search, [task]).part())
            assert all(len(pool) <= POOL * 5 for pool in selection.pools.values())
        assert set(selection.pools) == {0, 1}
        kept = [[(c.score, c.name, c.box) for c in selection.best(k)[0]] for k in range(3)]
        assert [len(each) for each in kept] == [5, 5, 0]
        results.append(kept)
    assert results[0] == results[1] == results[2]
    best = sorted((float(score) for _, seen in photos for score in seen.scores), reverse=True)
    assert results[0][0][0][0] == best[0]


def test_the_order_of_photos_does_not_matter(folder):
    paths = sorted(folder.rglob("*.png"))
    first = new(per_class=4).fit(paths)
    random.Random(1).shuffle(paths)
    second = new(per_class=4).fit(paths)
    assert facts(first) == facts(second)
    for name in COLORS:
        assert np.array_equal(first.features(name), second.features(name))


def test_labels_by_folder(tmp_path):
    folder = folder_of_photos(tmp_path / "photos", count=2)
    photo(7, "red").save(folder / "green" / "odd.png")  # red in the folder of the green
    (folder / "elsewhere").mkdir()
    photo(8, "red").save(folder / "elsewhere" / "1.png")
    free = new(per_photo=1).fit(folder)
    assert len(free["red"]) == 4
    labels = sorted(str(crop.label) for crop in free["red"])
    assert labels == ["None", "green", "red", "red"]
    assert free.to_dict()["classes"]["red"]["purity"] == pytest.approx(2 / 3)
    bound = new(per_photo=1, labels="folder").fit(folder)
    assert len(bound["red"]) == 2
    assert bound.to_dict()["classes"]["red"]["purity"] == 1.0
    assert bound.to_dict()["in_no_class_folder"] == 1
    unknown = new(per_photo=1).fit([photo(1, "red")])
    assert unknown["red"][0].label is None
    assert unknown.to_dict()["purity"] is None


def test_generators_and_arrays_keep_their_pixels(folder):
    paths = sorted(folder.rglob("*.png"))
    from_files = new(per_photo=1).fit(paths)
    from_memory = new(per_photo=1).fit(np.array(Image.open(path)) for path in paths)
    for name in COLORS:
        pairs = zip(from_files[name], from_memory[name], strict=True)
        for one, other in pairs:
            assert other.name == f"images[{paths.index(type(paths[0])(one.name))}]"
            assert (one.box, one.score) == (other.box, other.score)
            assert one.picture().tobytes() == other.picture().tobytes()


def test_odd_photos_are_counted_and_listed(tmp_path):
    folder = folder_of_photos(tmp_path / "photos", count=2)
    (folder / "broken.jpg").write_bytes(b"nothing")
    Image.new("RGB", (CROP - 1, 400)).save(folder / "small.png")
    report = new().fit(folder).to_dict()
    assert (report["photos"], report["unreadable"], report["smaller_than_crop"]) == (8, 1, 1)
    assert report["failures"][0]["path"].endswith("broken.jpg")
    assert "format" in report["failures"][0]["reason"]


def test_a_photo_that_vanishes_meanwhile_is_left_out(folder, monkeypatch):
    gallery = new(per_photo=1)
    finish = gallery._finish

    def losing(classifier, selection):
        (folder / "red" / "4.png").unlink()
        photo(1, size=40).save(folder / "blue" / "4.png")  # another photo, and smaller
        return finish(classifier, selection)

    monkeypatch.setattr(gallery, "_finish", losing)
    gallery.fit(folder)
    assert [len(gallery[name]) for name in COLORS] == [4, 5, 4]
    reasons = [each["reason"] for each in gallery.to_dict()["failures"]]
    assert ["no such file" in each for each in reasons].count(True) == 1
    assert ["the photo that was searched" in each for each in reasons].count(True) == 1


# ---- clusters ----


def test_clusters_and_representatives(folder):
    gallery = new(clusters=3).fit(folder)
    for name in COLORS:
        crops = gallery[name]
        sizes = [sum(crop.cluster == k for crop in crops) for k in range(3)]
        assert sizes == sorted(sizes, reverse=True)
        assert sum(sizes) == len(crops)
        for cluster in range(3):
            group = [crop for crop in crops if crop.cluster == cluster]
            assert [crop.representative for crop in group] == [True] + [False] * (len(group) - 1)
            assert group[0].score == max(crop.score for crop in group)
    row = gallery.to_dict()["classes"]["red"]
    assert row["clusters"] == 3
    assert -1 <= row["silhouette"] <= 1


def test_features_are_unit_vectors_of_the_layer(folder):
    gallery = new(per_photo=1).fit(folder)
    crops = gallery["green"]
    pixels = np.stack([np.array(crop.picture()) for crop in crops])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    network = gallery.classifier.model
    expected = network.relu(network.body(images)).mean(dim=(2, 3)).detach()
    expected = expected / expected.norm(dim=1, keepdim=True)
    assert np.allclose(gallery.features("green"), expected, atol=1e-5)
    assert gallery.features("green").dtype == np.float32


def test_layers_with_and_without_positions(folder):
    by_logits = new(per_photo=1, layer="fc").fit(folder)
    assert by_logits.features("red").shape == (5, 4)
    by_body = new(per_photo=1, layer="body").fit(folder)
    assert by_body.features("red").shape == (5, 6)
    assert not np.allclose(by_body.features("red"), new(per_photo=1).fit(folder).features("red"))
    with pytest.raises(ValueError, match="closest: 'relu'"):
        new(layer="rely").fit(folder)


def test_fewer_crops_than_clusters(folder):
    gallery = new(clusters=9, per_class=3).fit(folder)
    row = gallery.to_dict()["classes"]["red"]
    assert (row["crops"], row["clusters"], row["silhouette"]) == (3, 3, None)
    assert row["note"] == "3 crops for 9 clusters"
    single = new(clusters=9, per_class=1).fit(folder)
    assert single["red"][0].representative
    assert single.to_dict()["classes"]["red"]["note"] == "a single crop"


def test_any_clusterer(folder):
    from sklearn.cluster import DBSCAN, AgglomerativeClustering, KMeans

    gallery = new(per_photo=1).fit(folder)
    means = gallery.recluster(clusterer=KMeans(2, n_init=1))
    assert facts(means) == facts(gallery.recluster(clusterer=KMeans(2, n_init=1)))  # seeded
    assert means.to_dict()["classes"]["red"]["clusters"] == 2
    ward = gallery.recluster(clusterer=AgglomerativeClustering(2))
    assert facts(ward) == facts(gallery)
    many = gallery.recluster(clusterer=AgglomerativeClustering(40))
    assert many.to_dict()["classes"]["red"]["note"] == "5 crops for 40 clusters"
    nothing = gallery.recluster(clusterer=DBSCAN(eps=1e-6, min_samples=3))
    assert {crop.cluster for crop in nothing["red"]} == {-1}
    assert not any(crop.representative for crop in nothing["red"])
    assert nothing.to_dict()["classes"]["red"]["clusters"] == 0
    assert nothing.figure("red").size[0] > 0
    all_crops = nothing.figure("red", crops="all", titles=False, cell=40)
    assert all_crops.size == (5 * 46 + 6, 46 + 6)


def test_recluster_leaves_the_first_gallery_alone(folder):
    gallery = new(clusters=2).fit(folder)
    before = facts(gallery)
    other = gallery.recluster(4)
    assert facts(gallery) == before
    assert other.to_dict()["classes"]["red"]["clusters"] == 4
    assert [crop.box for crop in other["red"]] == [crop.box for crop in gallery["red"]]
    one = gallery.recluster(distance_threshold=50.0)
    assert one.to_dict()["classes"]["red"]["clusters"] == 1
    apart_ = gallery.recluster(distance_threshold=1e-9)
    assert apart_.to_dict()["classes"]["red"]["clusters"] == len(gallery["red"])


# ---- looking at it ----


def test_sheets(folder):
    gallery = new(clusters=4).fit(folder)
    assert gallery.figure("red", cell=50, titles=False).size == (2 * 56 + 6, 2 * 56 + 6)
    assert gallery.figure(0, cell=50).size == (2 * 56 + 6, 2 * 72 + 6)
    rows = gallery.figure("red", crops="all", cell=50)
    assert rows.size[1] == 4 * 72 + 6
    best = gallery["red"][0]
    shown = gallery.recluster(1).figure("red", titles=False, cell=CROP)
    assert shown.crop((6, 6, 6 + CROP, 6 + CROP)).tobytes() == best.picture().tobytes()
    with pytest.raises(ValueError, match="crops: expected 'representatives' or 'all', got 'some'"):
        gallery.figure("red", crops="some")


def test_a_class_without_crops(folder):
    gallery = new().fit(folder / "red")
    assert gallery["blue"] == []
    assert gallery.figure("blue").size == gallery.figure("blue", crops="all").size
    row = gallery.to_dict()["classes"]["blue"]
    assert (row["crops"], row["clusters"], row["purity"]) == (0, 0, None)
    assert row["silhouette"] is None
    assert gallery.features("blue").shape == (0, 6)


def test_classes_by_name_and_index(folder):
    gallery = new().fit(folder)
    assert list(gallery) == list(gallery.class_names) == list(NAMES)
    assert gallery["Red"] == gallery[0] == gallery[-4]
    with pytest.raises(ValueError, match="closest: 'green'"):
        gallery["gren"]
    with pytest.raises(ValueError, match="class index below 4"):
        gallery[4]
    nameless = new(color_classifier(names=None)).fit(folder)
    assert nameless.class_names == ("class 0", "class 1", "class 2", "class 3")
    assert nameless["class 1"] == nameless[1] != []
    twins = new(color_classifier(names=("crane", "crane", "other", "none"))).fit(folder)
    assert list(twins.to_dict()["classes"]) == ["crane", "crane (1)", "other", "none"]


# ---- contracts and errors ----


@pytest.mark.parametrize("evidence", EVIDENCE)
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_the_model_is_as_it_was(evidence, head):
    model = random_net(head).train()
    model.fc.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].tolist()  # noqa: NPY002
    sources = [np.array(photo(seed)) for seed in range(3)]
    gallery = ClassGallery(model, 48, evidence=evidence).fit(sources)
    assert sum(len(gallery[k]) for k in range(7)) > 0
    with pytest.raises(ValueError, match="layer"):
        ClassGallery(model, 48, evidence=evidence, layer="nowhere").fit(sources)
    assert model.training
    assert all(torch.equal(before[name], each) for name, each in model.state_dict().items())
    assert [p.requires_grad for p in model.fc.parameters()] == [False] * len(
        [*model.fc.parameters()]
    )
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == numpy_state  # noqa: NPY002


def test_evidence_of_both_kinds_is_the_same_without_border_effects():
    picture = photo(3, "green")
    found = [
        choose_evidence(color_classifier(), new(evidence=evidence).settings)(picture)
        for evidence in EVIDENCE
    ]
    assert np.array_equal(found[0].boxes, found[1].boxes)
    assert np.allclose(found[0].scores, found[1].scores, atol=1e-5)
    assert np.array_equal(found[0].classes, found[1].classes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 0}, "crop: expected an int of at least 1, got 0"),
        ({"crop": 32.0}, "crop: expected an int"),
        ({"stride": 0}, "stride: expected an int of at least 1, got 0"),
        ({"resize": -1}, "resize: expected"),
        ({"per_class": 0}, "per_class: expected"),
        ({"per_photo": True}, "per_photo: expected"),
        ({"max_overlap": 1.5}, r"max_overlap: expected a number in \[0, 1\], got 1.5"),
        ({"evidence": "kam"}, "evidence: expected 'cam' or 'sliding_window', got 'kam'"),
        (
            {"mode": "dense", "evidence": "sliding_window"},
            "mode: expected 'exhaustive' or 'shared'",
        ),
        ({"mode": "shared"}, "mode: expected 'exhaustive' with evidence='cam', got 'shared'"),
        ({"labels": "file"}, "labels: expected None or 'folder', got 'file'"),
        ({"layer": 3}, "layer: expected None or the name of a layer, got 3"),
        ({"clusters": 0}, "clusters: expected an int of at least 1, got 0"),
        ({"clusterer": "ward"}, "clusterer: expected a clusterer of scikit-learn"),
        ({"distance_threshold": 0}, "distance_threshold: expected None or a number above 0"),
        ({"model": 7}, "model: expected a torch.nn.Module"),
    ],
    ids=str,
)
def test_wrong_settings(options, message):
    with pytest.raises(ValueError, match=message):
        new(**options)


def test_what_cannot_go_together():
    from sklearn.cluster import KMeans

    with pytest.raises(ValueError, match="distance_threshold: expected None beside a clusterer"):
        new(clusterer=KMeans(2), distance_threshold=1.0)
    with pytest.raises(ValueError, match="labels: expected None for a classifier without"):
        new(color_classifier(names=None), labels="folder")


def test_photos_that_cannot_make_a_gallery(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="expected a folder with photos, found none"):
        new().fit(tmp_path / "empty")
    with pytest.raises(ImageError, match="photos: expected at least one, got none"):
        new().fit([])
    with pytest.raises(ImageError, match="2 of 2 photos cannot be used"):
        new().fit([tmp_path / "one.png", tmp_path / "two.png"])
    with pytest.raises(ImageError, match="expected photos"):
        new().fit({"a": 1})
    small = [photo(1, size=20), tmp_path / "none.png"]
    with pytest.raises(ValueError, match="got 32: of 2 photos 1 are smaller, 1 cannot be read"):
        new().fit(small)
    with pytest.raises(ValueError, match="3 photos 0 are smaller, 0 cannot be read, and 3 lie in"):
        new(labels="folder").fit([photo(seed) for seed in range(3)])


def test_a_gallery_that_was_not_fitted():
    gallery = new()
    assert "not fitted" in repr(gallery)
    for call in (lambda: gallery["red"], gallery.to_dict, gallery.recluster, lambda: [*gallery]):
        with pytest.raises(ValueError, match=r"call fit\(photos\) first"):
            call()


def test_it_is_public():
    assert pyxai.ClassGallery is ClassGallery
