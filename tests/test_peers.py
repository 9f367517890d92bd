"""pytorch-grad-cam, torchcam and Captum on the same networks: the same maps, or a known reason.

Where they differ, docs/decisions/030-where-other-libraries-compute-something-else.md says why; here
their map is then explained as what it is, so that a change on either side is noticed.
"""

from __future__ import annotations

import pytest
import torch
from networks import full_pass, random_net
from test_cam_masked import ablated, scored
from test_cam_methods import PLAIN, by_weights
from torch.nn import functional

import pyxai
from pyxai.attribution.cam.methods import cam_method

grad_cam = pytest.importorskip("pytorch_grad_cam")
torchcam = pytest.importorskip("torchcam.methods")
captum = pytest.importorskip("captum.attr")

from pytorch_grad_cam.utils.model_targets import (  # noqa: E402
    ClassifierOutputTarget,
    FinerWeightedTarget,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
TOLERANCE = 1e-4  # of maps in [0, 1]
NETS = [("linear", 1), ("mlp", 2), ("linear", 3)]
SMOOTH = [("smooth", 1), ("smooth", 2), ("smooth", 3)]
LAYERS = ["stage3", "stage2"]  # after the second, gradients depend on the position


@pytest.fixture(autouse=True)
def _one_thread(threads):
    threads(1)


def example(head, seed):
    """A network, images, and the top class of each: scores that are positive."""
    torch.manual_seed(seed)
    model, images = random_net(head), torch.randn(3, 3, 40, 48)
    with torch.no_grad():
        scores, top = model(images).max(dim=1)
    assert scores.min() > 0
    return model, images, top.tolist()


def scaled(maps, relu=True):
    """ReLU, then each map to [0, 1]."""
    maps = maps.relu() if relu else maps
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return torch.nan_to_num((maps - low) / (high - low))


def ours(model, images, target, name, layer, **arguments):
    arguments = {"size": None, "relu": True, **arguments}
    maps = pyxai.cam(model, images, target, method=name, layer=layer, **arguments)
    assert maps.abs().amax() > 0
    return maps


def signed(model, images, target, name, layer):
    return ours(model, images, target, name, layer, normalize=None, relu=False)


def of_grad_cam(kind, model, images, target, layer, **arguments):
    """The map of pytorch-grad-cam before it is scaled and resized."""
    cam, kept = kind(model, [model.get_submodule(layer)]), []
    base = getattr(cam, "base_cam", cam)
    compute = base.get_cam_image

    def keep(*args, **kwargs):
        kept.append(torch.as_tensor(compute(*args, **kwargs)).float())
        return kept[-1].numpy()

    base.get_cam_image = keep
    targets = None if target is None else [ClassifierOutputTarget(k) for k in target]
    cam(images.clone(), targets, **arguments)
    base.activations_and_grads.release()
    return kept[0]


def of_torchcam(kind, model, images, target, layer, normalized=True, **options):
    with kind(model, layer, **options) as extractor:
        scores = model(images)
        (maps,) = extractor(target, scores, normalized=normalized)
    return maps.detach()


def agree(found, expected):
    assert found.shape == expected.shape
    difference = (found - expected).abs().max().item()
    assert difference <= TOLERANCE, difference


def differ(found, expected):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() > 10 * TOLERANCE


# ---- the same ----

GRAD_CAM = {
    "gradcam": grad_cam.GradCAM,
    "hirescam": grad_cam.HiResCAM,
    "layercam": grad_cam.LayerCAM,
    "xgradcam": grad_cam.XGradCAM,
    "gradcam_elementwise": grad_cam.GradCAMElementWise,
    "fem": grad_cam.FEM,
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("net", NETS)
def test_grad_cam(net, layer):
    model, images, top = example(*net)
    for name, kind in GRAD_CAM.items():
        theirs = of_grad_cam(kind, model, images, top, layer)
        agree(ours(model, images, top, name, layer), scaled(theirs))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("net", NETS)
def test_grad_cam_up_to_the_sign(net, layer):
    """Their components have the sign that the decomposition happens to give."""
    model, images, top = example(*net)
    kinds = {
        "eigencam": grad_cam.EigenCAM,
        "eigengradcam": grad_cam.EigenGradCAM,
        "kpcacam": grad_cam.KPCA_CAM,
    }
    for name, kind in kinds.items():
        theirs = of_grad_cam(kind, model, images, top, layer)
        mine = signed(model, images, top, name, layer)
        sign = (theirs * mine).sum((1, 2), keepdim=True).sign()
        agree(scaled(mine), scaled(theirs * sign))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("net", SMOOTH)
def test_grad_cam_with_second_derivatives(net, layer):
    model, images, top = example(*net)
    theirs = of_grad_cam(grad_cam.ShapleyCAM, model, images, top, layer)
    theirs = scaled(theirs, relu=False)
    agree(ours(model, images, top, "shapleycam", layer, relu=False), theirs)
    differ(ours(model, images, top, "gradcam", layer, relu=False), theirs)


TORCHCAM = {
    "gradcam": (torchcam.GradCAM, {}),
    "layercam": (torchcam.LayerCAM, {}),
    "xgradcam": (torchcam.XGradCAM, {}),
    "scorecam": (torchcam.ScoreCAM, {}),
    "sscam(samples=2, std=1e-09)": (torchcam.SSCAM, {"num_samples": 2, "std": 1e-9}),
    "iscam(samples=1)": (torchcam.ISCAM, {"num_samples": 1}),
    "finercam": (torchcam.FinerCAM, {}),
    "finercam(base='layercam', references=2, strength=1.0)": (
        torchcam.FinerCAM,
        {"base_method": torchcam.LayerCAM, "num_references": 2, "gamma": 1.0},
    ),
}
OURS = [
    "gradcam",
    "layercam",
    "xgradcam",
    "scorecam",
    cam_method("sscam", samples=2, std=1e-9),
    cam_method("iscam", samples=1),
    "finercam",
    cam_method("finercam", base="layercam", references=2, strength=1.0),
]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("net", NETS)
def test_torchcam(net, layer):
    model, images, top = example(*net)
    assert list(map(str, OURS)) == list(TORCHCAM)
    for method in OURS:
        kind, options = TORCHCAM[str(method)]
        theirs = of_torchcam(kind, model, images, top, layer, **options)
        agree(ours(model, images, top, method, layer), theirs)


@pytest.mark.parametrize("net", NETS[::2])
def test_torchcam_of_linear_heads(net):
    model, images, top = example(*net)
    theirs = of_torchcam(torchcam.CAM, model, images, top, "stage3", fc_layer="fc")
    agree(ours(model, images, top, "cam", "stage3", relu=False), theirs)


@pytest.mark.parametrize("net", NETS)
def test_torchcam_of_several_layers(net):
    model, images, top = example(*net)
    layers = ["stage1", "stage3", "stage2"]
    theirs = of_torchcam(
        torchcam.RefineCAM, model, images, top, layers, base_method=torchcam.LayerCAM
    )
    agree(ours(model, images, top, cam_method("refinecam", base="layercam"), layers), theirs)


@pytest.mark.parametrize("layer", [*LAYERS, "stage2.conv2"])
@pytest.mark.parametrize("net", NETS)
def test_captum(net, layer):
    model, images, top = example(*net)
    extractor = captum.LayerGradCam(model, model.get_submodule(layer))
    theirs = extractor.attribute(images, target=top)[:, 0].detach()
    agree(ours(model, images, top, "gradcam", layer), scaled(theirs))
    mine = signed(model, images, top, "gradcam", layer)
    assert torch.allclose(mine, theirs, atol=1e-4 * theirs.abs().max())


@pytest.mark.parametrize("net", NETS)
def test_ablationcam_of_grad_cam(net):
    """The same where the score is positive and the smallest value of the layer is 0."""
    model, images, top = example(*net)
    theirs = of_grad_cam(grad_cam.AblationCAM, model, images, top, "stage3")
    agree(ours(model, images, top, "ablationcam", "stage3"), scaled(theirs))


# ---- not the same ----


@pytest.mark.parametrize("net", NETS)
def test_ablationcam_of_negative_scores(net):
    """They divide by the score, and so turn the map around; the paper's drop is relative to |y|."""
    model, images, _ = example(*net)
    with torch.no_grad():
        scores, lowest = model(images).min(dim=1)
    assert scores.max() < 0
    theirs = of_grad_cam(grad_cam.AblationCAM, model, images, lowest.tolist(), "stage3")
    mine = signed(model, images, lowest.tolist(), "ablationcam", "stage3")
    assert torch.allclose(mine, -theirs, atol=1e-4 * theirs.abs().max())


@pytest.mark.parametrize("net", NETS)
def test_ablationcam_of_signed_layers(net):
    """Where the smallest value is not 0 they put -1e7 in place of a channel, the paper 0."""
    model, images, top = example(*net)
    layer = "stage3.shortcut"
    theirs = of_grad_cam(grad_cam.AblationCAM, model, images, top, layer)
    rows = zip(images.split(1), top, strict=True)
    maps = torch.cat([ablated(model, image, target, layer)[1] for image, target in rows])
    agree(ours(model, images, top, "ablationcam", layer), scaled(maps).float())
    differ(scaled(theirs), scaled(maps).float())


@pytest.mark.parametrize("net", NETS)
def test_gradcam_plus_plus_of_torchcam(net):
    """Dividing a copy that boolean indexing made leaves G² in place of α."""
    model, images, top = example(*net)
    for layer in LAYERS:
        theirs = of_torchcam(torchcam.GradCAMpp, model, images, top, layer)
        features, gradients = full_pass(model, images, lambda o: o[range(3), top], layer)
        weights = (gradients**2 * gradients.relu()).sum((2, 3))
        agree(scaled(by_weights(weights, features)), theirs.double())
        expected = scaled(PLAIN["gradcam++"](features, gradients)).float()
        agree(ours(model, images, top, "gradcam++", layer), expected)
        differ(theirs, expected)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("net", NETS)
def test_gradcam_plus_plus_of_grad_cam(net, layer):
    """The same, but for their ε = 1e-6 in a denominator of the order of G²."""
    model, images, top = example(*net)
    last = model.fc if isinstance(model.fc, torch.nn.Linear) else model.fc[-1]
    with torch.no_grad():
        last.weight.mul_(1000)
    for scale, same in ((1, agree), (1e-7, differ)):
        with torch.no_grad():
            last.weight.mul_(scale)
        features, gradients = full_pass(model, images, lambda o: o[range(3), top], layer)
        formula = scaled(PLAIN["gradcam++"](features, gradients)).float()
        agree(ours(model, images, top, "gradcam++", layer), formula)
        same(scaled(of_grad_cam(grad_cam.GradCAMPlusPlus, model, images, top, layer)), formula)


@pytest.mark.parametrize("net", NETS)
def test_scorecam_of_grad_cam(net):
    """They resize with the corners aligned, and scale to [0, 1] after that."""
    model, images, top = example(*net)
    target = top[0]
    theirs = of_grad_cam(grad_cam.ScoreCAM, model, images, [target] * 3, "stage3")
    _, maps = scored(model, images, target, "stage3", lambda mask, channel: [mask])
    agree(ours(model, images, target, "scorecam", "stage3"), scaled(maps).float())
    differ(scaled(theirs), scaled(maps).float())


@pytest.mark.parametrize("net", NETS)
def test_iscam_of_torchcam(net):
    """Their strengths add up, 1/n, 3/n, 6/n ..., and pass 1; the integral ends at the mask."""
    model, images, top = example(*net)
    target = top[0]
    theirs = of_torchcam(torchcam.ISCAM, model, images, target, "stage3", num_samples=4)
    strengths = (0.25, 0.75, 1.5, 2.5)
    _, maps = scored(model, images, target, "stage3", lambda m, c: [m * s for s in strengths])
    agree(theirs, scaled(maps).float())
    differ(theirs, ours(model, images, target, cam_method("iscam", samples=4), "stage3"))


@pytest.mark.parametrize("net", NETS)
def test_finercam_of_grad_cam(net):
    """Another score: references weighted by probability, strength 1. As a target it is the same."""
    model, images, _ = example(*net)
    theirs = of_grad_cam(grad_cam.FinerCAM, model, images, None, "stage3")

    def score(output):
        scores = []
        for row in output:
            order = (row - row.max()).abs().argsort()[:4].tolist()
            scores.append(FinerWeightedTarget(order[0], order[1:], 1)(row))
        return torch.stack(scores)

    theirs = scaled(theirs, relu=False)
    agree(ours(model, images, score, "gradcam", "stage3", relu=False), theirs)
    differ(ours(model, images, None, "finercam", "stage3", relu=False), theirs)


def test_legrad_of_torchcam():
    """Their default score is that of the mean of all tokens; the network reads its class token."""
    vision = pytest.importorskip("torchvision.models.vision_transformer")
    model = vision.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=7).eval()
    torch.nn.init.normal_(model.heads.head.weight)
    images = torch.randn(2, 3, 32, 32)
    blocks = [f"encoder.layers.encoder_layer_{n}" for n in range(3)]

    def own_head(tokens):
        return model.heads(model.encoder.ln(tokens)[:, 0])

    def theirs(**options):
        return of_torchcam(torchcam.LeGrad, model, images, [1, 5], blocks, **options)

    mine = pyxai.cam(model, images, [1, 5], method="legrad", size=None)
    agree(mine, theirs(score_projection=own_head))
    differ(mine, theirs())


@pytest.mark.parametrize("net", NETS)
def test_pictures_of_image_size(net):
    """The whole way of pytorch-grad-cam: ReLU, min-max, resize. It then scales a second time."""
    model, images, top = example(*net)
    with grad_cam.GradCAM(model, [model.stage3]) as cam:
        theirs = torch.from_numpy(cam(images, [ClassifierOutputTarget(k) for k in top]))
    mine = pyxai.cam(model, images, top, method="gradcam")
    low, high = mine.amin((1, 2), keepdim=True), mine.amax((1, 2), keepdim=True)
    agree((mine - low) / (high - low), theirs)
    small = ours(model, images, top, "gradcam", "stage3")
    expected = functional.interpolate(small[:, None], images.shape[2:], mode="bilinear")[:, 0]
    agree(mine, expected)
