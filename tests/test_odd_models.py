"""Models that cannot be explained as they are get a sentence that says what to do."""

from __future__ import annotations

import pytest
import torch
from networks.habits import CLASSES, SIZE, FunctionalReLU, Net, lively
from torch import nn
from torch.nn import functional as F

import pyxai
from pyxai.images import ImageError

IMAGES = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))

CALLS = {
    "cam": lambda model: pyxai.cam(model, IMAGES),
    "windows": lambda model: pyxai.sliding_window(model, IMAGES[0], window=16, stride=8),
    "logits": lambda model: pyxai.Classifier(model)(IMAGES),
    "SHAP": lambda model: pyxai.shap_values(model, IMAGES, samples=4),
    "learned masks": lambda model: pyxai.undesirable_pixels(
        model, IMAGES, settings=pyxai.MaskSettings(steps=1)
    ),
    "accelerate": lambda model: pyxai.accelerate(model, probe=IMAGES),
    "CamModel": lambda model: pyxai.CamModel(model, example=IMAGES),
}


class Video(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv3d(3, 8, 3), nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.fc(F.relu(self.conv(x)).mean((2, 3, 4)))


class TwoInputs(Net):
    def forward(self, x, age):
        return super().forward(x) + age


class KeywordOnly(Net):
    def forward(self, *, pixel_values):
        return super().forward(pixel_values)


class TakesBatch(Net):
    """Takes what a data loader gives."""

    def forward(self, batch):
        return super().forward(batch["image"])


class TakesObject(Net):
    def forward(self, batch):
        return super().forward(batch.pixel_values)


class TextFirst(nn.Module):
    """As whole models of text and images of transformers."""

    main_input_name = "input_ids"

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(9, 4)

    def forward(self, input_ids=None, pixel_values=None):
        return self.words(input_ids)


class Embeds(Net):
    """As CLIP of open_clip."""

    def encode_image(self, x):
        return F.normalize(super().forward(x), dim=1)

    def forward(self, image, text=None):
        return self.encode_image(image), None, torch.tensor(4.6)


class Detects(Net):
    """As detectors of torchvision."""

    def forward(self, x):
        scores = super().forward(x).softmax(1).amax(1)
        return [{"boxes": torch.zeros(1, 4), "scores": each[None]} for each in scores]


class Segments(Net):
    def forward(self, x):
        return {"out": F.interpolate(self.body(x)[:, :CLASSES], x.shape[2:])}


class OneImageOnly(Net):
    pass


def exported():
    return torch.export.export(lively(Net()), (IMAGES[:1],))


def on_meta():
    with torch.device("meta"):
        return Net()


def predictor():
    """What stands around a network in ultralytics."""
    kind = type("YOLO", (nn.Module,), {"__module__": "ultralytics.engine.model"})
    found = kind()
    found.model = Net()
    return found


ODD = {
    "video": (Video, r"model: .*Video, which begins with a Conv3d \(video or volumes\)"),
    "two inputs": (TwoInputs, r"images alone, got TwoInputs, whose forward is forward\(x, age\)"),
    "keyword only": (KeywordOnly, r"whose forward is forward\(\*, pixel_values\)"),
    "a dictionary": (TakesBatch, r"called with a tensor of images, got TakesBatch.*IndexError"),
    "an object": (TakesObject, r"called with a tensor of images, got TakesObject.*AttributeError"),
    "text first": (TextFirst, r"TextFirst, whose first is 'input_ids'"),
    "a detector": (Detects, r"to return logits \[\d, K\].*got a list with 0: a dict.*target"),
    "segmentation": (Segments, r"to return logits \[\d, K\].*with out: a float32 tensor.*target"),
    "a CLIP": (Embeds, r"returns? logits, got Embeds, which embeds images"),
    "an exported program": (exported, r"a torch.nn.Module.*got an ExportedProgram; pass program"),
    "its module": (lambda: exported().module(), r"any number of images, got a program .* fixed"),
    "unflattened": (lambda: torch.export.unflatten(exported()), r"any number of images.* fixed"),
    "meta": (
        on_meta,
        r"model: expected weights with numbers, got 'c1.weight' on the device 'meta'",
    ),
    "a YOLO": (predictor, r"got a YOLO; that one predicts and draws: pass its network, \.model"),
    "a class": (lambda: Net, r"got a class; make one: Net\(\.\.\.\)"),
    "a function": (lambda: lambda x: x, r"a torch.nn.Module or pyxai.Classifier, got a function"),
    "weights": (lambda: Net().state_dict(), r"load weights into their network first"),
    "a name": (lambda: "resnet18", r"load it: pyxai.load_classifier"),
}


# Windows are made of any function; an accelerated copy may return anything.
FINE = {
    ("a function", "windows"): "to return logits",
    ("a detector", "accelerate"): None,
    ("segmentation", "accelerate"): None,
    ("a CLIP", "accelerate"): None,
}


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch.export's own
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("odd", ODD)
def test_a_sentence_and_no_traceback(odd, call):
    make, message = ODD[odd]
    message = FINE.get((odd, call), message)
    if message is None:
        CALLS[call](make())
        return
    with pytest.raises(ValueError, match=message):
        CALLS[call](make())


@pytest.mark.parametrize("images", [torch.randn(1, 3, 4, 32, 32), torch.randn(1, 1, 4, 4, 4)])
def test_video_as_images(images):
    with pytest.raises(ImageError, match="video and volumes are not images"):
        pyxai.cam(Video(), images)


def test_images_without_numbers():
    with pytest.raises(ValueError, match="images: expected tensors with numbers"):
        pyxai.cam(Net(), IMAGES.to("meta"))


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_a_program_for_any_number_of_images():
    """Functions of such a program, not modules, are its layers."""
    net = lively(FunctionalReLU())
    some = torch.export.Dim("images", min=1, max=64)
    program = torch.export.export(net, (IMAGES,), dynamic_shapes=({0: some},))
    expected = pyxai.cam(net, IMAGES, method="gradcam")
    for module in (program.module(), torch.export.unflatten(program)):
        assert torch.allclose(pyxai.cam(module, IMAGES, method="gradcam"), expected, atol=1e-4)
        assert torch.allclose(pyxai.cam(module, IMAGES), pyxai.cam(net, IMAGES), atol=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantized_layers():
    net = torch.ao.quantization.quantize_dynamic(lively(Net()), {nn.Linear})
    assert pyxai.Classifier(net)(IMAGES).shape == (2, CLASSES)
    with pytest.raises(ValueError, match="its layers are quantized: explain the float network"):
        pyxai.cam(net, IMAGES, method="gradcam")
    assert pyxai.cam(net, IMAGES, method="scorecam").shape == (2, SIZE, SIZE)


def test_target_functions_explain_other_outputs():
    """What docs/your_model.md says of detection, segmentation and CLIP."""

    def detection(outputs):
        return torch.cat([each["scores"] for each in outputs])

    detected = pyxai.cam(lively(Detects()), IMAGES, detection, size=None)
    assert float(detected.amax()) == 1
    segmented = pyxai.cam(
        lively(Segments()), IMAGES, lambda out: out["out"][:, 2].mean((1, 2)), size=None
    )
    assert float(segmented.amax()) == 1
    text = F.normalize(torch.ones(CLASSES), dim=0)
    alike = pyxai.cam(lively(Embeds()), IMAGES, lambda out: out[0] @ text, size=None)
    assert float(alike.amax()) == 1
