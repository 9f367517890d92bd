"""Recorded work: what is kept, copied and given up, with a recorder that runs on the CPU."""

from __future__ import annotations

import contextlib
import copy
import pickle
import threading
import warnings
from types import SimpleNamespace

import pytest
import torch
from in_threads import in_threads
from networks import SmallNet
from on_cuda import on_cuda
from torch import nn

import pyxai
from pyxai.classifier import cuda_graphs as _graphs


def write(into, values):
    """Writes values into the tensors of the same containers, as a replay does."""
    if isinstance(into, torch.Tensor):
        into.copy_(values)
    elif isinstance(into, dict):
        for name in into:
            write(into[name], values[name])
    elif isinstance(into, (tuple, list)):
        for a, b in zip(into, values, strict=True):
            write(a, b)


class Recorded:
    """Does the work again at each replay, and writes into the tensors of the first time."""

    def __init__(self, work, log):
        self.output = _graphs.clone(work())
        self._work, self._log = work, log

    def wait(self):
        self._log.append("wait")

    def replay(self):
        self._log.append("replay")
        write(self.output, self._work())

    def used(self):
        self._log.append("used")

    def close(self):
        self._log.append("close")


@pytest.fixture
def log(monkeypatch):
    """What recordings did; recorders run on the CPU."""
    events = []

    def record(work, device):
        for _ in range(2):
            work()
        events.append("record")
        return Recorded(work, events)

    monkeypatch.setattr(_graphs, "has_graphs", lambda device: True)
    monkeypatch.setattr("pyxai.attribution.masks.learning.has_graphs", lambda device: True)
    monkeypatch.setattr(_graphs, "record", record)
    return events


@pytest.fixture
def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval().requires_grad_(False)


def twice(replays, network, images, name="forward"):
    replays(network, name, network, images)
    return replays(network, name, network, images)


def test_a_shape_is_recorded_when_it_comes_again_and_replayed_on_new_data(log, network):
    replays = _graphs.Replays(network)
    images = torch.randn(3, 2, 3, 8, 8)
    found = [replays(network, "forward", network, each) for each in images]
    assert log == ["record", *["wait", "replay", "used"] * 2]
    for each, output in zip(images, found, strict=True):
        assert torch.equal(output, network(each))


def test_outputs_do_not_change_with_the_next_call(log, network):
    replays = _graphs.Replays(network)
    first = twice(replays, network, torch.randn(1, 3, 8, 8))
    kept = first.clone()
    twice(replays, network, torch.randn(1, 3, 8, 8))
    assert torch.equal(first, kept)


def test_inputs_are_kept_apart_by_shape_order_dtype_and_name(log, network):
    replays = _graphs.Replays(network, most=8)
    images = torch.randn(2, 3, 8, 8)
    for each in (images, images[:1], images.contiguous(memory_format=torch.channels_last)):
        assert torch.equal(twice(replays, network, each), network(each))
    twice(replays, network, images, name="another")
    assert log.count("record") == 4


def test_the_one_not_used_for_longest_goes(log, network):
    replays = _graphs.Replays(network, most=2)
    a, b, c = (torch.randn(n, 3, 8, 8) for n in (1, 2, 3))
    for images in (a, b, a, c):
        twice(replays, network, images)
    assert log.count("record") == 3
    assert log.count("close") == 1
    log.clear()
    twice(replays, network, a)
    assert "record" not in log
    twice(replays, network, b)
    assert log.count("record") == 1


def test_shapes_that_came_once_are_forgotten_in_time(log, network):
    replays = _graphs.Replays(network)
    for size in range(4, 4 + _graphs._SEEN + 1):
        replays(network, "forward", network, torch.randn(1, 3, size, 4))
    replays(network, "forward", network, torch.randn(1, 3, 4, 4))
    assert not log


def test_gradients_run_as_usual(log, network):
    replays = _graphs.Replays(network)
    images = torch.randn(1, 3, 8, 8, requires_grad=True)
    twice(replays, network, images).sum().backward()
    assert images.grad.abs().sum() > 0
    network.requires_grad_(True)
    assert twice(replays, network, images.detach()).requires_grad
    assert not log
    with torch.no_grad():
        twice(replays, network, images)
    assert log.count("record") == 1


