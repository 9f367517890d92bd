"""What is taken for a preprocessing, the configurations of other libraries, and what they carry."""

from __future__ import annotations

import enum
import functools
import warnings
from types import SimpleNamespace

import pytest
import torch
from like_torchvision import (
    MEAN,
    MODE,
    PLAIN,
    READY,
    STD,
    TO_TENSOR,
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
from torch import nn

from pyxai.classifier import Classifier
from pyxai.images import Preprocessing, as_preprocessing, to_batch
from pyxai.zoo import load_classifier

EXPECTED = "preprocessing: expected a pyxai.Preprocessing, transforms of torchvision or timm, an"


class Weights(enum.Enum):
    DEFAULT = 1

    def transforms(self):
        return preset()


class ToDict:
    def __init__(self, made):
        self.made = made

    def to_dict(self):
        if isinstance(self.made, Exception):
            raise self.made
        return self.made


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("imagenet", "got 'imagenet'$"),
        (3, "got 3$"),
        (True, "got True$"),
        (to_rgb, "got a function; what it does cannot be read, but tensors that it made"),
        (lambda photo: photo, "got a function; "),
        (Mine(), "got a Mine of like_torchvision; what it does cannot be read"),
        (
            step("Compose", "albumentations.core", transforms=[]),
            "a Compose of albumentations; what",
        ),
        (type(preset()), "got a type; call it first"),
        (Preprocessing, "got a type; call it first"),
        (functools.partial(preset, crop_size=[9]), "got a partial; call it first"),
        (Weights.DEFAULT, r"got a Weights of test_recipes; pass its \.transforms\(\)"),
        ([*READY], "got a list of transforms; put them into one Compose"),
        ((compose(*READY), compose(*READY)), "got a tuple of transforms; put them into"),
        ([], "got a list$"),
        ({}, "got a dict$"),
        ({"mean": MEAN, "std": STD}, r"got a dict; pass pyxai.Preprocessing\(\*\*it\)"),
        ({"photos": 3}, "got a dict$"),
        (ToDict(3), "got a ToDict"),
        (ToDict({"a": 1}), "got a ToDict"),
        (ToDict(RuntimeError()), "got a ToDict"),
        (torch.zeros(3), r"got a float32 tensor \[3\]$"),
        (SimpleNamespace(mean=MEAN), "got a SimpleNamespace of types"),
    ],
)
def test_what_is_no_preprocessing(value, words):
    with pytest.raises(ValueError, match=words) as caught:
        Classifier(SmallNet(), preprocessing=value)
    assert str(caught.value).startswith(EXPECTED)
    with pytest.raises(ValueError, match=words):
        load_classifier("no_such_file.pt", preprocessing=value)  # before anything is loaded
    with pytest.raises(ValueError, match=words):
        to_batch(torch.zeros(1, 3, 8, 8), value)


def test_wherever_a_preprocessing_is_taken():
    transform = compose(resize(48), crop(40), *READY)
    photo = next(photos())
    assert torch.equal(to_batch([photo], transform)[0], PLAIN(photo))
    assert as_preprocessing(PLAIN) is PLAIN
    assert load_classifier("demo", preprocessing=transform).preprocessing == PLAIN
    with pytest.raises(ValueError, match="a network of 4"):
        Classifier(
            nn.Sequential(nn.Conv2d(4, 4, 1)),
            preprocessing=compose(TO_TENSOR, normalize((0.5,), (0.5,))),
        )


# ---- configurations ----

