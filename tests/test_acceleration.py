"""`pyxai.accelerate`: the same function, whatever the network; and the model is left alone."""

from __future__ import annotations

import copy
import operator
import pickle
import threading
from types import SimpleNamespace

import pytest
import torch
from in_threads import in_threads
from networks import SmallNet
from torch import nn
from torch.nn import functional

import pyxai
from pyxai.classifier import Classifier
from pyxai.engines.torch import accelerate
from pyxai.engines.torch.convolution import FastConv2d
from pyxai.engines.torch.tracing import TraceError, trace

PROBE = torch.linspace(-2, 2, 2 * 3 * 32 * 32).sin().reshape(2, 3, 32, 32)  # draws nothing


def seasoned(model):
    """The model with batch norms that do something, in evaluation mode."""
    for module in model.modules():
        if not isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            continue
        if module.track_running_stats:
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
        if module.affine:
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return model.eval()


def norms(model):
    return [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]


def all_outputs(model, images):
    """The output of each module, by name; only the last one of modules that run several times."""
    found, handles = {}, []
    for name, module in model.named_modules():

        def keep(module, arguments, output, name=name):
            found[name] = output.detach().clone()

        handles.append(module.register_forward_hook(keep))
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return found


def assert_same(model, fast, images=PROBE, atol=1e-5):
    with torch.no_grad():
        expected, found = model(images), fast(images)
    assert expected.dtype == found.dtype
    assert torch.allclose(expected, found, atol=atol * float(expected.abs().max()), rtol=0)


# ---- networks of each kind ----


