"""What feature visualisation rests on: waves and colours, movements, redirected ReLUs."""

from __future__ import annotations

import math

import pytest
import torch
from networks import random_net
from torch import nn
from torch.nn import functional

import pyxai
from pyxai.feature_visualization import fourier
from pyxai.feature_visualization.feature_optimization import likeness
from pyxai.feature_visualization.movements import draw_movements, look, make_movements, placements
from pyxai.feature_visualization.redirection import RedirectedRelus

# ---- waves and colours ----


def spectra(count, size, scale=1.0):
    parts = [fourier.start_spectrum(size, fourier.stream(0, place)) for place in range(count)]
    return scale * torch.stack(parts)


def test_first_pictures_are_nearly_grey_and_each_its_own():
    waves = fourier.wave_lengths(32, 1.0, torch.device("cpu"))
    pictures = fourier.render(spectra(3, 32), waves)
    assert pictures.shape == (3, 3, 32, 32)
    torch.testing.assert_close(pictures, torch.full_like(pictures, 0.5), atol=0.05, rtol=0)
    assert not torch.equal(pictures[0], pictures[1])


@pytest.mark.parametrize("size", [16, 17])
def test_pictures_come_back_from_their_amplitudes(size):
    waves = fourier.wave_lengths(size, 1.0, torch.device("cpu"))
    pictures = 0.05 + 0.9 * torch.rand(2, 3, size, size)
    colors = torch.tensor(fourier._COLORS, dtype=torch.float64) * fourier._CONTRAST
    channels = torch.einsum("nkhw,ck->nchw", pictures.double().logit(), colors.inverse())
    amplitudes = torch.fft.rfft2(channels, norm="ortho") / waves
    again = fourier.render(torch.view_as_real(amplitudes).float(), waves)
    torch.testing.assert_close(again, pictures, atol=1e-5, rtol=1e-5)


def test_a_single_wave_is_a_cosine():
    """Amplitude 2 at frequency (0, 2) of brightness: 2 / frequency * cos, in the first colour."""
    size = 8
    waves = fourier.wave_lengths(size, 1.0, torch.device("cpu"))
    spectrum = torch.zeros(1, 3, size, size // 2 + 1, 2)
    spectrum[0, 0, 0, 2, 0] = 2.0
    logits = fourier.render(spectrum, waves).logit()
    x = torch.arange(size)
    # irfft2 counts the wave and its mirror image, and divides by the square root of the pixels.
    wave = 2 * (2.0 / (2 / size)) * torch.cos(2 * math.pi * 2 * x / size) / size
    expected = 0.25 * torch.tensor([0.558, 0.572, 0.601])[:, None, None] * wave
    torch.testing.assert_close(logits[0], expected.expand(3, size, size), atol=1e-5, rtol=1e-5)


def test_all_octaves_have_the_same_energy():
    """As in photos: amplitudes fall as 1 / frequency."""
    size = 128
    waves = fourier.wave_lengths(size, 1.0, torch.device("cpu"))
    logits = fourier.render(spectra(8, size), waves).logit()
    power = torch.fft.fft2(logits).abs().square().mean(dim=(0, 1))
    along = torch.fft.fftfreq(size)
    frequency = torch.hypot(along[:, None], along[None])
    octaves = [
        power[(frequency >= low) & (frequency < 2 * low)].sum() for low in (1 / 32, 1 / 16, 1 / 8)
    ]
    for octave in octaves[1:]:
        assert 0.8 < float(octave / octaves[0]) < 1.25


def test_the_lowest_frequency_is_not_divided_by_nothing():
    waves = fourier.wave_lengths(16, 1.0, torch.device("cpu"))
    assert waves.max() == waves[0, 0] == 16
    assert bool(torch.isfinite(waves).all())


def test_streams_depend_on_seed_and_key_only():
    first = torch.rand(4, generator=fourier.stream(3, "start", "channel 1", 0))
    assert torch.equal(first, torch.rand(4, generator=fourier.stream(3, "start", "channel 1", 0)))
    for key in ((4, "start", "channel 1", 0), (3, "start", "channel 2", 0), (3, "start")):
        assert not torch.equal(first, torch.rand(4, generator=fourier.stream(*key)))


# ---- movements ----


def still(count=1):
    """Draws that move nothing."""
    return torch.full((count, 6), 0.5)


def test_a_view_that_does_not_move_is_the_picture_in_grey():
    movements = make_movements(128, 1.0)
    assert (movements.view, movements.shift, movements.last_shift) == (140, 8, 4)
    pictures = torch.rand(1, 3, 128, 128)
    seen = look(pictures, placements(movements, still()), 140)
    torch.testing.assert_close(seen[:, :, 6:-6, 6:-6], pictures, atol=1e-4, rtol=1e-4)
    assert bool((seen[:, :, :5] == 0.5).all())


def test_small_pictures_move_less():
    movements = make_movements(32, 1.0)
    assert (movements.shift, movements.last_shift, movements.view) == (2, 2, 34)
    assert not make_movements(32, 0.0).any
    assert make_movements(32, 0.0).view == 32


def test_shifts_are_whole_pixels_and_in_range():
    movements = make_movements(128, 1.0)
    draws = still(9)
    draws[:, 0] = (torch.arange(9) + 0.5) / 9  # the first shift, across
    pictures = torch.rand(1, 3, 128, 128).expand(9, -1, -1, -1)
    seen = look(pictures, placements(movements, draws), 140)
    for place, shift in enumerate(range(-4, 5)):
        expected = pictures[0, :, 20:100, 20:100]
        found = seen[place, :, 26:106, 26 - shift : 106 - shift]
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_turn_and_scale_go_where_they_should():
    movements = make_movements(128, 1.0)
    draws = still(2)
    draws[0, 4], draws[1, 5] = 1.0, 1.0
    places = placements(movements, draws)
    ratio = 140 / 128
    torch.testing.assert_close(places[0, :, :2], ratio / 1.1 * torch.eye(2))
    angle = math.radians(10)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    torch.testing.assert_close(places[1, :, :2], ratio * turn)


def test_draws_cover_their_range():
    draws = draw_movements(500, fourier.stream(0))
    assert draws.shape == (500, 6)
    assert 0 <= float(draws.min()) < 0.01
    assert 0.99 < float(draws.max()) < 1


# ---- redirected ReLUs ----


class Shut(nn.Module):
    """A layer that is below 0 for every input between 0 and 1, then a ReLU of some kind."""

    def __init__(self, relu):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, 3, 1, 1), 1.0))
        self.relu = relu

    def forward(self, x):
        return self.relu(functional.conv2d(x, self.weight) - 10)


