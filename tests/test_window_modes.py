"""Shared and dense windows: exact where they should be, close where they may not, and refusals."""

from __future__ import annotations

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from networks import SmallNet, SmallSwin, SmallViT, random_net
from torch import nn
from torch.nn import functional

import pyxai
from pyxai.attribution.windows.dense import coverage, pooled_logits
from pyxai.attribution.windows.grid import make_grid
from pyxai.attribution.windows.result import compare
from pyxai.attribution.windows.shared import _cell_starts
from pyxai.attribution.windows.sharing import choose_layer, shared_layers, why_not_shared
from pyxai.classifier import Examined
from pyxai.classifier.borrow import borrowed


@pytest.fixture(autouse=True)
def _one_thread(threads):
    threads(1)


class Pointwise(nn.Module):
    """Stride 4 by convolutions that do not overlap, so no cell sees beyond its window."""

    def __init__(self, classes=5, last=None):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 2, 2), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.stage = nn.Sequential(nn.Conv2d(8, 6, 2, 2), nn.ReLU(inplace=True))
        self.last = nn.Identity() if last is None else last
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(6, classes)

    def forward(self, x):
        return self.fc(self.pool(self.last(self.stage(self.stem(x)))).flatten(1))


def search(model, photo, window, stride=None, target=None, **options):
    return pyxai.sliding_window(model, photo, target, window=window, stride=stride, **options)


# ---- dense ----


@pytest.mark.parametrize("classes", [3, 40])  # pool first, project first
@pytest.mark.parametrize(("window", "stride"), [(16, 8), ((8, 20), 4), ((12, 16), (8, 12))])
def test_dense_is_exact_where_cells_do_not_look_around(classes, window, stride):
    model, photo = Pointwise(classes).eval(), torch.randn(3, 32, 44)
    dense = search(model, photo, window, stride, mode="dense")
    exact = search(model, photo, window, stride)
    assert torch.equal(dense.boxes, exact.boxes)
    assert (dense.logits - exact.logits).abs().max() <= 1e-5
    assert exact.logits.std(dim=0).max() > 1e-3
    found = dense.agreement()
    assert found.windows == min(64, len(dense.boxes))
    assert found.difference <= 1e-5


@pytest.mark.parametrize("mode", ["dense", "shared"])
def test_resize_is_that_of_the_whole_photo(mode):
    model, photo = random_net(), torch.randn(3, 32, 44)
    options = {"mode": mode} | ({"shared_layer": "stage1"} if mode == "shared" else {})
    found = search(model, photo, (16, 12), 8, resize=(32, 36), **options)
    larger = functional.interpolate(photo[None], (64, 132), mode="bilinear", align_corners=False)
    expected = search(model, larger, (32, 36), (16, 24), **options)
    assert found.boxes[0].tolist() == [0, 0, 12, 16]
    assert torch.allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(33, 47), (40, 52)])
def test_one_window_over_all_of_the_photo_has_its_logits(size):
    model, photo = random_net(), torch.randn(3, *size)
    dense = search(model, photo, size, mode="dense")
    with torch.no_grad():
        expected = model(photo[None])
    assert torch.allclose(dense.logits, expected, rtol=1e-4, atol=1e-4)
    shared = search(model, photo, size, mode="shared", shared_layer="stage1")
    assert torch.allclose(shared.logits, expected, rtol=1e-4, atol=1e-4)


def test_dense_is_the_fractional_mean_of_the_class_maps():
    model, photo = random_net(), torch.randn(1, 3, 40, 52)
    dense = search(model, photo, (13, 17), (9, 7), mode="dense")
    maps = pyxai.cam(model, photo, "all", size=None, normalize=None)[0].double()
    # Each cell as 40 × 52 small squares, so that windows are whole numbers of them.
    fine = maps.repeat_interleave(40, 1).repeat_interleave(52, 2)
    rows, columns = maps.shape[1:]
    for box, logits in zip(dense.boxes.tolist(), dense.logits, strict=True):
        x0, y0, x1, y1 = box
        part = fine[:, y0 * rows : y1 * rows, x0 * columns : x1 * columns]
        assert torch.allclose(part.mean((1, 2)).float() + model.fc.bias, logits, atol=1e-4)


def test_coverage_by_hand():
    # Four cells of 2.5 pixels; windows of 4 from pixels 0, 3 and 6.
    found = coverage((0, 3, 6), 4, 10, 4)
    expected = [[2.5, 1.5, 0, 0], [0, 2, 2, 0], [0, 0, 1.5, 2.5]]
    assert torch.allclose(found, torch.tensor(expected) / 4)