class Net(nn.Module):
    """Layers and a function of them; the output is pooled to logits `[N, 8]`."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.forward_of = forward

    def forward(self, x):
        return self.forward_of(self, x).mean((2, 3))


def conv(inputs=3, outputs=8, size=3, padding=1, **arguments):
    return nn.Conv2d(inputs, outputs, size, padding=padding, **arguments)


def norm(channels=8):
    return nn.BatchNorm2d(channels)


def add_in_place(a, b):
    a += b
    return a


def shared_relu(net, x):
    y = net.relu(net.bn1(net.conv1(x)))
    return net.relu(net.conv2(y) + y)


def chained(last):
    return lambda net, x: last(net.bn(net.conv(x)))


def sum_of(combine):
    def forward(net, x):
        y = net.bn(net.conv(net.first(x)))
        return functional.relu(combine(y, net.other(x)))

    return forward


BLOCK = {
    "conv1": conv(),
    "bn1": norm(),
    "conv2": conv(8, 8),
    "relu": nn.ReLU(inplace=True),
}
PAIR = {"conv": conv(bias=False), "bn": norm()}
TWO = {"first": conv(), "conv": conv(8, 8, bias=False), "bn": norm(), "other": conv()}
# name: (function, layers, how many norms are left)
PATTERNS = {
    "relu module": (lambda n, x: n.relu(n.bn(n.conv(x))), {**PAIR, "relu": nn.ReLU()}, 0),
    "shared in-place relu": (shared_relu, BLOCK, 0),
    "functional relu": (chained(functional.relu), PAIR, 0),
    "functional in-place": (chained(lambda y: functional.relu(y, inplace=True)), PAIR, 0),
    "method relu_": (chained(lambda y: y.relu_()), PAIR, 0),
    "add": (sum_of(operator.add), TWO, 0),
    "iadd": (sum_of(add_in_place), TWO, 0),
    "add_": (sum_of(lambda a, b: a.add_(b)), TWO, 0),
    "add, through dropout": (
        lambda n, x: torch.relu(n.drop(n.bn(n.conv(n.first(x)))) + n.other(x)),
        {**TWO, "drop": nn.Dropout2d()},
        0,
    ),
    "groups": (
        chained(functional.relu),
        {"conv": conv(3, 9, groups=3), "bn": norm(9)},
        0,
    ),
    "dilation, stride": (
        chained(functional.relu),
        {"conv": conv(dilation=2, stride=2), "bn": norm()},
        0,
    ),
    "rectangular": (
        chained(functional.relu),
        {"conv": conv(size=(1, 5), padding=(0, 2)), "bn": norm()},
        0,
    ),
    "padding in words": (
        chained(functional.relu),
        {"conv": conv(padding="same"), "bn": norm()},
        0,
    ),
    "reflected padding": (
        chained(functional.relu),
        {"conv": conv(padding_mode="reflect"), "bn": norm()},
        0,
    ),
    "norm without weights": (
        chained(functional.relu),
        {"conv": conv(), "bn": nn.BatchNorm2d(8, affine=False)},
        0,
    ),
    "norm of the batch": (
        chained(functional.relu),
        {"conv": conv(), "bn": nn.BatchNorm2d(8, track_running_stats=False)},
        1,
    ),
    "norm after something else": (
        lambda n, x: n.bn(functional.relu(n.conv(x))),
        PAIR,
        1,
    ),
    "norm before": (lambda n, x: n.conv(n.bn(x)), {"bn": norm(3), "conv": conv()}, 1),
    "output used twice": (
        lambda n, x: n.bn(y := n.conv(x)) + y,
        PAIR,
        1,
    ),
    "convolution used twice": (
        lambda n, x: n.bn(n.conv(x)) - n.conv(x * 2),
        PAIR,
        1,
    ),
    "norm used twice": (
        lambda n, x: n.bn(n.conv(x)) - n.bn(n.other(x)),
        {**PAIR, "other": conv()},
        1,
    ),
    "sequential": (
        lambda n, x: n.all(x),
        {"all": nn.Sequential(conv(), norm(), nn.ReLU(True), conv(8, 8), norm())},
        0,
    ),
    "block used twice": (
        lambda n, x: n.all(n.all(n.first(x))),
        {"first": conv(), "all": nn.Sequential(conv(8, 8), norm(), nn.ReLU(True))},
        0,
    ),
    "list": (
        lambda n, x: torch.relu(n.all[1](n.all[0](x))),
        {"all": nn.ModuleList([conv(), norm()])},
        0,
    ),
    "decided by data": (
        lambda n, x: functional.relu(n.bn(n.conv(x))) if x.sum() > -1e9 else x,
        PAIR,
        1,
    ),
    "decided by type": (
        lambda n, x: n.bn(n.conv(x)).abs() if isinstance(x, torch.Tensor) else n.conv(x).relu(),
        PAIR,
        1,
    ),
    "transposed": (
        chained(functional.relu),
        {"conv": nn.ConvTranspose2d(3, 8, 2, 2), "bn": norm()},
        0,
    ),
    "another convolution": (
        lambda n, x: n.bn(n.conv(x)),
        {"conv": type("Standardized", (nn.Conv2d,), {})(3, 8, 3), "bn": norm()},
        1,
    ),
}


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("name", PATTERNS)
def test_pattern(name, channels_last):
    forward, layers, left = PATTERNS[name]
    model = seasoned(Net(forward, **copy.deepcopy(layers)))
    fast = accelerate(model, probe=PROBE, channels_last=channels_last)
    assert_same(model, fast)
    assert_same(model, fast, torch.randn(1, 3, 20, 48))
    assert_same(model, fast, torch.randn(5, 3, 16, 16).permute(0, 1, 3, 2))
    if name == "decided by type":
        return  # either the trace is found out, or the norm has been folded and the check passes
    assert len(norms(fast)) == left


def test_linear_and_norm_are_folded():
    layers = [nn.Flatten(), nn.Linear(48, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)]
    model = seasoned(nn.Sequential(*layers))
    fast = accelerate(model, probe=torch.randn(3, 3, 4, 4))
    assert_same(model, fast, torch.randn(4, 3, 4, 4))
    assert type(fast[2]) is nn.Identity


class Normed(nn.BatchNorm2d):
    """As timm's BatchNormAct2d."""

    def __init__(self, channels, act):
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), act

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


Normed.__name__ = "BatchNormAct2d"


