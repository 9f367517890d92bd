"""`pyxai.accelerate` of networks written in each of the ways that people write them."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from pyxai.engines.torch import accelerate
from pyxai.engines.torch.casting import tensors_in
from pyxai.engines.torch.tracing import TraceError, trace

PROBE = torch.linspace(-2, 2, 2 * 3 * 16 * 16).sin().reshape(2, 3, 16, 16)
OTHER = torch.linspace(-3, 2, 3 * 3 * 12 * 20).cos().reshape(3, 3, 12, 20)


class Net(nn.Module):
    """Two convolutions, three norms, and whatever else is tried with them."""

    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.b = nn.BatchNorm2d(8)
        self.c2 = nn.Conv2d(8, 8, 3, padding=1)
        self.b2 = nn.BatchNorm2d(8)
        self.spare = nn.BatchNorm2d(8)
        self.seq = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(2))
        self.named = nn.ModuleDict({"one": nn.Conv2d(8, 8, 1), "two": nn.BatchNorm2d(8)})
        self.register_buffer("m", torch.zeros(8))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("late", None)
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, 8).reshape(1, 8, 1, 1))
        self.loose = torch.linspace(1, 2, 8).reshape(1, 8, 1, 1)
        self.last = None
        self.calls = 0
        self.kept = []
        self.cache = {"a": [1]}
        self.store = SimpleNamespace(x=None, all=[])
        self.unregistered = [self.b]
        self.set_up()

    def set_up(self):
        """For those that need more."""

    def features(self, x):
        return self.b(self.c(x))

    def forward(self, x):
        return self.head(self.features(x))

    def head(self, y):
        return functional.relu(y).mean((2, 3))


def keep_attribute(s, x):
    s.last = x
    return s.b(s.c(x))


def keep_new_attribute(s, x):
    y = s.b(s.c(x))
    s.brand_new = y
    return y


def assign_buffer(s, x):
    y = s.b(s.c(x))
    s.m = x.detach().mean((0, 2, 3))
    return y


def assign_empty_buffer(s, x):
    s.late = x.mean()
    return s.b(s.c(x)) + 1


def running_mean_of_features(s, x):
    y = s.b(s.c(x))
    s.m = 0.9 * s.m + 0.1 * y.detach().mean((0, 2, 3))
    return y - s.m.view(1, -1, 1, 1)


def change_buffer_in_place(s, x):
    y = s.b(s.c(x))
    s.m.mul_(0.9).add_(y.detach().mean((0, 2, 3)))
    return y + s.m.view(1, -1, 1, 1)


def copy_into_buffer(s, x):
    y = s.b(s.c(x))
    s.m.copy_(y.detach().mean((0, 2, 3)))
    s.m[0] = 3
    return y + s.m.view(1, -1, 1, 1)


def count_in_buffer(s, x):
    s.seen += 1
    return s.b(s.c(x)) + s.seen


def count_in_attribute(s, x):
    s.calls += 1
    return s.b(s.c(x)) * s.calls


def keep_in_containers(s, x):
    y = s.b(s.c(x))
    s.kept.append(y)
    s.cache["a"].append(y)
    s.cache["y"] = y
    s.store.x = y
    s.store.all.append(y)
    return y


def keep_in_child(s, x):
    y = s.b(s.c(x))
    s.b.seen = y
    s.seq[0].out = y
    return y


def change_running_mean(s, x):
    s.b.running_mean.add_(1)
    return s.b(s.c(x))


def change_weight_in_place(s, x):
    s.c.weight.data.mul_(1.0)
    return s.b(s.c(x))


def by_type(s, x):
    y = s.c(x)
    return s.b(y) if isinstance(s.b, nn.BatchNorm2d) else y * 3


def by_exact_type(s, x):
    return s.b(s.c(x)) * (2 if type(s.c) is nn.Conv2d and type(s.b) is nn.BatchNorm2d else 3)


def by_bias(s, x):
    y = s.b(s.c(x))
    return y if s.c.bias is None else y * 2


def norm_twice(s, x):
    return s.b(s.c2(s.b(s.c(x)))) + s.b2(s.c2(s.c(x)))


def other_way(s, x):
    y = s.b(s.c(x))
    return y * 2 if x.mean() > 1e9 else y


def loops(s, x):
    y = s.b(s.c(x))
    for block in s.blocks:
        y = functional.relu(block(y))
    for name, layer in s.named.items():
        y = layer(y) if name else y
    return y + len(s.blocks) + len(s.seq) + ("one" in s.named)


def by_children(s, x):
    y = s.b(s.c(x))
    for child in s.seq.children():
        y = child(y)
    for name, child in s.named_children():
        if name == "named":
            y = child["two"](child["one"](y))
    return y


def by_name(s, x):
    return s.get_submodule("b")(getattr(s, "c")(x)) + s._modules["b2"](s.c2(s.c(x)))  # noqa: B009


def tries(s, x):
    try:
        y = s.c2(x)
    except RuntimeError:
        y = s.c(x)
    return s.b(y)


def casts(s, x):
    y = s.b(s.c(x.to(s.c.weight.dtype).to(next(s.parameters()).device)))
    return y.float().type_as(x)


def shapes(s, x):
    n, _, h, w = x.shape
    y = s.b(s.c(x)).reshape(n, s.c.weight.shape[0], h * w).view(n, s.b.num_features, h, w)
    return y + s.b.eps * s.c.in_channels + s.c.stride[0] + torch.arange(w, device=x.device)


def in_half_way(s, x):
    return s.b(s.c(x)) * (s.weight * 2) + s.loose + torch.tensor(2.0)


def without_gradient(s, x):
    with torch.no_grad():
        y = functional.relu(s.c(x))
    return s.b(y) + s.b2(s.c2(s.c(x)))


def checkpointed(s, x):
    y = s.b(s.c(x))
    return torch.utils.checkpoint.checkpoint(s.seq, y, use_reentrant=False)


def by_input(s, x):
    y = s.c(x) * 2 if isinstance(x, torch.Tensor) else s.c(x)
    return s.b(y)


def without_autocast(s, x):
    with torch.autocast("cpu", enabled=False):
        return functional.relu(s.c(x.float())) + s.b2(s.c2(s.c(x)))


def dropped(s, x):
    y = functional.dropout(s.b(s.c(x)), 0.5, training=s.training)
    return functional.dropout2d(y, training=s.training)


HABITS = {
    "keeps an attribute": keep_attribute,
    "keeps a new attribute": keep_new_attribute,
    "assigns a buffer": assign_buffer,
    "assigns an empty buffer": assign_empty_buffer,
    "running mean": running_mean_of_features,
    "changes a buffer": change_buffer_in_place,
    "copies into a buffer": copy_into_buffer,
    "counts in a buffer": count_in_buffer,
    "counts in an attribute": count_in_attribute,
    "keeps in containers": keep_in_containers,
    "keeps in a child": keep_in_child,
    "changes a running mean": change_running_mean,
    "changes a weight": change_weight_in_place,
    "norm's weight": lambda s, x: s.b(s.c(x)) * s.b.weight.view(1, -1, 1, 1),
    "norm's bias as data": lambda s, x: s.b(s.c(x)) + s.b.bias.data.view(1, -1, 1, 1),
    "norm's running mean": lambda s, x: s.b(s.c(x)) - s.b.running_mean.view(1, -1, 1, 1),
    "norm's shapes": lambda s, x: s.b(s.c(x)) + s.b.eps + s.b.num_features + s.b.weight.shape[0],
    "norm by function": lambda s, x: functional.batch_norm(
        s.b(s.c(x)), s.b.running_mean, s.b.running_var, s.b.weight, s.b.bias
    ),
    "convolution's weight": lambda s, x: s.b(s.c(x)) + functional.conv2d(x, s.c.weight, padding=1),
    "convolution's weight as data": lambda s, x: s.b(s.c(x)) * s.c.weight.data.sum(),
    "convolution's weight to numbers": lambda s, x: s.b(s.c(x)) * float(s.c.weight.detach().sum()),
    "weight by numpy": lambda s, x: s.b(s.c(x)) * float(s.c.weight.detach().numpy().sum()),
    "all weights": lambda s, x: s.b(s.c(x)) * sum(p.detach().norm() for p in s.parameters()),
    "all sizes": lambda s, x: s.b(s.c(x)) * sum(p.numel() for p in s.parameters()),
    "state": lambda s, x: s.b(s.c(x)) + s.state_dict()["b.weight"].sum() + len(s.state_dict()),
    "by forward": lambda s, x: s.b.forward(s.c.forward(x)),
    "half by forward": lambda s, x: s.b.forward(s.c(x)) + s.b2(s.c2.forward(s.c(x))),
    "by type": by_type,
    "by exact type": by_exact_type,
    "by bias": by_bias,
    "norm twice": norm_twice,
    "norm of an unregistered list": lambda s, x: s.unregistered[0](s.c(x)),
    "the other way": other_way,
    "loops": loops,
    "children": by_children,
    "by name": by_name,
    "tries": tries,
    "casts": casts,
    "shapes": shapes,
    "constants": in_half_way,
    "without gradient": without_gradient,
    "checkpoint": checkpointed,
    "by the type of input": by_input,
    "without autocast": without_autocast,
    "dropout": dropped,
    "slices": lambda s, x: s.seq[1:](s.seq[:1](s.b(s.c(x)))),
    "no gradient": lambda s, x: torch.no_grad()(s.b)(s.c(x)).detach() + x.mean(1, keepdim=True),
}


def seasoned(model):
    """With norms that do something, the same each time."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.is_floating_point() and isinstance(module, (nn.BatchNorm2d, nn.Conv2d)):
                tensor.data.uniform_(0.3, 1.3, generator=generator)
    return model.eval()


