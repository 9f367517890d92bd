"""Transforms of torchvision and timm: what they become, to the bit, and what is refused."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from like_torchvision import (
    CONVERT,
    FLOATS,
    IN_BYTES,
    MEAN,
    MODE,
    PIL_TO_TENSOR,
    PLAIN,
    READY,
    SIZES,
    STD,
    TO_IMAGE,
    TO_TENSOR,
    UNSCALED,
    Mine,
    assert_same,
    compose,
    crop,
    normalize,
    photos,
    preset,
    resize,
    step,
    to_rgb,
)
from networks import SmallNet
from PIL import Image
from torch import nn

from pyxai.classifier import Classifier
from pyxai.images import Preprocessing, as_preprocessing


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (compose(resize(48), crop((40, 40)), TO_TENSOR, normalize()), PLAIN),
        (compose(resize([48]), crop([40]), TO_TENSOR, normalize()), PLAIN),
        (compose(compose(resize(48), crop(40)), compose(TO_TENSOR), normalize()), PLAIN),
        (compose(resize(48), crop(40), PIL_TO_TENSOR, CONVERT, normalize()), PLAIN),
        (compose(TO_IMAGE, resize(48), crop(40), FLOATS, normalize()), PLAIN),
        (compose(TO_TENSOR, resize(48), crop(40), normalize()), PLAIN),
        (compose(resize(48), TO_TENSOR, normalize(), crop(40)), PLAIN),
        (compose(resize(48), crop(40), TO_TENSOR, FLOATS, normalize(), FLOATS), PLAIN),
        (compose(resize(48), crop(40), FLOATS, normalize()), PLAIN),  # photos read as tensors
        (compose(TO_IMAGE, step("ToDtype", dtype=torch.uint8, scale=True), FLOATS), 0),
        (compose(step("RGB"), TO_IMAGE, TO_IMAGE, FLOATS, step("ToPureTensor")), 0),
        (compose(step("ToPILImage", mode=None), step("Identity"), TO_TENSOR), 0),
        (compose(step("MaybeToTensor", "timm.data.transforms")), 0),
        (TO_TENSOR, 0),
        (
            compose(resize((30, 40), MODE.BICUBIC), TO_TENSOR, normalize((0.5,), (0.25,))),
            Preprocessing((0.5,) * 3, (0.25,) * 3, (30, 40), interpolation="bicubic"),
        ),
        (
            compose(resize((30, 40), MODE.EXACT), crop((20, 30)), TO_TENSOR, normalize(0.5, 0.25)),
            Preprocessing((0.5,) * 3, (0.25,) * 3, (30, 40), (20, 30), "nearest"),
        ),
        (
            compose(resize(9, Image.Resampling.LANCZOS), TO_TENSOR, normalize()),
            Preprocessing(resize=9, interpolation="lanczos"),
        ),
        (compose(TO_TENSOR, normalize(torch.tensor(MEAN), torch.tensor(STD))), Preprocessing()),
        (compose(TO_TENSOR, normalize(np.float32(MEAN), np.array(STD))), Preprocessing()),
    ],
)
def test_steps(transform, expected):
    expected = expected or Preprocessing((0, 0, 0), (1, 1, 1))
    assert as_preprocessing(transform) == expected
    assert Classifier(SmallNet(), preprocessing=transform).preprocessing == expected


def test_numbers_from_0_to_255():
    for transform in (
        compose(PIL_TO_TENSOR, UNSCALED, normalize(*IN_BYTES)),
        compose(
            step("ToTensor", "timm.data.transforms", dtype=torch.float32), normalize(*IN_BYTES)
        ),
    ):
        found = as_preprocessing(transform)
        assert found.mean == pytest.approx(MEAN)
        assert found.std == pytest.approx(STD)
    assert as_preprocessing(compose(TO_IMAGE, UNSCALED)).std == pytest.approx((1 / 255,) * 3)


def test_sequences_of_torch():
    modules = [nn.Identity(), *map(wrap, (resize(48), crop(40), CONVERT, normalize()))]
    assert as_preprocessing(nn.Sequential(*modules)) == PLAIN


def wrap(made):
    """The same as a module."""
    kind = type(type(made).__name__, (nn.Module,), {"__module__": type(made).__module__})
    module = kind()
    vars(module).update(vars(made))
    return module


def test_presets():
    expected = Preprocessing(resize=48, crop=40, interpolation="bicubic")
    for transform in (preset(), compose(preset())):
        assert as_preprocessing(transform) == expected
    tensors = compose(PIL_TO_TENSOR, preset(interpolation="bilinear"))
    assert as_preprocessing(tensors) == PLAIN
    with pytest.raises(ValueError, match="a tensor with interpolation 'bicubic'"):
        as_preprocessing(compose(PIL_TO_TENSOR, preset()))
    with pytest.raises(ValueError, match="the step SemanticSegmentation"):
        as_preprocessing(preset("SemanticSegmentation"))
    with pytest.raises(ValueError, match=r"the step ImageClassification.*cannot be expressed"):
        as_preprocessing(step("ImageClassification", "torchvision.transforms._presets"))


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([step("RandomResizedCrop", size=9), *READY], "RandomResizedCrop, a random step"),
        ([step("RandomHorizontalFlip", p=0.5), *READY], "pass the transforms of evaluation"),
        ([step("ColorJitter"), *READY], "ColorJitter, a random step of training"),
        ([*READY, step("RandomErasing", "timm.data.random_erasing")], "RandomErasing, a random"),
        ([to_rgb, *READY], "the function to_rgb, which cannot be read.*; leave it out if it makes"),
        ([step("Lambda", lambd=to_rgb), *READY], "the Lambda, which cannot be read"),
        ([functools.partial(to_rgb), *READY], "the step functools.partial"),
        ([Mine(), *READY], r"the step like_torchvision\.Mine"),
        ([step("Resize", "albumentations.x", size=9), *READY], r"the step albumentations\.x\.Re"),
        ([step("Grayscale", num_output_channels=3), *READY], "the step Grayscale"),
        ([step("Pad", padding=3), *READY], "the step Pad"),
        ([step("ResizeKeepRatio", "timm.data.transforms"), *READY], "the step ResizeKeepRatio"),
        ([], r"it ends with a picture\) .*; add ToTensor"),
        ([resize(48), crop(40)], r"it ends with a picture\) .*; add ToTensor"),
        ([PIL_TO_TENSOR], r"it ends with whole numbers\) .*; add ToDtype"),
        ([normalize(), TO_TENSOR], "Normalize of a picture.*; put ToTensor.* before it"),
        ([resize(48), normalize()], "Normalize of a picture"),
        ([PIL_TO_TENSOR, normalize()], "Normalize of whole numbers.*; put ToDtype"),
        ([TO_TENSOR, normalize(), normalize()], "a second Normalize"),
        ([TO_TENSOR, TO_TENSOR], "ToTensor of a tensor"),
        ([TO_TENSOR, normalize((0.5,) * 2, (0.5,) * 2)], "mean: expected three finite numbers"),
        ([TO_TENSOR, normalize(MEAN, (0.5, 0.5, 0))], "std: expected three numbers greater"),
        ([TO_TENSOR, normalize(None)], "the step Normalize: "),
        ([resize(48), resize(40), *READY], "a second Resize"),
        ([crop(48), resize(40), *READY], "Resize after CenterCrop"),
        ([resize(48), crop(40), crop(30), *READY], "a second CenterCrop"),
        ([*READY, resize(40)], "Resize after Normalize"),
        ([resize(48, max_size=90), *READY], "Resize with max_size"),
        ([resize(None, max_size=90), *READY], "Resize with max_size"),
        ([resize(0), *READY], "resize: expected an int or a pair"),
        ([resize(48, "hamming"), *READY], "interpolation: expected one of"),
        ([resize(48, 5), *READY], "interpolation: expected one of .* got 'hamming'"),
        ([TO_TENSOR, resize(48, antialias=None), normalize()], "a tensor without antialias=True"),
        ([TO_TENSOR, resize(48, "bicubic"), normalize()], "a tensor with interpolation 'bicubic'"),
        ([TO_IMAGE, resize(48, "bicubic"), FLOATS], "a tensor with interpolation 'bicubic'"),
        ([TO_IMAGE, resize(48, "nearest"), FLOATS], "a tensor with interpolation 'nearest'"),
        ([*READY, crop(40)], "CenterCrop after Normalize, which may add a border"),
        ([resize((48, 30)), *READY, crop((40, 40))], "CenterCrop after Normalize"),
        ([TO_IMAGE, step("ToDtype", dtype=torch.float16, scale=True)], r"ToDtype\(torch.float16\)"),
        ([TO_IMAGE, step("ToDtype", dtype={"others": None}, scale=True)], r"ToDtype\(\{'others'"),
        ([FLOATS, TO_IMAGE], "ToDtype of a picture, before ToImage"),
        ([TO_TENSOR, step("ToPILImage", mode=None), TO_TENSOR], "ToPILImage after other steps"),
        ([step("ToPILImage", mode="L"), *READY], "ToPILImage with mode 'L'"),
        ([step("Resize"), *READY], "the step Resize: "),  # another one of this name
    ],
)
def test_steps_that_cannot_be_expressed(steps, words):
    with pytest.raises(ValueError, match=words) as caught:
        Classifier(SmallNet(), preprocessing=compose(*steps))
    start = "preprocessing: that of the given Compose ("
    assert str(caught.value).startswith(start)
    assert ") cannot be expressed as pyxai.Preprocessing; " in str(caught.value)


def test_one_channel():
    gray = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    mnist = compose(TO_TENSOR, normalize((0.1307,), (0.3081,)))
    assert as_preprocessing(mnist).mean == (0.1307,) * 3
    with pytest.raises(ValueError, match=r"Normalize of one channel, for a network of 1, .* three"):
        Classifier(gray, preprocessing=mnist)
    assert Classifier(gray)(torch.zeros(1, 1, 9, 9)).shape == (1, 2)


# ---- the libraries themselves ----


@pytest.fixture
def torchvision():
    return pytest.importorskip("torchvision", reason="needs torchvision", exc_type=ImportError)


def test_transforms_of_torchvision(torchvision):
    t = torchvision.transforms
    ready = [t.ToTensor(), t.Normalize(MEAN, STD)]
    for mode in ("bilinear", "bicubic", "nearest", "lanczos", "nearest-exact"):
        mode = t.InterpolationMode(mode)
        assert_same(t.Compose([t.Resize(48, mode), t.CenterCrop(40), *ready]))
    assert_same(t.Compose([t.Resize(48), t.CenterCrop((61, 35)), *ready]))
    assert_same(t.Compose([t.Resize([40, 44]), *ready, t.CenterCrop(38)]))
    assert_same(t.Compose([t.Resize((40, 44)), t.ToTensor(), t.Normalize((0.5,), (0.25,))]))
    assert_same(t.Compose([t.Compose([t.CenterCrop(39)]), *ready]))
    assert_same(t.Compose([t.PILToTensor(), t.ConvertImageDtype(torch.float), ready[1]]))
    assert_same(t.ToTensor())
    assert_same(t.Compose([t.ToTensor(), t.Resize(48, antialias=True), ready[1]]), 1.01)
    steps = [t.Resize(48, antialias=True), t.CenterCrop(40), t.ConvertImageDtype(torch.float)]
    assert_same(nn.Sequential(*steps, ready[1]), 1.01, tensors=True)


def test_transforms_of_torchvision_v2(torchvision):
    t = pytest.importorskip("torchvision.transforms.v2")
    ready = [t.ToImage(), t.ToDtype(torch.float32, scale=True), t.Normalize(MEAN, STD)]
    for mode in ("bilinear", "bicubic", "nearest", "lanczos"):
        mode = torchvision.transforms.InterpolationMode(mode)
        assert_same(t.Compose([t.Resize(48, mode), t.CenterCrop(40), *ready]), 1e-4)
    pixels = Image.Resampling.BICUBIC
    assert_same(t.Compose([t.RGB(), t.Resize([48], pixels), *ready, t.ToPureTensor()]), 1e-4)
    unscaled = [t.PILToTensor(), t.ToDtype(torch.float32), t.Normalize(*IN_BYTES)]
    assert_same(t.Compose([t.Resize(48), t.Identity(), *unscaled]), 1e-4)
    for mode in ("bilinear", "bicubic"):
        mode = torchvision.transforms.InterpolationMode(mode)
        steps = [t.ToImage(), t.Resize(48, mode), t.CenterCrop(40), *ready[1:]]
        assert_same(t.Compose(steps), 1.01)
    for steps, words in (
        ([t.RandomResizedCrop(48), *ready], "RandomResizedCrop, a random step"),
        ([t.ToImage(), t.Resize(48, antialias=False), *ready[1:]], "without antialias"),
        ([t.Grayscale(3), *ready], "the step Grayscale"),
    ):
        with pytest.raises(ValueError, match=words):
            as_preprocessing(t.Compose(steps))


def test_weights_of_torchvision(torchvision):
    weights = torchvision.models.EfficientNet_B0_Weights.DEFAULT
    transform = weights.transforms(crop_size=40, resize_size=48)
    assert assert_same(transform).interpolation == "bicubic"
    assert_same(torchvision.transforms.Compose([transform]))
    resnet = torchvision.models.ResNet18_Weights.DEFAULT.transforms(crop_size=40, resize_size=48)
    assert_same(resnet, 1.01, tensors=True)
    for value, words in ((weights, r"\.transforms\(\)"), (weights.transforms, "call it first")):
        with pytest.raises(ValueError, match=words):
            as_preprocessing(value)


def test_timm():
    timm = pytest.importorskip("timm", reason="needs timm", exc_type=ImportError)
    for config in (
        {"input_size": (3, 40, 40), "crop_pct": 0.9},
        {"input_size": (3, 40, 30), "crop_mode": "squash", "interpolation": "bicubic"},
        {"input_size": (3, 40, 40), "crop_mode": "squash", "crop_pct": 1.0},
    ):
        data = timm.data.resolve_data_config(config)
        transform = timm.data.create_transform(**data)
        assert assert_same(transform) == as_preprocessing(data)
    for options, words in (
        ({"crop_mode": "border"}, "the step ResizeKeepRatio"),
        ({"is_training": True}, "RandomResizedCropAndInterpolation, a random step"),
        ({"use_prefetcher": True}, "it ends with whole numbers"),
    ):
        with pytest.raises(ValueError, match=words):
            as_preprocessing(timm.data.create_transform(40, **options))
    cfg = timm.get_pretrained_cfg("test_resnet")
    assert as_preprocessing(cfg) == as_preprocessing(cfg.to_dict())
    net = timm.create_model("test_resnet", num_classes=5).eval()
    assert Classifier(net).preprocessing == as_preprocessing(cfg)
    assert Classifier(net)([*photos()]).shape == (2 * len(SIZES), 5)
    net = timm.create_model("test_vit", img_size=96).eval()
    assert Classifier(net).preprocessing.crop == 96
    assert Classifier(net)([*photos()]).shape == (2 * len(SIZES), 1000)