@pytest.mark.parametrize("act", [nn.ReLU(), nn.GELU(), nn.Identity()])
def test_norm_with_activation(act):
    model = seasoned(Net(lambda n, x: n.bn(n.conv(x)), conv=conv(), bn=Normed(8, act)))
    fast = accelerate(model, probe=PROBE)
    assert_same(model, fast)
    assert not norms(fast)
    names = [name for name, _ in model.named_modules()]
    assert [name for name, _ in fast.named_modules()] == names
    expected, found = all_outputs(model, PROBE), all_outputs(fast, PROBE)
    assert torch.allclose(expected["bn.act"], found["bn.act"], atol=1e-5)


# ---- layers ----


@pytest.mark.parametrize("head", ["linear", "mlp", "norm"])
def test_layers_give_what_they_gave(head):
    """Each hook sees the same, but for convolutions into which a norm was folded."""
    model = seasoned(SmallNet(head=head))
    fast = accelerate(model, probe=PROBE)
    expected, found = all_outputs(model, PROBE), all_outputs(fast, PROBE)
    assert list(expected) == list(found)
    folded = {"stem.0": "stem.1"}
    for stage in ("stage1", "stage2", "stage3"):
        folded |= {f"{stage}.conv1": f"{stage}.bn1", f"{stage}.conv2": f"{stage}.bn2"}
    for name, output in found.items():
        assert torch.allclose(expected[folded.get(name, name)], output, atol=1e-5), name
    assert not norms(fast)


def test_packed_weights_are_used():
    """Else the tests above would compare the plain way with itself."""
    fast = accelerate(seasoned(SmallNet()), probe=PROBE)
    with torch.no_grad():
        fast(PROBE)
    packed = [m._packed is not None for m in fast.modules() if isinstance(m, FastConv2d)]
    assert packed == [True] * 10


@pytest.mark.parametrize("layer", [None, "stage2", "stage1.bn2", "stage3.relu", "stem", "stem.2"])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_maps_are_the_same(head, layer):
    """Gradients included: for a layer in the middle they go through the convolutions behind it."""
    model = seasoned(SmallNet(head=head))
    fast = accelerate(Classifier(model), probe=PROBE)
    assert fast.last_spatial_layer(PROBE) == "stage3"
    arguments = {"layer": layer, "return_logits": True}
    expected, logits = pyxai.cam(model, PROBE, [[0, 3]], **arguments)
    found, fast_logits = pyxai.cam(fast, PROBE, [[0, 3]], **arguments)
    assert torch.allclose(expected, found, atol=1e-4)
    assert torch.allclose(logits, fast_logits, atol=1e-5)


def test_gradients_reach_the_input():
    model = seasoned(SmallNet())
    fast = accelerate(model, probe=PROBE)
    inputs = [PROBE.clone().requires_grad_() for _ in range(2)]
    for network, images in zip((model, fast), inputs, strict=True):
        network(images)[:, 2].sum().backward()
    assert torch.allclose(inputs[0].grad, inputs[1].grad, atol=1e-5)
    assert all(parameter.grad is None for parameter in fast.parameters())


def test_weights_that_change_are_used():
    model = seasoned(SmallNet())
    fast = accelerate(model, probe=PROBE)
    other = accelerate(seasoned(SmallNet()), probe=PROBE)
    with torch.no_grad():
        assert not torch.allclose(fast(PROBE), other(PROBE))
        fast.load_state_dict(other.state_dict())
        assert torch.allclose(fast(PROBE), other(PROBE))
        fast.double()
        assert torch.allclose(fast(PROBE.double()).float(), other(PROBE), atol=1e-5)
        fast.float()
        fast.stem[0].weight = nn.Parameter(torch.zeros_like(fast.stem[0].weight))
        assert not torch.allclose(fast(PROBE), other(PROBE))


# ---- the model given, and the copy ----