RELUS = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "ReLU6": nn.ReLU6(),
    "ReLU6 in place": nn.ReLU6(inplace=True),
    "function": functional.relu,
    "function in place": functional.relu_,
    "torch": torch.relu,
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.relu_(),
    "hardtanh": lambda x: functional.hardtanh(x, 0.0, 1.0),
}


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS.keys())
def test_shut_relus_let_raising_gradients_through(relu):
    model = Shut(relu)
    images = torch.rand(2, 3, 4, 4, requires_grad=True)
    (plain,) = torch.autograd.grad(-model(images).sum(), images)
    assert not plain.any()
    with RedirectedRelus():
        output = model(images)
        (raising,) = torch.autograd.grad(-output.sum(), images)
    assert not output.any()
    torch.testing.assert_close(raising, -torch.ones_like(images))
    with RedirectedRelus():  # nothing pushes further down
        (lowering,) = torch.autograd.grad(model(images).sum(), images)
    assert not lowering.any()
    (after,) = torch.autograd.grad(-model(images).sum(), images)
    assert not after.any()


def test_images_with_a_gradient_keep_it():
    model = random_net()
    images = torch.randn(3, 3, 16, 16, requires_grad=True)
    (plain,) = torch.autograd.grad(model.stage1(model.stem(images)).sum(), images)
    with RedirectedRelus():
        (redirected,) = torch.autograd.grad(model.stage1(model.stem(images)).sum(), images)
    torch.testing.assert_close(redirected, plain)


def test_accelerated_layers_are_redirected_too():
    block = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    model = nn.Sequential(block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    nn.init.constant_(block[0].bias, -10.0)
    fast = pyxai.accelerate(model.eval(), probe=torch.rand(2, 3, 16, 16))
    images = torch.rand(1, 3, 16, 16, requires_grad=True)
    (plain,) = torch.autograd.grad(-fast[0](images).sum(), images)
    assert not plain.any()
    with RedirectedRelus():
        (raising,) = torch.autograd.grad(-fast[0](images).sum(), images)
    assert raising.any()


# ---- diversity ----


def test_likeness_by_hand():
    """Gram matrices diag(4, 0), diag(0, 4) and diag(4, 4): cosines 0, 1 / sqrt 2, 1 / sqrt 2."""
    one = torch.ones(2, 2)
    features = torch.stack([torch.stack([one, 0 * one]), torch.stack([0 * one, one]), _crossed()])
    root = 2**-0.5
    expected = torch.tensor([(0 + root) / 2, (0 + root) / 2, root])
    torch.testing.assert_close(likeness(features, 3), expected)
    twice = torch.cat([features, features])
    torch.testing.assert_close(likeness(twice, 3), expected.repeat(2))


def _crossed():
    """Two channels of equal length whose product is 0."""
    return torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[1.0, -1.0], [1.0, -1.0]]])
