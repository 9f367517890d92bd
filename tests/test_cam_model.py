"""`pyxai.CamModel`: the maps of `pyxai.cam`, compiled, exported, and in ONNX Runtime."""

from __future__ import annotations

import copy
import io
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from networks import SmallNet
from torch import nn

import pyxai

BATCH = ({0: torch.export.Dim("n")},)


@pytest.fixture
def images():
    return torch.randn(3, 3, 48, 40)


@pytest.mark.parametrize("target", [None, 3, "all"])
@pytest.mark.parametrize(
    "method",
    ["cam", "gradcam", "gradcam++", "layercam", "hirescam", "finercam", "eigencam", "fem"],
)
def test_the_same_as_cam(small_net, images, method, target):
    served = pyxai.CamModel(small_net, method=method, target=target, example=images[:1])
    logits, maps = served(images)
    expected, wanted = pyxai.cam(small_net, images, target, method=method, return_logits=True)
    assert maps.shape == expected.shape
    assert torch.allclose(maps, expected, atol=1e-6)
    assert torch.allclose(logits, wanted, atol=1e-6)


def test_arguments(small_net, images):
    named = pyxai.Classifier(small_net, class_names=list("abcdefg"))
    served = pyxai.CamModel(named, target="d", size=None, minmax=False, example=images[:1])
    assert served.class_names == tuple("abcdefg")
    assert (served.layer, served.method) == ("stage3", "cam")
    raw = pyxai.cam(small_net, images, 3, size=None, normalize=None)
    assert torch.allclose(served(images)[1], raw, atol=1e-6)
    other = pyxai.CamModel(small_net, layer="stage2", method="eigencam", size=(9, 7))
    assert other(images)[1].shape == (3, 9, 7)


def test_it_is_a_frozen_copy(small_net, images):
    small_net.train()
    served = pyxai.CamModel(small_net, example=images[:1])
    assert small_net.training
    assert all(parameter.requires_grad for parameter in small_net.parameters())
    assert not any(module._forward_hooks for module in small_net.modules())
    assert not any(parameter.requires_grad for parameter in served.parameters())
    before = served(images)[1]
    nn.init.ones_(small_net.fc.weight)
    assert torch.equal(served(images)[1], before)


def test_threads_copies_and_state(small_net, images):
    served = pyxai.CamModel(small_net, example=images[:1])
    batches = [torch.randn(2, 3, 48, 40) for _ in range(24)]
    alone = [served(batch)[1] for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda batch: served(batch)[1], batches))
    assert all(map(torch.equal, alone, together))
    twin = copy.deepcopy(served)
    assert torch.equal(twin(images)[1], served(images)[1])
    file = io.BytesIO()
    torch.save(served.state_dict(), file)
    file.seek(0)
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(twin(images)[1], served(images)[1])


@pytest.mark.slow
def test_compiled(small_net, images):
    served = pyxai.CamModel(small_net, example=images[:1])
    logits, maps = torch.compile(served, fullgraph=True, backend="aot_eager")(images)
    expected = served(images)
    assert torch.allclose(logits, expected[0], atol=1e-4)
    assert torch.allclose(maps, expected[1], atol=1e-4)


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # torch 2.11's own
def test_exported_saved_and_loaded(small_net, images):
    served = pyxai.CamModel(small_net, target="all", example=images[:1])
    expected = served(images[:2])
    program = torch.export.export(served, (images,), dynamic_shapes=BATCH)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    found = torch.export.load(file).module()(images[:2])
    assert torch.allclose(found[1], expected[1], atol=1e-6)
    assert torch.equal(served(images[:2])[1], expected[1])  # export left it as it was


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter's own
@pytest.mark.parametrize("method", ["cam", "layercam"])
def test_onnx_runtime_gives_the_same(small_net, images, tmp_path, method):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    served = pyxai.CamModel(small_net, method=method, example=images[:1])
    path = tmp_path / "cam.onnx"
    torch.onnx.export(served, (images,), path, dynamo=True, dynamic_shapes=BATCH)
    session = onnxruntime.InferenceSession(path)
    assert session.get_modelmeta()
    (name,) = [each.name for each in session.get_inputs()]
    logits, maps = session.run(None, {name: images[:2].numpy()})
    expected = served(images[:2])
    assert torch.allclose(torch.from_numpy(logits), expected[0], atol=1e-4)
    assert torch.allclose(torch.from_numpy(maps), expected[1], atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "scorecam"}, "method: expected one that runs the network once"),
        ({"method": "fullgrad"}, "method: expected one about a single layer"),
        ({"method": "refinecam"}, "method: expected one about a single layer"),
        ({"size": "half"}, "size: expected 'input'"),
        ({"size": 0}, "size: expected .*at least 1"),
        ({"size": (3,)}, "size: expected .*at least 1"),
        ({"target": 9}, "target: expected class indices below 7, got 9"),
        ({"layer": "stage9"}, "layer: .*stage"),
    ],
)
def test_refusals(small_net, images, arguments, message):
    with pytest.raises(ValueError, match=message):
        pyxai.CamModel(small_net, example=images[:1], **arguments)


def test_heads_of_another_kind(images):
    model = SmallNet(head="mlp").eval()
    with pytest.raises(ValueError, match="method: expected one that uses neither gradients nor"):
        pyxai.CamModel(model, example=images[:1])
    served = pyxai.CamModel(model, method="eigencam", example=images[:1])
    assert torch.allclose(served(images)[1], pyxai.cam(model, images, method="eigencam"), atol=1e-6)


def test_a_network_in_float64_gives_maps_in_float32():
    logits, maps = pyxai.CamModel(SmallNet().double().eval())(torch.randn(2, 3, 32, 32).double())
    assert (logits.dtype, maps.dtype) == (torch.float64, torch.float32)