def test_model_is_as_before():
    model = SmallNet(head="mlp")
    model.train()
    model.stage2.eval()
    model.stem.requires_grad_(False)
    model.fc[0].weight.grad = torch.ones_like(model.fc[0].weight)
    seen = []
    model.stage3.register_forward_hook(lambda *_: seen.append("forward"))
    values = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    needs = [parameter.requires_grad for parameter in model.parameters()]
    kinds = [type(module) for module in model.modules()]
    random = torch.get_rng_state()
    fast = accelerate(model, probe=PROBE)
    assert torch.equal(random, torch.get_rng_state())
    assert seen == ["forward"]  # the model itself ran once, to be compared with
    fast(PROBE)
    assert seen == ["forward"]  # the copy does not call those who watch
    assert len(model.stage3._forward_hooks) == 1
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == needs
    assert [type(module) for module in model.modules()] == kinds
    assert torch.equal(model.fc[0].weight.grad, torch.ones_like(model.fc[0].weight))
    assert all(torch.equal(values[name], value) for name, value in model.state_dict().items())
    ours = {parameter.data_ptr() for parameter in fast.parameters()}
    assert ours.isdisjoint(parameter.data_ptr() for parameter in model.parameters())
    assert not any(module.training for module in fast.modules())
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    assert_same(model.eval(), fast)


def test_kinds():
    model = seasoned(SmallNet())
    names = [f"class {index}" for index in range(7)]
    preprocessing = pyxai.Preprocessing(resize=40, crop=32)
    classifier = Classifier(model, class_names=names, preprocessing=preprocessing, name="mine")
    fast = accelerate(classifier)
    assert isinstance(fast, Classifier)
    assert (fast.name, fast.class_names) == ("mine", tuple(names))
    assert fast.preprocessing is preprocessing
    assert torch.allclose(fast(PROBE), classifier(PROBE), atol=1e-5)
    for wrapped in (nn.DataParallel(model), torch.compile(model, backend="eager")):
        assert type(accelerate(wrapped, probe=PROBE)).__name__ == "SmallNet"
    assert isinstance(accelerate(model, probe=PROBE), SmallNet)
    again = accelerate(accelerate(model, probe=PROBE), probe=PROBE)
    assert not norms(again)
    assert_same(model, again)


def test_copies_and_pickles():
    model = seasoned(SmallNet(wrap=nn.Identity()))
    fast = accelerate(model, probe=PROBE)
    assert_same(model, fast)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert not norms(other)
        assert_same(model, other)
        assert other.stage1.conv1.weight.data_ptr() != fast.stage1.conv1.weight.data_ptr()
        assert type(other.stage1) is type(model.stage1)
    with torch.no_grad():
        other.stage1.conv1.weight.zero_()  # a copy computes with weights of its own
        assert not torch.allclose(other(PROBE), fast(PROBE))


def test_eight_threads_from_the_first_call():
    model = seasoned(SmallNet(wrap=nn.Identity()))
    fast = pickle.loads(pickle.dumps(accelerate(model, probe=PROBE)))
    inputs = [torch.randn(2, 3, 24 + 8 * (n % 3), 32) for n in range(8)]
    with torch.no_grad():
        expected = [model(each) for each in inputs]
    wrong, start = [], threading.Barrier(8)

    def work(n):
        start.wait()
        for round in range(20):
            if round % 2:
                found = pyxai.cam(fast, inputs[n], return_logits=True)[1]
            else:
                with torch.no_grad():
                    found = fast(inputs[n])
            if not torch.allclose(found, expected[n], atol=1e-5):
                wrong.append(n)

    in_threads(work, 8)
    assert not wrong


def test_other_threads_run_while_a_model_is_traced():
    """`torch.fx` would replace the call of every module in the process."""
    model, stop, errors = seasoned(SmallNet()), threading.Event(), []

    def work():
        while not stop.is_set():
            try:
                model(PROBE)
            except Exception as error:
                errors.append(error)
                return

    worker = threading.Thread(target=work)
    worker.start()
    for _ in range(5):
        accelerate(model, probe=PROBE)
    stop.set()
    worker.join()
    assert not errors


