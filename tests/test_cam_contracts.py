"""What every method costs, what it leaves behind, and what it refuses."""

from __future__ import annotations

import copy
import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from networks import SmallNet, random_net
from test_cam_methods import GRADIENT, ON_A_CNN, close, explain, methods_for
from torch import nn

import pyxai
from pyxai.attribution.cam.methods import CamMethod, cam_method


@pytest.fixture(autouse=True)
def _one_thread(threads):
    threads(1)


CHEAP = ["gradcam", "gradcam++", "xgradcam", "hirescam", "gradcam_elementwise", "layercam"]


class Counted(torch.autograd.Function):
    """The identity, counting backward passes."""

    passes = 0

    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        Counted.passes += 1
        return gradient


def test_ten_targets_and_eight_methods_run_the_body_once():
    model, images = random_net("mlp", classes=12), torch.randn(3, 3, 32, 32)
    explain(model, images, 0, "gradcam")  # the first call looks at what the model is made of
    seen = []
    model.stem.register_forward_hook(lambda m, i, o: seen.append((len(o), o.requires_grad)))
    model.stage2.register_forward_hook(lambda m, i, o: seen.append((len(o), o.requires_grad)))
    model.pool.register_forward_pre_hook(lambda m, i: (Counted.apply(i[0]),))
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: seen.append("a gradient of a parameter"))
    Counted.passes = 0
    methods = [*CHEAP, "eigencam", "eigengradcam", "fem"]
    maps = explain(model, images, [list(range(10))], methods, layer="stage3")
    assert len(maps) == 9
    assert maps["layercam"].shape == (3, 10, 4, 4)
    assert seen == [(3, False), (3, False)]
    assert Counted.passes == 10  # one for each target, whatever the number of methods
    Counted.passes = 0
    explain(model, images, 0, CHEAP, layer="stage3")
    assert Counted.passes == 1


def test_a_linear_head_is_not_differentiated():
    model, images = random_net("linear"), torch.randn(3, 3, 32, 32)
    seen = []
    explain(model, images[:1], 0, "cam")  # looks once at what the logits depend on
    model.fc.register_forward_hook(lambda m, i, o: seen.append(o.requires_grad))
    explain(model, images, "all", [*CHEAP, "eigengradcam", "finercam", "shapleycam"])
    assert seen
    assert not any(seen)


def state(model):
    """All that a caller could see of a model and of torch."""
    hooks = [name for name in vars(nn.Module()) if name.endswith("hooks")]
    modules = list(model.modules())
    tensors = [*model.parameters(), *model.buffers()]
    return {
        "training": [module.training for module in modules],
        "attributes": [sorted(vars(module)) for module in modules],
        "hooks": [{name: list(getattr(module, name)) for name in hooks} for module in modules],
        "requires_grad": [tensor.requires_grad for tensor in tensors],
        "values": [tensor.tolist() for tensor in tensors],
        "writes": [tensor._version for tensor in tensors],
        "gradients": [t.grad if t.grad is None else t.grad.tolist() for t in tensors],
        "random": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "function modes": torch._C._len_torch_function_stack(),
    }


class Fails(nn.Module):
    """The identity, but for one of its calls."""

    def __init__(self):
        super().__init__()
        self.left = [0]

    def forward(self, x):
        self.left[0] -= 1
        if self.left[0] == 0:
            raise ArithmeticError("in the middle of a forward pass")
        return x


def mixed_net(head, call=0):
    """A network in mixed modes, with gradients and hooks of its own; its nth call fails."""
    model = random_net(head)
    model.stage2 = nn.Sequential(model.stage2, Fails())
    model.stem.train()
    model.drop.train()
    model.stage1.requires_grad_(False)
    model.fc.register_forward_hook(lambda m, i, o: None)
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    model.stage2[1].left[0] = call
    return model


@pytest.mark.parametrize("name", list(ON_A_CNN))
def test_nothing_is_left_behind(name):
    images, method = torch.randn(2, 3, 32, 32), ON_A_CNN[name]
    head = "linear" if name == "cam" else "mlp"
    model = mixed_net(head)
    before = state(model)
    maps = explain(model, images, [1, 2], method)
    assert state(model) == before
    assert not maps.requires_grad
    with torch.no_grad():
        close(explain(model, images, [1, 2], method), maps)
    with torch.inference_mode():
        close(explain(model, images.clone(), [1, 2], method), maps)
    wanted = images.clone().requires_grad_()
    found = explain(model, wanted, [1, 2], method)
    assert wanted.grad is None
    assert not found.requires_grad
    close(found, maps)
    raised = 0
    for call in range(1, 6):  # while looking at the model, in the body, in later passes
        model = mixed_net(head, call)
        before = state(model)
        try:
            explain(model, images, [1, 2], method)
        except ArithmeticError:
            raised += 1
        after = state(model)
        assert after == before
    assert raised >= 2