def test_hooks_see_every_call(log, network):
    replays = _graphs.Replays(network)
    images, seen = torch.randn(1, 3, 8, 8), []
    twice(replays, network, images)
    with network[0].register_forward_hook(lambda *_: seen.append(1)):
        twice(replays, network, images)
    assert len(seen) == 2
    log.clear()
    replays(network, "forward", network, images)
    assert "replay" in log


def test_changed_weights_are_seen_and_moved_ones_recorded_anew(log, network):
    replays = _graphs.Replays(network)
    images = torch.randn(1, 3, 8, 8)
    twice(replays, network, images)
    network[0].weight.mul_(2)
    assert torch.equal(twice(replays, network, images), network(images))
    assert log.count("record") == 1
    network[0].weight.data = network[0].weight.data * 2  # as moving to another device does
    assert torch.equal(twice(replays, network, images), network(images))
    assert log.count("record") == 2
    assert log.count("close") == 1


def test_a_second_thread_does_not_wait(log, network):
    replays = _graphs.Replays(network)
    images = torch.randn(1, 3, 8, 8)
    twice(replays, network, images)
    log.clear()
    with replays._lock:
        found = []
        other = threading.Thread(
            target=lambda: found.append(replays(network, "forward", network, images))
        )
        other.start()
        other.join(10)
    assert not log
    assert torch.equal(found[0], network(images))


def test_threads_do_not_see_each_others_images(log, network):
    replays = _graphs.Replays(network)
    wrong = []

    def work(seed):
        images = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        expected = network(images)
        for _ in range(50):
            if not torch.equal(replays(network, "forward", network, images), expected):
                wrong.append(seed)

    in_threads(work, 4)
    assert not wrong
    assert "replay" in log


def test_what_cannot_be_recorded_runs_as_usual_and_is_said_once(log, network, monkeypatch):
    def refuse(work, device):
        work()
        raise _graphs.CannotRecord("it waits for the device")

    monkeypatch.setattr(_graphs, "record", refuse)
    replays = _graphs.Replays(network)
    images = torch.randn(1, 3, 8, 8)
    replays(network, "forward", network, images)
    with pytest.warns(RuntimeWarning, match="it waits for the device"):
        found = replays(network, "forward", network, images)
    assert torch.equal(found, network(images))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replays(network, "forward", network, images)


def test_outputs_that_may_hide_tensors_are_not_replayed(log, network):
    class Output:
        def __init__(self, logits):
            self.logits = logits

    replays = _graphs.Replays(network)
    images = torch.randn(1, 3, 8, 8)
    replays(network, "o", lambda x: Output(network(x)), images)
    with pytest.warns(RuntimeWarning, match="type Output"):
        found = replays(network, "o", lambda x: Output(network(x)), images)
    assert torch.equal(found.logits, network(images))


def test_errors_of_the_network_are_its_own(log, network):
    replays = _graphs.Replays(network)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="channels"):
            replays(network, "forward", network, torch.randn(1, 2, 8, 8))


def test_inference_mode_and_autocast(log, network):
    replays = _graphs.Replays(network)
    images = torch.randn(1, 3, 8, 8)
    with torch.inference_mode():
        twice(replays, network, images)
    assert torch.equal(twice(replays, network, images), network(images))
    log.clear()
    with torch.autocast("cpu"):
        assert twice(replays, network, images).dtype == torch.bfloat16
    assert not log


def test_copies_start_empty(log, network):
    replays = _graphs.Replays(network, most=3)
    twice(replays, network, torch.randn(1, 3, 8, 8))
    for other in (copy.deepcopy(replays), pickle.loads(pickle.dumps(replays))):
        assert not other._entries
        assert other._most == 3


def test_on_the_cpu_nothing_is_recorded():
    fast = pyxai.accelerate(SmallNet().eval(), graphs=True, probe=torch.randn(2, 3, 32, 32))
    images = torch.randn(2, 3, 32, 32)
    for _ in range(3):
        fast(images)
    assert not fast._orig_mod.__dict__["_replays"]._entries


# ---- the recorder for CUDA, with a stand-in for torch.cuda ----


class Stream:
    device = "cpu"

    def wait_stream(self, other):
        pass

    wait_event = wait_stream