# ---- dtypes, layouts ----


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels_last", [True, False])
def test_half_precision_takes_and_gives_float32(dtype, channels_last):
    model = seasoned(SmallNet())
    fast = accelerate(model, dtype=dtype, probe=PROBE, channels_last=channels_last)
    assert {parameter.dtype for parameter in fast.parameters()} == {dtype}
    assert_same(model, fast, atol=5e-2)
    assert_same(model, copy.deepcopy(fast), atol=5e-2)
    maps = pyxai.cam(fast, PROBE, 2, size=None, normalize=None)
    expected = pyxai.cam(model, PROBE, 2, size=None, normalize=None)
    assert maps.dtype == torch.float32
    assert torch.allclose(maps, expected, atol=5e-2 * float(expected.abs().max()))
    assert accelerate(Classifier(model), dtype=dtype, probe=PROBE).dtype == dtype


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: (logits, logits.argmax(1)),
        lambda logits: {"logits": logits, "loss": None},
        lambda logits: SimpleNamespace(logits=logits),
    ],
)
def test_half_precision_outputs_in_containers(wrap):
    model = seasoned(SmallNet(wrap=wrap))
    fast = accelerate(model, dtype=torch.bfloat16, probe=PROBE)
    assert type(fast(PROBE)) is type(model(PROBE))
    expected, found = Classifier(model)(PROBE), Classifier(fast)(PROBE)
    assert found.dtype == torch.float32
    assert torch.allclose(expected, found, atol=5e-2 * float(expected.abs().max()))


def test_a_model_of_half_precision_stays_one():
    model = seasoned(SmallNet()).bfloat16()
    fast = accelerate(model, probe=PROBE)
    assert_same(model, fast, PROBE.bfloat16(), atol=5e-2)
    raised = accelerate(model, dtype=torch.float32, probe=PROBE, tolerance=0.1)
    assert raised(PROBE).dtype == torch.float32


def test_layouts():
    fast = accelerate(SmallNet(), probe=PROBE)
    assert fast.stage1.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    plain = accelerate(SmallNet(), probe=PROBE, channels_last=False)
    assert plain.stage1.conv1.weight.is_contiguous()


@pytest.mark.parametrize(
    "images", [torch.zeros(0, 3, 32, 32), PROBE[:, :, ::2, ::2], PROBE.to_sparse().to_dense()]
)
def test_unusual_inputs(images):
    model = seasoned(SmallNet())
    fast = accelerate(model, probe=PROBE)
    with torch.no_grad():
        assert torch.allclose(fast(images), model(images), atol=1e-5)


# ---- what torch does with modules ----


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_autocast_inference_mode_and_function_transforms():
    model = seasoned(SmallNet())
    fast = accelerate(model, probe=PROBE)
    with torch.inference_mode():
        expected = model(PROBE)
        assert torch.allclose(fast(PROBE), expected, atol=1e-5)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(fast(PROBE), model(PROBE), atol=0.1)
    each = torch.func.vmap(lambda image: fast(image[None])[0])(PROBE)
    assert torch.allclose(each, expected, atol=1e-5)
    with torch.no_grad():
        for direction in (torch.ones_like(PROBE),):
            _, slope = torch.func.jvp(model, (PROBE,), (direction,))
            _, fast_slope = torch.func.jvp(fast, (PROBE,), (direction,))
    assert torch.allclose(slope, fast_slope, atol=1e-4)


def test_inside_inference_mode():
    model = seasoned(SmallNet(head="mlp"))
    with torch.inference_mode():
        fast = accelerate(model, probe=PROBE)
    assert_same(model, fast)
    expected = pyxai.cam(model, PROBE)
    assert torch.allclose(pyxai.cam(fast, PROBE), expected, atol=1e-4)


def test_export_and_dynamo_see_plain_operators():
    model = seasoned(SmallNet())
    fast = accelerate(model, probe=PROBE)
    with torch.no_grad():
        program = torch.export.export(fast, (PROBE,))
        assert torch.allclose(program.module()(PROBE), model(PROBE), atol=1e-5)
        compiled = torch.compile(fast, backend="eager", fullgraph=True)
        assert torch.allclose(compiled(PROBE), model(PROBE), atol=1e-5)
    assert "mkldnn" not in str(program.graph)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_compile_is_taken_off_by_cam():
    model = seasoned(SmallNet())
    fast = accelerate(Classifier(model), probe=PROBE, compile=True)
    assert type(fast.model).__name__ == "OptimizedModule"
    assert torch.allclose(pyxai.cam(fast, PROBE), pyxai.cam(model, PROBE), atol=1e-4)