def test_both_orders_give_the_same_logits(monkeypatch):
    head = pyxai.classifier.LinearHead(torch.randn(4, 6), torch.randn(4))
    features = torch.randn(6, 5, 7)
    rows, columns = coverage((0, 5, 9), 11, 20, 5), coverage((0, 10), 15, 28, 7)
    few = pooled_logits(features, rows, columns, head)
    many = pyxai.classifier.LinearHead(head.weight.repeat(50, 1), head.bias.repeat(50))
    assert torch.allclose(pooled_logits(features, rows, columns, many)[:, :4], few, atol=1e-5)


def test_windows_of_one_scale_share_the_forward_pass():
    model, photo = random_net(), torch.randn(3, 40, 52)
    search(model, photo, 16, mode="dense")
    seen = []
    model.stem.register_forward_hook(lambda m, i, o: seen.append(tuple(i[0].shape)))
    found = search(model, photo, [16, 24, (10, 40)], mode="dense")
    assert seen == [(1, 3, 40, 52)]
    for window, each in found.items():
        alone = search(model, photo, window, mode="dense")
        assert torch.equal(alone.logits, each.logits)


def test_dense_resizes_the_photo_once():
    model, seen = random_net(), []
    search(model, torch.randn(3, 40, 52), 10, mode="dense", resize=15)
    model.stem.register_forward_hook(lambda m, i, o: seen.append(tuple(i[0].shape)))
    search(model, torch.randn(3, 40, 52), 10, mode="dense", resize=15)
    assert seen == [(1, 3, 60, 78)]


@pytest.mark.parametrize("model", [random_net("mlp"), random_net("norm")], ids=["mlp", "norm"])
def test_dense_needs_a_linear_head(model):
    with pytest.raises(ValueError, match=r"mode: expected 'exhaustive' or 'shared' .*head"):
        search(model, torch.randn(3, 40, 52), 16, mode="dense")


class Fixed(SmallNet):
    """Takes one size only."""

    def forward(self, x):
        assert x.shape[-2:] == (16, 16), f"Input {[*x.shape[-2:]]} doesn't match [16, 16]"
        return super().forward(x)


@pytest.mark.parametrize("mode", ["dense", "shared"])
def test_networks_of_one_size_are_refused_with_the_reason(mode):
    options = {"shared_layer": "stem"} if mode == "shared" else {}
    with pytest.raises(ValueError, match=r"mode: expected 'exhaustive' .*whole photo.*match \[16"):
        search(Fixed().eval(), torch.randn(3, 40, 52), 16, mode=mode, **options)


# ---- shared ----


@pytest.mark.parametrize("layer", ["stem", "stage"])
@pytest.mark.parametrize("stride", [4, (8, 12)])
def test_shared_is_exact_where_the_first_stages_do_not_look_around(layer, stride):
    last = nn.Sequential(nn.Conv2d(6, 6, 3, 1, 1), nn.ReLU(inplace=True))
    model, photo = Pointwise(last=last).eval(), torch.randn(3, 32, 44)
    shared = search(model, photo, 16, stride, mode="shared", shared_layer=layer)
    exact = search(model, photo, 16, stride)
    assert shared.layer == layer
    assert (shared.logits - exact.logits).abs().max() <= 1e-5
    assert exact.logits.std(dim=0).max() > 1e-3


def test_shared_with_channels_last_features():
    model = SmallSwin().eval()
    photo = torch.randn(3, 32, 48)
    shared = search(model, photo, 16, 8, mode="shared", shared_layer="stage1")
    exact = search(model, photo, 16, 8)  # windows of 2 × 2 tokens are aligned with 8 pixels
    assert (shared.logits - exact.logits).abs().max() <= 1e-5


def test_shared_fits_heads_of_one_size():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 2, 2), nn.ReLU(), nn.Conv2d(4, 5, 2, 2), nn.Flatten(), nn.Linear(80, 3)
    ).eval()
    photo = torch.randn(3, 32, 44)
    exact = search(model, photo, 16, 4)
    # The whole photo does not pass the head, but it need not.
    shared = search(model, photo, 16, 4, mode="shared", shared_layer="1")
    assert (shared.logits - exact.logits).abs().max() <= 1e-5