def made(features, head=None, set_up=None):
    own = {"features": features, "head": head, "set_up": set_up, "__module__": __name__}
    return seasoned(type("Habit", (Net,), {k: v for k, v in own.items() if v is not None})())


def state_of(model):
    held = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain = {n: repr(v) for n, v in vars(model).items() if n in ("last", "calls", "cache", "store")}
    return held, plain, sorted(vars(model)), len(model.kept)


def assert_alike(expected, found):
    expected, found = tensors_in(expected), tensors_in(found)
    assert len(expected) == len(found) > 0
    for one, other in zip(expected, found, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        gap = (one - other).detach().abs().max()
        assert gap <= 1e-4 * one.detach().abs().max()


def assert_same_function(model, fast, images):
    """Outputs and gradients; of copies, as some remember what they have seen."""
    results = []
    for net in (copy.deepcopy(model), copy.deepcopy(fast)):
        with torch.no_grad():
            first = net(images)
        wanted = images.clone().requires_grad_()
        second = net(wanted)
        gradient = torch.zeros(1)
        if tensors_in(second)[0].requires_grad:
            tensors_in(second)[0].square().sum().backward()
            gradient = wanted.grad
        results.append((first, second, gradient))
    for expected, found in zip(*results, strict=True):
        assert_alike(expected, found)


@pytest.mark.parametrize("habit", HABITS)
def test_the_same_function(habit):
    model = made(HABITS[habit])
    before = state_of(model)
    fast = accelerate(model, probe=PROBE)
    held, *others = state_of(model)
    assert others == [*before[1:]]
    assert all(torch.equal(tensor, before[0][name]) for name, tensor in held.items())
    assert fast.calls == 0
    assert not fast.kept
    for images in (PROBE, OTHER):
        assert_same_function(model, fast, images)


FOLDED = (
    "keeps an attribute",
    "loops",
    "shapes",
    "casts",
    "dropout",
    "norm's shapes",
    "no gradient",
)


@pytest.mark.parametrize("habit", FOLDED)
def test_what_harms_nothing_costs_nothing(habit):
    """Asking a layer for its shape does not keep the norm after it."""
    fast = accelerate(made(lambda s, x: s.seq(HABITS[habit](s, x))), probe=PROBE)
    assert type(fast.seq[1]) is nn.Identity
    if habit != "keeps an attribute":
        assert type(fast.b) is nn.Identity
        assert fast.b.num_features == 8


@dataclass(frozen=True)
class Result:
    scores: torch.Tensor
    top: torch.Tensor
    note: str = "as it was"


OUTPUTS = {
    "dict": lambda y: {"out": y, "aux": None},
    "dataclass": lambda y: Result(y, y.argmax(1)),
    "namespace": lambda y: SimpleNamespace(scores=y, more=[y * 2]),
    "pair": lambda y: (y, y * 2),
}


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs(kind, dtype):
    model = made(Net.features, lambda s, y: OUTPUTS[kind](Net.head(s, y)))
    fast = accelerate(model, probe=PROBE, dtype=dtype)
    assert type(fast(PROBE)) is type(model(PROBE))
    assert type(fast.b) is (nn.BatchNorm2d if kind == "namespace" else nn.Identity)
    if dtype is None:
        assert_same_function(model, fast, PROBE)
    assert all(tensor.dtype == torch.float32 for tensor in tensors_in(fast(PROBE)))


def test_arguments():
    class Many(Net):
        def forward(self, x, scale=2.0, *more, power=1, **names):
            y = super().forward(x) * scale**power
            return y + sum(more) + sum(names.values())

    model = seasoned(Many())
    fast = accelerate(model, probe=PROBE)
    for arguments, named in (((), {}), ((3.0, 1, 2), {}), ((), {"power": 2, "a": 4, "scale": 3})):
        assert_alike(model(PROBE, *arguments, **named), fast(PROBE, *arguments, **named))


def test_two_parents_of_one_norm():
    def set_up(s):
        s.seq = nn.Sequential(nn.Conv2d(8, 8, 1), s.b)
        s.named = nn.ModuleDict({"one": nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), s.b)})

    model = made(lambda s, x: s.named["one"](s.seq(s.c(x))), set_up=set_up)
    fast = accelerate(model, probe=PROBE)
    assert_same_function(model, fast, OTHER)