def test_eight_threads_at_once():
    model, images = random_net("mlp").train(), torch.randn(2, 3, 32, 32)
    methods = list(methods_for("mlp").values())
    jobs = [(method, target) for target in (0, 5, 3) for method in methods]
    alone = [explain(model, images, target, method, relu=False) for method, target in jobs]
    fresh = copy.deepcopy(model)  # which nothing is known of yet
    before = state(fresh)
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda job: explain(fresh, images, job[1], job[0], relu=False), jobs)
        for one, other in zip(found, alone, strict=True):
            close(one, other, 1e-4)
    assert state(fresh) == before


def live_tensors():
    return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())


def test_many_calls_keep_no_tensors():
    model, images = random_net("mlp"), torch.randn(1, 3, 24, 24)
    names = [*GRADIENT, "eigencam", "ablationcam", "fullgrad"]

    def call(times):
        for n in range(times):
            name = names[n % len(names)]
            explain(model, images, n % 7, name, return_report=True)

    call(2 * len(names))
    gc.collect()
    before = live_tensors()
    gc.disable()  # memory must come back at once, and not when cycles are looked for
    try:
        call(300)
        assert live_tensors() <= before + 2
    finally:
        gc.enable()


# ---- refusals ----


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("scorecam", {"chanels": 3}, r"options: .*'scorecam' \(channels\), got 'chanels'"),
        ("gradcam", {"channels": 3}, r"options: .*'gradcam' \(none\), got 'channels'"),
        ("gradcam+", {}, r"method: expected one of 'auto', .*got 'gradcam\+'; closest: 'gradcam"),
        ("auto", {"seed": 1}, "'auto'"),
    ],
)
def test_methods_and_options_that_do_not_exist(name, options, message):
    with pytest.raises(ValueError, match=message):
        cam_method(name, **options)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        (cam_method("smoothgradcam++", samples=0), {}, "samples: expected an int of at least 1"),
        (cam_method("sscam", samples=0), {}, "samples: expected an int of at least 1, got 0"),
        (cam_method("iscam", samples=1.5), {}, "samples: expected an int of at least 1, got 1.5"),
        (cam_method("scorecam", channels=0), {}, "channels: expected None or an int of at least 1"),
        (cam_method("finercam", references=0), {}, "references: expected an int of at least 1"),
        (cam_method("finercam", base="eigencam"), {}, "base: expected a gradient method"),
        (cam_method("finercam", base="finercam"), {}, "base: expected a gradient method"),
        (cam_method("refinecam", base="fullgrad"), {"layer": ["stage2", "stage3"]}, "base: "),
        ("refinecam", {}, r"layer: expected at least two layers .*got 1"),
        ("refinecam", {"layer": ["stage3", "stage3"]}, r"layer: expected at least two .*got 1"),
        ("legrad", {}, "method: expected a transformer .*'legrad', got 0 attentions in 0 blocks"),
        ("gradcam", {"normalize": "softmax"}, "normalize: .*got 'softmax'"),
        (["cam", "gradcam"], {"normalize": "softmax"}, "normalize: .*got 'softmax'"),
        (["gradcam", "fem"], {"out": torch.zeros(2, 32, 32)}, "out: expected None for lists"),
        ("gradcam", {"layer": ["stage3"], "out": torch.zeros(2, 32, 32)}, "out: expected None"),
        ("gradcam", {"batch_size": 0}, "batch_size: expected None or an int of at least 1, got 0"),
        ("gradcam", {"batch_size": 2.0}, "batch_size: expected None or an int of at least 1"),
        ([], {}, "method: expected a method or a list of at least one"),
        (7, {}, "method: expected a method or a list of at least one, got 7"),
        ("gradcam", {"layer": []}, "layer: expected the name of a layer, or a list"),
        (["gradcam", "gradcan"], {}, "method: expected one of .*got 'gradcan'"),
    ],
)
def test_refused(method, arguments, message):
    model, images = random_net("linear"), torch.randn(2, 3, 32, 32)
    if isinstance(method, CamMethod) and method.name == "smoothgradcam++":
        arguments = {"layer": "stage2"}
    with pytest.raises(ValueError, match=message):
        pyxai.cam(model, images, 3, method=method, **arguments)


def test_scores_without_gradients_are_refused():
    """Rounding has none; what is detached or under no_grad has those of what it computes."""

    class Rounded(SmallNet):
        def forward(self, x):
            return (super().forward(x) * 64).to(torch.int32).to(torch.float32)

    class Cut(SmallNet):
        def forward(self, x):
            return super().forward(x).detach()

    images = torch.randn(1, 3, 32, 32)
    with pytest.raises(ValueError, match=r"model: expected scores .*differentiable"):
        pyxai.cam(Rounded(), images, 1, method="fullgrad")
    for name in ("gradcam", "shapleycam", "finercam"):
        with pytest.raises(ValueError, match="layer: expected one that the scores depend on"):
            pyxai.cam(Rounded(head="mlp"), images, 1, method=name)
    model = Cut(head="mlp").eval()
    plain = SmallNet(head="mlp").eval()
    plain.load_state_dict(model.state_dict())
    for name in ("gradcam", "fullgrad"):
        assert torch.equal(
            pyxai.cam(model, images, 1, method=name, relu=False),
            pyxai.cam(plain, images, 1, method=name, relu=False),
        )