def test_what_is_shared_runs_once():
    model, photo = random_net(), torch.randn(3, 64, 64)
    search(model, photo, 32, mode="shared", shared_layer="stage1")
    seen = {"stage1": [], "stage2": []}
    for name, sizes in seen.items():
        module = model.get_submodule(name)
        module.register_forward_hook(lambda m, i, o, s=sizes: s.append(tuple(i[0].shape)))
    found = search(model, photo, 32, 8, mode="shared", shared_layer="stage1", batch_size=10)
    assert len(found.boxes) == 25
    whole = [shape for shape in seen["stage1"] if len(shape) and shape[2:] == (64, 64)]
    assert len(whole) == 1
    assert sum(shape[0] for shape in seen["stage1"]) == 2  # the photo, and one window for its size
    rest = [shape[0] for shape in seen["stage2"] if shape[0]]
    assert rest == [1, 2, 10, 10, 5]  # one window for its logits, twice as a trial, all windows


def test_deeper_layers_are_farther_from_the_exhaustive_search():
    classifier = pyxai.load_classifier("demo")
    from sklearn.datasets import load_sample_image

    photo = load_sample_image("china.jpg")[100:420, 100:420]
    exact = search(classifier, photo, 128, 48)
    found = {}
    for layer in ("stem", "stage2", "stage4"):
        shared = search(classifier, photo, 128, 48, exact.target, mode="shared", shared_layer=layer)
        found[layer] = compare(shared.logits, exact.logits, exact.target)
    dense = search(classifier, photo, 128, 48, exact.target, mode="dense")
    found["dense"] = dense.agreement(sample=10_000)
    assert found["stem"].rank_correlation > 0.95
    assert all(each.rank_correlation > 0.8 for each in found.values())
    gaps = [each.difference for each in found.values()]
    assert 0 < gaps[0] < gaps[1] < gaps[2]
    assert found["dense"].windows == len(exact.boxes)
    again = compare(dense.logits, exact.logits, exact.target)
    assert found["dense"].rank_correlation == pytest.approx(again.rank_correlation, abs=1e-6)