def test_tied_weights():
    def set_up(s):
        s.seq[0].weight = s.blocks[0].weight

    model = made(lambda s, x: s.seq(s.blocks[0](s.c(x))), set_up=set_up)
    assert_same_function(model, accelerate(model, probe=PROBE), OTHER)


def test_layers_that_the_first_call_makes():
    model = nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.Flatten())
    fast = accelerate(model.eval(), probe=PROBE)
    assert_same_function(model, fast, PROBE)
    assert model[0].in_channels == 3


def test_a_replaced_forward():
    model = made(Net.features)
    plain = model.c.forward
    model.c.forward = lambda x: plain(x) * 2
    assert_same_function(model, accelerate(model, probe=PROBE), OTHER)


def test_a_forward_that_draws():
    """It has no one function, but one sees that it runs as it does."""
    model = made(Net.features, lambda s, y: functional.dropout(y, 0.5).mean((2, 3)))
    fast = accelerate(model, probe=PROBE)
    outputs = []
    for net in (model, fast):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            outputs.append(net(PROBE))
    assert_alike(*outputs)


def test_what_was_kept_with_its_history():
    model = made(keep_new_attribute)
    model(PROBE)
    assert model.brand_new.grad_fn is not None
    fast = accelerate(model, probe=PROBE)
    assert fast.brand_new.grad_fn is None
    assert_alike(model(OTHER), fast(OTHER))


def test_a_dtype_that_the_forward_does_not_take():
    model = made(lambda s, x: s.b(s.c(x.float())))
    assert_same_function(model, accelerate(model, probe=PROBE), OTHER)
    with pytest.raises(ValueError, match=r"dtype: expected one that the model runs in, got"):
        accelerate(model, probe=PROBE, dtype=torch.bfloat16)


@pytest.mark.parametrize("habit", ["keeps in containers", "changes a buffer", "keeps in a child"])
def test_a_trace_leaves_nothing_behind(habit):
    model = made(HABITS[habit])
    before = state_of(model)
    with pytest.raises(TraceError):
        trace(model)
    assert str(state_of(model)) == str(before)
    assert "seen" not in vars(model.b)


class Pickled(Net):
    """With a norm that was folded, and has its attributes still."""

    def features(self, x):
        return self.b(self.c(x)) + self.b.eps


def test_copies_and_pickles():
    fast = accelerate(seasoned(Pickled()), probe=PROBE)
    assert type(fast.b) is nn.Identity
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert_alike(fast(OTHER), other(OTHER))
        assert_alike(fast(OTHER), other.double().float()(OTHER))
