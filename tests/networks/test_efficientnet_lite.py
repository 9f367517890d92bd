"""A published network in which one activation module serves everywhere, by every call.

Its weights are random here: what is compared are a network and its twin, not what they know.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pyxai
from networks.capabilities import CAPABILITIES, Subject, differences, photos_in

published = pytest.importorskip("efficientnet_lite_pytorch", reason="needs efficientnet-lite")

MASKED = {"scorecam": False, "sscam": True, "iscam": True}
"""Methods of masked images, and whether they take samples."""
METHODS = [
    each for each in CAPABILITIES if each.startswith("cam: ") and each[len("cam: ") :] not in MASKED
]
OTHERS = ["features", "index", "duplicates", "audit", "novelty", "accelerate", "CamModel"]


class Apart(published.EfficientNet):
    """The twin: the activation after the first convolution is a module of its own."""

    def extract_features(self, inputs):
        x = self.first(self._bn0(self._conv_stem(inputs)))
        for block in self._blocks:
            x = block(x)
        return self._swish(self._bn1(self._conv_head(x)))


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    network = published.EfficientNet.from_name("efficientnet-lite0")
    norms = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0  # statistics that fit: else features die out
    with torch.no_grad():
        network.train()(torch.randn(8, 3, 64, 64))
    network.eval()
    twin = Apart.from_name("efficientnet-lite0").eval()
    twin.load_state_dict(network.state_dict())
    twin.first = nn.ReLU6()
    return network, twin


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos_in(tmp_path_factory.mktemp("photos"))


def test_the_last_run_is_explained(networks):
    network, _ = networks
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    classifier = pyxai.Classifier(network)
    layer = classifier.last_spatial_layer(images)
    with torch.no_grad():
        features, logits = network.extract_features(images), network(images)
    assert layer == "_swish"
    assert torch.allclose(classifier.activations(images, layer)[layer], features, atol=1e-5)
    maps = pyxai.cam(classifier, images, 7, size=None, normalize=None, relu=False)
    expected = torch.einsum("c,nchw->nhw", network._fc.weight[7].detach(), features)
    assert torch.allclose(maps, expected, atol=1e-4 * float(expected.abs().max()))
    assert torch.allclose(maps.mean((1, 2)) + network._fc.bias[7].detach(), logits[:, 7], atol=1e-4)


@pytest.mark.parametrize("call", [*METHODS, *OTHERS])
def test_every_call_without_layer(networks, folder, call, one_thread):
    images = torch.randn(3, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    found = []
    for network in networks:
        try:
            found.append(CAPABILITIES[call](Subject(network, images, folder)))
        except ValueError as error:
            found.append(str(error))
    one, other = found
    if isinstance(other, str):
        assert call == "cam: legrad", other
        assert one == other
    else:
        assert not differences(one, other, 1e-4)


@pytest.mark.parametrize("method", MASKED)
def test_masked_images_without_layer(networks, method, one_thread):
    """These run the network once for each channel, of which there are 1280: a few will do."""
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    options = {"samples": 2} if MASKED[method] else {}
    chosen = pyxai.cam_method(method, channels=4, **options)
    one, other = (pyxai.cam(network, images, method=chosen, size=None) for network in networks)
    assert torch.allclose(one, other, atol=1e-4)
    assert float(one.max()) > 0.99