TIMM = {"input_size": (3, 40, 40), "crop_pct": 0.8, "interpolation": "bilinear"}
TIMM_EXPECTED = Preprocessing(resize=50, crop=40)
HF = {"do_resize": True, "size": {"shortest_edge": 48}, "do_center_crop": True}
HF |= {"crop_size": {"height": 40, "width": 40}, "resample": 2, "do_normalize": True}
HF |= {"image_mean": [*MEAN], "image_std": [*STD], "image_processor_type": "BitImageProcessor"}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (TIMM, TIMM_EXPECTED),
        ({**TIMM, "mean": list(MEAN), "std": None, "url": "", "first_conv": "x"}, TIMM_EXPECTED),
        (ToDict(TIMM), TIMM_EXPECTED),
        ({"architecture": "resnet18", "num_classes": 3, "pretrained_cfg": TIMM}, TIMM_EXPECTED),
        ({"data_config": TIMM, "architecture": None}, TIMM_EXPECTED),
        ({"input_size": [3, 64, 64]}, Preprocessing(resize=73, crop=64, interpolation="bicubic")),
        (HF, PLAIN),
        ({**HF, "resample": MODE.BICUBIC}, Preprocessing(MEAN, STD, 48, 40, "bicubic")),
        (ToDict(HF), PLAIN),
        ({"image_processor": HF, "processor_class": "CLIPProcessor"}, PLAIN),
        (
            {**HF, "image_mean": 0.5, "image_std": 0.5},
            Preprocessing((0.5,) * 3, (0.5,) * 3, 48, 40),
        ),
        ({**HF, "crop_pct": 0.5}, PLAIN),  # of no meaning to this kind
        (
            {**HF, "size": {"shortest_edge": 48}, "crop_pct": 0.75, "do_center_crop": False}
            | {"image_processor_type": "ConvNextImageProcessorFast"},
            Preprocessing(resize=64, crop=48),
        ),
        (
            {**HF, "crop_pct": 0.75, "image_processor_type": "PoolFormerImageProcessor"},
            Preprocessing(resize=64, crop=40),
        ),
        (
            {**HF, "do_normalize": False, "include_top": True, "image_std": (0.5,) * 3},
            Preprocessing((0, 0, 0), (0.5,) * 3, 48, 40),
        ),
    ],
)
def test_configurations(config, expected):
    assert as_preprocessing(config) == expected
    assert Classifier(SmallNet(), preprocessing=config).preprocessing == expected


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({**TIMM, "input_size": (1, 28, 28)}, r"input_size \(1, 28, 28\), photos have 3 channels"),
        ({**TIMM, "input_size": 224}, "input_size 224 with crop_pct 0.8"),
        ({**TIMM, "crop_pct": "most"}, "with crop_pct 'most'"),
        ({**TIMM, "crop_border_pixels": 3}, "crop_border_pixels"),
        ({**TIMM, "interpolation": "random"}, "interpolation: expected one of"),
        ({**TIMM, "mean": (0.5,)}, "mean: expected three"),
        ({**HF, "size": 224}, "size 224"),
        ({**HF, "size": {"shortest_edge": 48, "longest_edge": 99}}, "'longest_edge': 99"),
        ({key: value for key, value in HF.items() if key != "size"}, "without 'size'"),
        ({**HF, "resample": 5}, "interpolation: expected .* got 'hamming'"),
        ({**HF, "rescale_factor": "1/255"}, "TypeError|unsupported|concatenate|str"),
        ({**HF, "image_std": None}, "NoneType"),
        ({**HF, "size_divisor": 32}, "size_divisor=32"),
        ({**HF, "do_grayscale": True}, "do_grayscale=True"),
        ({**HF, "resize_short": 256}, "resize_short=256"),
        ({**HF, "image_processor_type": "PerceiverImageProcessor"}, "a crop before the resize"),
        ({**HF, "image_processor_type": "PPLCNetImageProcessor"}, "channels in another order"),
        ({**HF, "crop_pct": 0.9, "image_processor_type": None}, "crop_pct=0.9"),
        (
            {**HF, "crop_pct": 0.9, "image_processor_type": "ConvNextImageProcessor"},
            "crop_pct=0.9 with crop_size 40",
        ),
        (
            {**HF, "crop_pct": 0.9, "size": {"height": 9, "width": 9}}
            | {"image_processor_type": "PoolFormerImageProcessor"},
            "'height': 9",
        ),
    ],
)
def test_configurations_that_cannot_be_expressed(config, words):
    with pytest.raises(ValueError, match=words) as caught:
        as_preprocessing(config)
    assert str(caught.value).startswith("preprocessing: that of the given dict (")


# ---- what a network carries ----


def carrying(**attributes):
    net = SmallNet()
    for name, value in attributes.items():
        setattr(net, name, value)
    return net


def test_preprocessing_of_the_network():
    net = carrying(pretrained_cfg=TIMM)
    wrapped = carrying(config=SimpleNamespace(pretrained_cfg=TIMM))
    for each in (net, wrapped, nn.DataParallel(net), torch.compile(net, backend="eager")):
        assert Classifier(each).preprocessing == TIMM_EXPECTED
    assert Classifier(net, preprocessing=PLAIN).preprocessing is PLAIN
    assert Classifier(nn.Sequential(net)).preprocessing == Preprocessing()
    photo = next(photos())
    assert torch.equal(Classifier(net).to_input([photo])[0], TIMM_EXPECTED(photo))


def test_the_size_of_the_network_counts():
    net = carrying(pretrained_cfg=TIMM)
    net.patch_embed = nn.Identity()
    assert Classifier(net).preprocessing == TIMM_EXPECTED
    net.patch_embed.img_size = (80, 80)
    assert Classifier(net).preprocessing == Preprocessing(resize=100, crop=80)
    net.patch_embed.img_size = None
    assert Classifier(net).preprocessing == TIMM_EXPECTED


def test_what_the_network_carries_and_cannot_be_expressed_is_said():
    net = carrying(pretrained_cfg={**TIMM, "crop_mode": "border"})
    with pytest.warns(
        UserWarning, match=r"that of this SmallNet \(crop_mode 'border'.*not resized"
    ):
        assert Classifier(net).preprocessing == Preprocessing()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Classifier(net, preprocessing=PLAIN)


def test_image_processors():
    hf = pytest.importorskip("transformers", reason="needs transformers", exc_type=ImportError)
    size = {"height": 40, "width": 44}
    for kind, options in (
        ("ViTImageProcessor", {}),
        ("ViTImageProcessor", {"image_mean": MEAN, "image_std": STD, "resample": 3}),
        ("EfficientNetImageProcessor", {}),
    ):
        made = getattr(hf, f"{kind}Pil", getattr(hf, kind))  # with PIL, where there is a choice
        given = made(size=size, **options)

        def apply(photo, processor=given):
            return processor(photo, return_tensors="pt").pixel_values[0]

        assert_same(apply, 1e-4, given=given)
    with pytest.raises(ValueError, match="a crop before the resize"):
        as_preprocessing(hf.PerceiverImageProcessor())
    with pytest.raises(ValueError, match="got a ViTConfig of transformers"):
        as_preprocessing(hf.ViTConfig())