# ---- refusals ----


def test_too_far_from_the_model_is_refused():
    with pytest.raises(ValueError, match=r"tolerance: expected outputs within 1e-09 .* got .*gap"):
        accelerate(seasoned(SmallNet()), dtype=torch.bfloat16, probe=PROBE, tolerance=1e-9)


def test_hooks_that_change_the_output_are_kept():
    """Hooks that look on are not copied; those without which it is another function are."""
    model = seasoned(SmallNet())
    model.register_forward_hook(lambda module, inputs, output: output * 2)
    fast = accelerate(model, probe=PROBE)
    assert torch.allclose(fast(PROBE), model(PROBE), atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": torch.int8}, r"dtype: expected torch\.float32, .*got torch\.int8"),
        ({"dtype": "bfloat16"}, r"dtype: expected .*got 'bfloat16'"),
        ({"dtype": torch.float64}, "dtype: expected"),
        ({"tolerance": -1}, "tolerance: expected a number of at least 0, got -1"),
        ({"probe": torch.ones(3, 32, 32)}, r"probe: expected .*\[N, C, H, W\].*\[3, 32, 32\]"),
        ({"probe": torch.ones(1, 3, 32, 32).int()}, "probe: expected a float tensor"),
        ({"probe": torch.ones(0, 3, 32, 32)}, "probe: .*not empty"),
        ({"probe": torch.ones(1, 5, 32, 32)}, r"probe: expected images that the model runs on"),
        ({"probe": torch.full((1, 3, 32, 32), torch.nan)}, "probe: expected .*finite"),
    ],
    ids=str,
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        accelerate(SmallNet(), **arguments)


@pytest.mark.parametrize("wrong", [None, "demo", SmallNet])
def test_what_is_no_model(wrong):
    with pytest.raises(ValueError, match=r"model: expected a torch\.nn\.Module or pyxai"):
        accelerate(wrong)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_is_refused():
    script = torch.jit.trace(nn.Conv2d(3, 4, 3).eval(), PROBE)
    for model in (script, nn.Sequential(script, nn.Flatten())):
        with pytest.raises(ValueError, match=r"model: expected .*TorchScript"):
            accelerate(model, probe=PROBE)


def test_a_model_that_cannot_be_copied():
    model = SmallNet()
    model.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"model: expected a module that copy\.deepcopy can copy"):
        accelerate(model, probe=PROBE)


def test_forwards_that_are_left_as_they_are():
    class Remembers(SmallNet):
        def forward(self, x):
            self.stem_features = self.stem[1](self.stem[0](x))
            return super().forward(x)

    class Many(SmallNet):
        def forward(self, *images, **more):
            return super().forward(images[0])

    for model in (Remembers(), Many()):
        with pytest.raises(TraceError):
            trace(model)
        fast = accelerate(seasoned(model), probe=PROBE)
        assert_same(model, fast)
        # In the first, half of the stem runs twice.
        assert norms(fast) == (["stem.1"] if isinstance(model, Remembers) else [])


def test_optional_arguments_keep_their_meaning():
    class Optional(Net):
        def forward(self, x, scale=None):
            y = functional.relu(self.bn(self.conv(x)))
            return (y if scale is None else y * scale).mean((2, 3))

    model = seasoned(Optional(None, **copy.deepcopy(PAIR)))
    fast = accelerate(model, probe=PROBE)
    assert not norms(fast)
    with torch.no_grad():
        assert torch.allclose(fast(PROBE, scale=3.0), model(PROBE, scale=3.0), atol=1e-4)
        assert torch.allclose(fast(PROBE, 3.0), model(PROBE, 3.0), atol=1e-4)
        assert torch.allclose(fast(PROBE), model(PROBE), atol=1e-5)
