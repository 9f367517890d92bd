"""`pyxai.sliding_window`: the exhaustive search against a naive loop, its result, its contracts."""

from __future__ import annotations

import copy
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from networks import SmallNet, random_net
from PIL import Image
from torch import nn
from torch.nn import functional

import pyxai
from pyxai.attribution.windows.overlap import apart
from pyxai.images import ImageError, Preprocessing

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture(autouse=True)
def _one_thread(threads):
    threads(1)


def picture(height=40, width=52):
    """A photo `[H, W, 3]` of patches of colour, with noise."""
    random = np.random.default_rng(0)
    patches = random.integers(0, 200, (-(-height // 9), -(-width // 9), 3), dtype=np.uint8)
    pixels = patches.repeat(9, 0).repeat(9, 1)[:height, :width]
    return pixels + random.integers(0, 50, pixels.shape, dtype=np.uint8)


def classifier_of(model, **arguments):
    return pyxai.Classifier(model, preprocessing=Preprocessing(MEAN, STD, resize=30), **arguments)


def naive(model, photo, boxes, resize=None):
    """Crop, normalise, resize, run: one window after the other."""
    if isinstance(photo, np.ndarray):
        whole = torch.from_numpy(photo).permute(2, 0, 1).float() / 255
        whole = (whole - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    else:
        whole = photo
    found = []
    for x0, y0, x1, y1 in boxes.tolist():
        window = whole[None, :, y0:y1, x0:x1]
        if resize is not None:
            window = functional.interpolate(window, resize, mode="bilinear", align_corners=False)
        with torch.no_grad():
            found.append(model(window)[0])
    return torch.stack(found)


# ---- the same as a naive loop ----


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize(
    ("window", "stride", "resize"),
    [
        (16, 8, None),
        ((12, 20), (7, 5), None),
        (16, None, 24),
        ((10, 30), 9, (16, 12)),
        (40, 1, None),
    ],
)
def test_exhaustive_is_the_naive_loop(head, window, stride, resize):
    model = random_net(head)
    last = model.fc if head == "linear" else model.fc[-1]
    nn.init.normal_(last.weight, std=0.5)  # logits of about 1
    found = pyxai.sliding_window(
        classifier_of(model), picture(), window=window, stride=stride, resize=resize
    )
    expected = naive(model, picture(), found.boxes, resize)
    assert found.logits.shape == expected.shape
    assert (found.logits - expected).abs().max() <= 1e-5
    assert (expected[1:] - expected[:-1]).abs().max() > 1e-3  # the windows are not all alike


def test_kinds_of_photos(tmp_path):
    model = SmallNet().eval()
    classifier = classifier_of(model)
    pixels = picture()
    expected = pyxai.sliding_window(classifier, pixels, window=16, stride=8).logits
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    channels_first = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    for photo in (
        tmp_path / "photo.png",
        Image.fromarray(pixels),
        torch.from_numpy(pixels),
        channels_first,
        channels_first[None],
        pixels[None],
    ):
        assert torch.equal(
            pyxai.sliding_window(classifier, photo, window=16, stride=8).logits, expected
        )
    values = torch.randn(3, 40, 52)
    found = pyxai.sliding_window(classifier, values, window=16, stride=8)
    assert (found.logits - naive(model, values, found.boxes)).abs().max() <= 1e-5
    assert torch.equal(
        pyxai.sliding_window(classifier, values[None], window=16, stride=8).logits, found.logits
    )
    turned = values.transpose(1, 2)  # any strides
    found = pyxai.sliding_window(classifier, turned, window=16, stride=8)
    assert (found.logits - naive(model, turned, found.boxes)).abs().max() <= 1e-5


def test_upright_and_at_its_own_resolution(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(picture()).save(tmp_path / "photo.png", exif=exif)
    found = pyxai.sliding_window(
        classifier_of(SmallNet().eval()), tmp_path / "photo.png", window=16
    )
    assert found.size == (52, 40)
    upright = np.rot90(picture(), -1).copy()
    again = pyxai.sliding_window(classifier_of(SmallNet().eval()), upright, window=16)
    assert again.size == found.size


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_windows_have_the_dtype_of_the_model(dtype):
    model = copy.deepcopy(SmallNet()).eval().to(dtype)
    seen = []
    model.register_forward_pre_hook(lambda m, i: seen.append(i[0].dtype))
    found = pyxai.sliding_window(classifier_of(model), picture(), window=16, stride=8)
    assert set(seen) == {dtype}
    assert found.logits.dtype == torch.float32
    exact = naive(SmallNet.from_other(model), picture(), found.boxes)
    assert (found.logits - exact).abs().max() <= (0.1 if dtype == torch.bfloat16 else 1e-5)


def test_any_function_is_a_model():
    def brightness(images):
        mean = images.mean(dim=(1, 2, 3))
        return torch.stack([mean, -mean], dim=1)

    photo = torch.zeros(3, 20, 20)
    photo[:, :10, 10:] = 1
    found = pyxai.sliding_window(brightness, photo, window=10, stride=10, target=0)
    assert found.logits[:, 0].tolist() == [0, 1, 0, 0]
    assert found.top(1)[0].box == (10, 0, 20, 10)
    model = SmallNet().eval()
    found = pyxai.sliding_window(lambda images: {"logits": model(images)}, photo, window=10)
    assert (found.logits - naive(model, photo, found.boxes)).abs().max() <= 1e-5


class OldStyle(nn.Module):
    """Reshapes feature maps with `view`, which images with the channels last do not allow."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2)
        self.fc = nn.Linear(4 * 7 * 7, 5)

    def forward(self, x):
        return self.fc(self.conv(x).relu().view(len(x), -1))


def test_networks_that_view_their_features():
    model = OldStyle().eval()
    found = pyxai.sliding_window(classifier_of(model), picture(), window=16)
    assert (found.logits - naive(model, picture(), found.boxes)).abs().max() <= 1e-5


def test_batch_size_does_not_matter():
    classifier, sizes = classifier_of(SmallNet().eval()), []
    classifier.model.register_forward_pre_hook(lambda m, i: sizes.append(len(i[0])))
    expected = pyxai.sliding_window(classifier, picture(), window=16).logits
    sizes.clear()
    found = pyxai.sliding_window(classifier, picture(), window=16, batch_size=32)
    assert sizes == [32, 32, 6]
    assert (found.logits - expected).abs().max() <= 1e-5


def test_accelerated_models():
    model = SmallNet().eval()
    fast = pyxai.accelerate(model, probe=torch.randn(2, 3, 16, 16))
    found = pyxai.sliding_window(classifier_of(fast), picture(), window=16, stride=8)
    assert (found.logits - naive(model, picture(), found.boxes)).abs().max() <= 1e-4


# ---- the grid ----


def test_boxes_cover_the_photo():
    found = pyxai.sliding_window(SmallNet(), torch.rand(3, 20, 23), window=10, stride=8)
    assert (found.rows, found.columns) == (3, 3)
    assert found.boxes.dtype == torch.int64
    assert found.boxes.tolist() == [[x, y, x + 10, y + 10] for y in (0, 8, 10) for x in (0, 8, 13)]
    assert not found.heatmap().isnan().any()
    found = pyxai.sliding_window(
        SmallNet(), torch.rand(3, 20, 23), window=10, stride=8, cover=False
    )
    assert found.boxes[:, :2].tolist() == [[x, y] for y in (0, 8) for x in (0, 8)]
    covered = torch.zeros(20, 23, dtype=torch.bool)
    covered[:18, :18] = True
    assert torch.equal(~found.heatmap().isnan(), covered)
    # One that lies flush anyway is there once; the default stride is a quarter of the window.
    found = pyxai.sliding_window(SmallNet(), torch.rand(3, 18, 22), window=(10, 16))
    assert found.boxes[:, 1].unique().tolist() == [0, 2, 4, 6, 8]
    assert found.boxes[:, 0].unique().tolist() == [0, 4, 6]
    assert len(pyxai.sliding_window(SmallNet(), torch.rand(3, 10, 10), window=10).boxes) == 1


def test_a_list_of_windows():
    classifier = classifier_of(SmallNet().eval())
    found = pyxai.sliding_window(classifier, picture(), window=[16, (20, 24), 16])
    assert list(found) == [16, (20, 24)]
    for window, each in found.items():
        alone = pyxai.sliding_window(classifier, picture(), window=window)
        assert torch.equal(alone.logits, each.logits)
    assert list(pyxai.sliding_window(classifier, picture(), window=[32])) == [32]


# ---- the result ----


@pytest.fixture
def scores():
    names = [f"class {letter}" for letter in "abcdefg"]
    return pyxai.sliding_window(
        classifier_of(random_net(), class_names=names), picture(), window=16, stride=6
    )


def test_target(scores):
    probabilities = scores.logits.softmax(1)
    assert torch.equal(scores.probabilities, probabilities)
    assert scores.target == int(probabilities.mean(0).argmax())
    best = probabilities[:, scores.target].reshape(scores.rows, scores.columns)
    assert torch.allclose(scores.scores, best)
    classifier = classifier_of(random_net(), class_names=scores.class_names)
    assert (
        pyxai.sliding_window(classifier, picture(), window=16, stride=6, target="class c").target
        == 2
    )
    assert pyxai.sliding_window(classifier, picture(), window=16, stride=6, target=-1).target == 6


def test_heatmap_is_the_mean_of_the_windows_over_a_pixel(scores):
    def slowly(index):
        total, count = torch.zeros(2, *scores.size, dtype=torch.float64)
        for (x0, y0, x1, y1), probability in zip(
            scores.boxes.tolist(), scores.probabilities[:, index].tolist(), strict=True
        ):
            total[y0:y1, x0:x1] += probability
            count[y0:y1, x0:x1] += 1
        return (total / count).float()

    assert scores.heatmap().shape == scores.size
    assert torch.allclose(scores.heatmap(), slowly(scores.target), atol=1e-6)
    assert torch.allclose(scores.heatmap("class b"), slowly(1), atol=1e-6)
    assert torch.allclose(scores.heatmap([3, "class a"]), torch.stack([slowly(3), slowly(0)]))
    everything = scores.heatmap("all")
    assert everything.shape == (7, *scores.size)
    assert torch.allclose(everything.sum(0), torch.ones(scores.size), atol=1e-5)


def test_top(scores):
    best = scores.top(5, "class d")
    probabilities = scores.probabilities[:, 3]
    assert [each.index for each in best] == probabilities.argsort(descending=True)[:5].tolist()
    for each in best:
        assert each.box == tuple(scores.boxes[each.index].tolist())
        assert each.probability == pytest.approx(float(probabilities[each.index]), abs=1e-6)
        assert each.logit == float(scores.logits[each.index, 3])
    assert scores.top(1)[0].index == int(scores.scores.argmax())
    assert len(scores.top(10_000)) == len(scores.boxes)

    def overlap(a, b):
        common = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(
            0, min(a[3], b[3]) - max(a[1], b[1])
        )
        return common / (2 * 16 * 16 - common)

    apart = scores.top(100, 3, max_overlap=0.2)
    taken = [each.box for each in apart]
    assert apart[0] == best[0]
    assert all(overlap(a, b) <= 0.2 for a in taken for b in taken if a != b)
    for window in scores.top(10_000, 3):  # greedy: what was left out overlaps a better one
        if window not in apart:
            better = [each for each in apart if each.probability >= window.probability]
            assert any(overlap(window.box, each.box) > 0.2 for each in better)
    assert len(scores.top(100, 3, max_overlap=0)) >= 2


def test_equal_windows_come_in_reading_order():
    found = pyxai.sliding_window(
        lambda images: images.new_zeros(len(images), 3), torch.rand(3, 9, 9), window=3
    )
    assert [each.index for each in found.top(4)] == [0, 1, 2, 3]
    assert [each.box for each in found.top(9, max_overlap=0)][:3] == [
        (0, 0, 3, 3),
        (3, 0, 6, 3),
        (6, 0, 9, 3),
    ]


def test_exhaustive_agrees_with_itself(scores):
    found = scores.agreement(sample=20)
    assert found.windows == 20
    assert found.rank_correlation == 1.0
    assert (found.difference, found.difference_all, found.same_class) == (0.0, 0.0, 1.0)
    assert scores.agreement(sample=10_000).windows == len(scores.boxes)


def test_repr_is_short(scores):
    assert len(repr(scores)) < 200
    assert "16 × 16" in repr(scores)


# ---- the model is borrowed ----


def state(model):
    return (
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [parameter.grad for parameter in model.parameters()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        [buffer.clone() for buffer in model.buffers()],
    )


def same(a, b):
    return a[:4] == b[:4] and all(map(torch.equal, a[4], b[4]))


@pytest.mark.parametrize("mode", ["exhaustive", "shared", "dense"])
def test_the_model_and_random_states_stay_as_they_were(mode):
    model = SmallNet().train()
    model.stage2.eval()
    before = state(model), torch.get_rng_state(), random.getstate()
    found = pyxai.sliding_window(classifier_of(model), picture(64, 64), window=48, mode=mode)
    found.agreement()
    assert same(state(model), before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
    assert random.getstate() == before[2]
    assert not found.logits.requires_grad
    assert torch.is_grad_enabled()

    def fail(module, arguments):
        raise KeyError("broken")

    handle = model.fc.register_forward_pre_hook(fail)
    before = state(model)
    with pytest.raises((KeyError, ValueError), match="broken"):
        pyxai.sliding_window(classifier_of(model), picture(64, 64), window=48, mode=mode)
    assert same(state(model), before)
    handle.remove()


@pytest.mark.parametrize("mode", ["exhaustive", "shared", "dense"])
def test_threads_do_not_see_each_other(mode):
    classifier = classifier_of(SmallNet().train())
    photos = [np.roll(picture(64, 64), shift, axis=1) for shift in range(8)]

    def search(photo):
        return pyxai.sliding_window(classifier, photo, window=40, stride=12, mode=mode).logits

    expected = [search(photo) for photo in photos]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(search, photos))
    assert all((a - b).abs().max() <= 1e-5 for a, b in zip(found, expected, strict=True))
    assert classifier.model.training


def test_inside_inference_mode():
    classifier = classifier_of(SmallNet())
    expected = pyxai.sliding_window(classifier, picture(), window=16)
    with torch.inference_mode():
        found = pyxai.sliding_window(classifier, picture(), window=16)
        assert torch.equal(found.logits, expected.logits)
    assert not found.logits.is_inference()


# ---- bad input ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 41}, "window: expected at most the size of the photo, 40 × 52 .*got 41 × 41"),
        ({"window": (10, 53)}, "window: expected at most"),
        ({"window": 0}, "window: expected an int or a pair"),
        ({"window": -3}, "window: "),
        ({"window": 7.5}, "window: "),
        ({"window": (1, 2, 3)}, "window: "),
        ({"window": True}, "window: "),
        ({"window": []}, "window: expected .*at least one"),
        ({"window": [16, 400]}, "window: expected at most"),
        ({"stride": 0}, "stride: expected an int or a pair"),
        ({"stride": (3, 0)}, "stride: "),
        ({"resize": 0}, "resize: "),
        ({"mode": "sparse"}, "mode: expected 'exhaustive', 'shared' or 'dense', got 'sparse'"),
        ({"batch_size": 0}, "batch_size: "),
        ({"shared_layer": "stage1"}, "shared_layer: expected None, or a name in mode 'shared'"),
        ({"target": 7}, "target: expected class indices below 7"),
        ({"target": "cat"}, "target: "),
        ({"target": [1, 2]}, "target: "),
        ({"photo": torch.rand(2, 3, 40, 52)}, r"photo: expected one photo .*\[2, 3, 40, 52\]"),
        ({"photo": torch.rand(40, 52)}, "photo: expected one photo"),
        ({"photo": torch.rand(3, 0, 52)}, "photo: expected one photo"),
        ({"photo": picture()[None].repeat(2, 0)}, "photo: expected one photo"),
        ({"photo": ["a.jpg"]}, "photo: expected one photo"),
        ({"photo": torch.rand(4, 40, 52)}, r"images: expected a tensor \[N, 3, H, W\]"),
        ({"model": "demo"}, "model: expected a torch.nn.Module, pyxai.Classifier or function"),
        ({"model": torch.sum, "mode": "dense"}, "mode: expected 'exhaustive' for a function"),
        ({"model": lambda x: x}, "model: expected to return logits"),
        ({"model": lambda x: x.new_zeros(1, 3)}, r"model: expected to return logits \[70, K\]"),
    ],
)
def test_refusals(arguments, message):
    arguments = {"model": SmallNet(), "photo": picture(), "window": 16, "stride": 4} | arguments
    model, photo = arguments.pop("model"), arguments.pop("photo")
    with pytest.raises(ValueError, match=message):
        pyxai.sliding_window(model, photo, **arguments)


def test_more_refusals(scores, tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        pyxai.sliding_window(SmallNet(), tmp_path / "none.jpg")
    for arguments, message in (
        ((0,), "k: "),
        ((1, "class z"), "target: .*closest"),
        ((1, 9), "target: "),
    ):
        with pytest.raises(ValueError, match=message):
            scores.top(*arguments)
    with pytest.raises(ValueError, match="max_overlap: "):
        scores.top(1, max_overlap=1.5)
    with pytest.raises(ValueError, match="sample: "):
        scores.agreement(sample=1)
    with pytest.raises(ValueError, match="target: "):
        scores.heatmap([0, 9])
    wrong = pyxai.Classifier(SmallNet(), class_names=["a", "b"])
    with pytest.raises(ValueError, match="class_names: expected 7 names"):
        pyxai.sliding_window(wrong, picture(), window=16)


def test_logits_that_are_not_finite():
    photo = torch.rand(3, 12, 12)
    photo[:, 11, 11] = torch.inf
    for mode in ("exhaustive", "dense"):
        with pytest.raises(ValueError, match=r"finite .*got NaN"):
            pyxai.sliding_window(random_net(), photo, window=8, stride=4, mode=mode)
    with pytest.raises(ValueError, match=r"for windows \[3\]"):
        pyxai.sliding_window(random_net(), photo, window=8, stride=4)


class OneSize(SmallNet):
    """Takes 16 × 16 only, and says so as vision transformers do."""

    def forward(self, x):
        assert x.shape[-1] == 16, "Input width (20) doesn't match model (16)"
        return super().forward(x)


def test_a_network_of_one_size_asks_for_resize():
    model = OneSize().eval()
    with pytest.raises(ValueError, match=r"window: .*resize= to one \(Input width"):
        pyxai.sliding_window(model, picture(), window=20)
    assert pyxai.sliding_window(model, picture(), window=20, resize=16).logits.isfinite().all()


def test_boxes_apart_are_taken_from_the_best_on():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10], [2, 0, 12, 10]])
    order = torch.tensor([1, 0, 2, 3])
    assert apart(order, boxes, 9, 0.5) == [1, 2]
    assert apart(order, boxes, 9, 0.9) == [1, 0, 2, 3]
    assert apart(order, boxes, 1, 0.5) == [1]
    assert apart(order[:0], boxes, 3, 0.5) == []