def test_agreement_draws_by_its_seed():
    model, photo = random_net(), torch.randn(3, 48, 64)
    dense = search(model, photo, 16, 4, mode="dense")
    before = torch.get_rng_state()
    first, again, other = dense.agreement(20), dense.agreement(20), dense.agreement(20, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert first == again
    assert first != other
    assert -1 <= first.rank_correlation <= 1
    assert 0 < first.difference_all < 1


def test_rank_correlation_is_spearmans_with_ties():
    from scipy.stats import spearmanr

    generator = torch.Generator().manual_seed(0)
    pair = torch.randint(0, 6, (2, 40, 3), generator=generator).float()
    ours, theirs = pair.unbind()
    found = compare(ours, theirs, 1)
    logs = [each.double().log_softmax(1)[:, 1].numpy() for each in (ours, theirs)]
    assert found.rank_correlation == pytest.approx(spearmanr(*logs).statistic, abs=1e-12)
    gaps = (ours.softmax(1) - theirs.softmax(1)).abs()
    assert found.difference == pytest.approx(float(gaps[:, 1].mean()), abs=1e-6)
    assert found.difference_all == pytest.approx(float(gaps.mean()), abs=1e-6)
    same = (ours.argmax(1) == theirs.argmax(1)).double().mean()
    assert found.same_class == float(same)
    assert np.isnan(compare(torch.zeros(4, 3), ours[:4], 0).rank_correlation)


def test_cells_of_windows():
    # Stride 16 on 427 pixels: 27 cells, 10 in a window of 160; the last one lies flush.
    assert _cell_starts([0, 40, 80, 120, 160, 200, 240, 267], 267, 17) == (
        0,
        3,
        5,
        8,
        10,
        13,
        15,
        17,
    )
    assert _cell_starts([0], 0, 0) == (0,)
    assert _cell_starts([0, 5, 9], 9, 0) == (0, 0, 0)
    assert _cell_starts([0, 14, 28, 140], 140, 10) == (0, 1, 2, 10)  # stride 14, as patches have
    assert _cell_starts([0, 50, 100, 1000], 1000, 20) == (0, 1, 2, 20)  # no power of two is near


# ---- which layers can be shared ----


def windows_of(model, size=48):
    return Examined(pyxai.Classifier(model), torch.randn(2, 3, size, size))


def test_only_layers_through_which_everything_passes():
    model = random_net()
    with borrowed(model):
        found = list(shared_layers(windows_of(model)))
        assert why_not_shared(windows_of(model), "stage2") is None
        assert "bypassed" in why_not_shared(windows_of(model), "stage2.conv1")
        assert "bypassed" in why_not_shared(windows_of(model), "stage2.shortcut")
        # It runs twice in its block; the last run is what the block gives, the first is not all.
        assert why_not_shared(windows_of(model), "stage2.relu") is None
        assert "bypassed" in why_not_shared(windows_of(model), "stage2.relu#1")
        assert "positions" in why_not_shared(windows_of(model), "pool")
        with pytest.raises(ValueError, match="closest: 'stage2'"):
            why_not_shared(windows_of(model), "stage22")
    sums = [f"add before stage{n}.relu" for n in (1, 2, 3)]
    assert found == [
        "stem.0",
        "stem.1",
        "stem",
        sums[0],
        "stage1",
        sums[1],
        "stage2",
        sums[2],
        "stage3",
    ]


class Remembers(SmallNet):
    """A shortcut that no shape tells: the mean of the stem goes past all that follows."""

    def forward(self, x):
        early = self.stem(x)
        bias = early.mean() if len(early) else early.sum()
        return self.fc(self.pool(self.stage3(self.stage2(self.stage1(early)))).flatten(1)) + bias


def test_shortcuts_that_no_shape_tells():
    model = Remembers().eval()
    with borrowed(model):
        assert why_not_shared(windows_of(model), "stem") is None
        assert "alone does not determine" in why_not_shared(windows_of(model), "stage2")
    with pytest.raises(ValueError, match="shared_layer: expected a layer through which"):
        search(model, torch.randn(3, 64, 64), 48, mode="shared", shared_layer="stage2")


def test_the_coarsest_layer_with_enough_cells_is_chosen():
    model = random_net()
    with borrowed(model):
        assert choose_layer(windows_of(model, 32)) == "stage1"
        assert choose_layer(windows_of(model, 64)) == "stage2"
        assert choose_layer(windows_of(model, 60)) == "stage1"  # stage2 would have 15 cells
        assert choose_layer(windows_of(model, 12)) is None
    assert search(model, torch.randn(3, 80, 80), 64, mode="shared").layer == "stage2"
    with pytest.raises(ValueError, match=r"mode: expected 'exhaustive' .*16 × 16 cells"):
        search(model, torch.randn(3, 80, 80), 12, mode="shared")


def test_transformers_cannot_share():
    model = SmallViT().eval()
    with pytest.raises(ValueError, match="mode: expected 'exhaustive'"):
        search(model, torch.randn(3, 80, 80), 64, mode="shared", shared_layer=None)
    with pytest.raises(ValueError, match=r"shared_layer: .*does not give a map"):
        search(model, torch.randn(3, 80, 80), 64, mode="shared", shared_layer="blocks.1")


def test_what_is_known_does_not_keep_the_network_alive():
    model = random_net()
    search(model, torch.randn(3, 80, 80), 64, mode="shared")
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("mode", ["exhaustive", "shared", "dense"])
def test_half_precision_and_accelerated_copies(mode):
    model = random_net()
    nn.init.normal_(model.fc.weight, std=1)
    photo = np.random.default_rng(0).integers(0, 256, (80, 96, 3), dtype=np.uint8)
    expected = search(model, photo, 64, 16, mode=mode)
    fast = pyxai.accelerate(model, probe=torch.randn(2, 3, 64, 64))
    half = pyxai.accelerate(model, dtype=torch.bfloat16, probe=torch.randn(2, 3, 64, 64))
    found = search(fast, photo, 64, 16, mode=mode)
    assert (found.logits - expected.logits).abs().max() <= 1e-4
    found = search(half, photo, 64, 16, mode=mode)
    largest = expected.logits.abs().max()
    assert (found.logits - expected.logits).abs().max() <= 0.05 * largest
    assert found.layer == expected.layer


@pytest.mark.parametrize("mode", ["exhaustive", "shared", "dense"])
def test_devices(device, mode):
    model = random_net()
    nn.init.normal_(model.fc.weight, std=1)
    photo = np.random.default_rng(0).integers(0, 256, (80, 96, 3), dtype=np.uint8)
    expected = search(model, photo, 64, 8, mode=mode)
    found = search(copy.deepcopy(model).to(device), photo, 64, 8, mode=mode)
    assert found.logits.device.type == device.type
    assert (found.logits.cpu() - expected.logits).abs().max() <= 1e-3
    assert found.boxes.device.type == "cpu"
    assert found.heatmap().device.type == device.type
    assert torch.allclose(found.heatmap([0, 1]).cpu(), expected.heatmap([0, 1]), atol=1e-3)
    assert len(found.top(3, max_overlap=0.8)) == 3
    assert found.agreement(10).windows == 10


def test_a_grid_at_another_scale():
    grid = make_grid((427, 640), (160, 120), None, 224, cover=True)
    assert grid.whole_size == (598, 1195)
    assert grid.tops == (0, 40, 80, 120, 160, 200, 240, 267)
    assert grid.lefts[-2:] == (510, 520)