class FakeCuda:
    """Runs everything at once, as without a device."""

    def __init__(self, monkeypatch, fails):
        self.default, self.now, self.fails = Stream(), None, fails
        self.captures = 0
        self.now = self.default
        graph = SimpleNamespace(replay=lambda: None)
        event = SimpleNamespace(record=lambda stream: None, synchronize=lambda: None)
        for name, value in {
            "device": lambda device: contextlib.nullcontext(),
            "current_stream": lambda device=None: self.now,
            "set_stream": lambda stream: setattr(self, "now", stream),
            "Stream": Stream,
            "Event": lambda: event,
            "stream": lambda stream: contextlib.nullcontext(),
            "CUDAGraph": lambda: graph,
            "graph": self.capture,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    @contextlib.contextmanager
    def capture(self, graph, *, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        self.captures += 1
        before, self.now = self.now, stream
        yield
        if self.fails and self.captures == 1:  # torch's stays on its stream then
            raise RuntimeError("operation failed due to a previous error during capture")
        self.now = before


def test_recording_warms_up_and_gives_the_stream_back(monkeypatch):
    cuda, calls = FakeCuda(monkeypatch, fails=False), []
    recorded = _graphs.record(lambda: calls.append(1) or len(calls), torch.device("cpu"))
    assert recorded.output == len(calls) == _graphs._WARM_UPS + 1
    for use in (recorded.wait, recorded.replay, recorded.used, recorded.close):
        use()
    assert cuda.now is cuda.default


def test_a_failed_recording_leaves_torch_in_order(monkeypatch):
    cuda = FakeCuda(monkeypatch, fails=True)
    with pytest.raises(_graphs.CannotRecord, match="RuntimeError: operation failed"):
        _graphs.record(lambda: None, torch.device("cpu"))
    assert cuda.now is cuda.default
    assert cuda.captures == 2  # the second ends well


def test_errors_while_warming_up_are_those_of_the_work(monkeypatch):
    FakeCuda(monkeypatch, fails=False)
    with pytest.raises(KeyError):
        _graphs.record(lambda: {}["no"], torch.device("cpu"))


# ---- accelerate, cam, masks ----


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_accelerated_networks_replay(log, small_net, dtype):
    images = torch.randn(3, 2, 3, 32, 32)
    options = {"dtype": dtype, "probe": images[0]}
    plain = pyxai.accelerate(small_net, **options)
    fast = pyxai.accelerate(small_net, graphs=True, **options)
    for each in images:
        assert torch.equal(fast(each), plain(each))
    assert log.count("replay") == 2
    again = copy.deepcopy(fast)
    assert torch.equal(again(images[0]), plain(images[0]))


@pytest.mark.parametrize("method", ["cam", "gradcam"])
def test_cam_replays_with_the_layers_it_needs(log, small_net, method):
    images = torch.randn(3, 2, 3, 32, 32)
    plain = pyxai.accelerate(small_net, probe=images[0])
    fast = pyxai.accelerate(small_net, graphs=True, probe=images[0])
    for each in images:
        expected = pyxai.cam(plain, each, method=method)
        assert torch.equal(pyxai.cam(fast, each, method=method), expected)
    assert log.count("replay") >= 2


def test_a_copy_of_a_copy_has_no_recordings(small_net):
    probe = torch.randn(2, 3, 32, 32)
    again = pyxai.accelerate(pyxai.accelerate(small_net, graphs=True, probe=probe), probe=probe)
    assert "_replays" not in again.__dict__


def test_compile_and_graphs_exclude_each_other(small_net):
    with pytest.raises(ValueError, match="graphs: expected False"):
        pyxai.accelerate(small_net, compile=True, graphs=True)


SMALL = {"mask_size": 8, "blur_kernel": 5}
LEARNERS = {
    "undesirable": (pyxai.undesirable_pixels, pyxai.MaskSettings(steps=25, **SMALL)),
    "perturbation": (
        pyxai.meaningful_perturbation,
        pyxai.MeaningfulSettings(steps=25, jitter=3, **SMALL),
    ),
    "extremal": (pyxai.extremal_perturbation, pyxai.ExtremalSettings(steps=25, **SMALL)),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_recorded_steps_learn_the_same_masks(log, small_net, name):
    images = torch.randn(3, 3, 32, 32)
    learn, settings = LEARNERS[name]
    options = {"batch_size": 2, "settings": settings}
    expected = learn(small_net, images, **options)
    assert not log
    found = learn(small_net, images, **options, graphs=True)
    assert log.count("record") == 2  # a chunk of two, one of one
    assert log.count("replay") == 2 * 25
    assert torch.allclose(found.mask, expected.mask, atol=1e-5)
    assert torch.allclose(found.losses, expected.losses, atol=1e-5)


def test_masks_that_are_done_leave_the_recording(log, small_net):
    images = torch.randn(4, 3, 32, 32)
    start = torch.rand(4, 8, 8)
    start[1:3] = 1  # nothing to gain
    settings = pyxai.MaskSettings(steps=60, tolerance=1e-3, learning_rate=0.02, **SMALL)
    options = {"start": start, "settings": settings}
    expected = pyxai.undesirable_pixels(small_net, images, **options)
    assert len(expected.steps.unique()) > 1
    found = pyxai.undesirable_pixels(small_net, images, **options, graphs=True)
    assert torch.equal(found.steps, expected.steps)
    assert torch.allclose(found.mask, expected.mask, atol=1e-5)
    assert log.count("record") > 1


def test_masks_of_models_that_cannot_be_recorded(log, small_net, monkeypatch):
    def refuse(work, device):
        work()
        raise _graphs.CannotRecord("it waits for the device")

    monkeypatch.setattr(_graphs, "record", refuse)
    options = {"settings": pyxai.MaskSettings(steps=12, **SMALL)}
    images = torch.randn(2, 3, 32, 32)
    with pytest.warns(RuntimeWarning, match="waits") as said:
        found = pyxai.undesirable_pixels(small_net, images, **options, graphs=True)
    assert len(said) == 1
    assert torch.equal(found.mask, pyxai.undesirable_pixels(small_net, images, **options).mask)


# ---- on a device ----


class TestOnADevice:
    pytestmark = on_cuda

    def test_accelerated_networks(self, small_net):
        small_net.cuda()
        images = torch.randn(4, 2, 3, 32, 32, device="cuda")
        plain = pyxai.accelerate(small_net, probe=images[0])
        fast = pyxai.accelerate(small_net, graphs=True, probe=images[0])
        for each in images:
            with torch.no_grad():
                torch.testing.assert_close(fast(each), plain(each))
            torch.testing.assert_close(pyxai.cam(fast, each), pyxai.cam(plain, each))
        assert len(fast._orig_mod.__dict__["_replays"]._entries) == 2

    def test_replays_on_changing_streams_and_threads(self, small_net):
        small_net.cuda()
        fast = pyxai.accelerate(small_net, graphs=True, probe=torch.randn(2, 3, 32, 32).cuda())
        wrong = []

        def work(seed):
            images = torch.full((2, 3, 32, 32), float(seed), device="cuda")
            with torch.no_grad(), torch.cuda.stream(torch.cuda.Stream()):
                torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())
                expected = fast._orig_mod(images)
                for _ in range(100):
                    if not torch.allclose(fast(images), expected, atol=1e-4):
                        wrong.append(seed)

        in_threads(work, 4)
        assert not wrong

    @pytest.mark.filterwarnings("ignore:graphs")
    def test_a_model_that_waits_for_the_device(self):
        class Waits(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = nn.Conv2d(3, 4, 3)

            def forward(self, images):
                return self.inner(images) * float(images.abs().max() >= 0)

        network = Waits().cuda().eval().requires_grad_(False)
        replays = _graphs.Replays(network)
        images = torch.randn(1, 3, 8, 8, device="cuda")
        stream = torch.cuda.current_stream()
        for _ in range(3):
            found = replays(network, "forward", network, images)
        assert torch.cuda.current_stream() == stream
        torch.randn(3, device="cuda")  # the generator is in order
        torch.testing.assert_close(found, network(images))

    @pytest.mark.parametrize("name", LEARNERS)
    def test_masks(self, small_net, name):
        small_net.cuda()
        images = torch.randn(3, 3, 32, 32, device="cuda")
        learn, settings = LEARNERS[name]
        expected = learn(small_net, images, settings=settings)
        found = learn(small_net, images, settings=settings, graphs=True)
        torch.testing.assert_close(found.mask, expected.mask, atol=1e-3, rtol=0)
