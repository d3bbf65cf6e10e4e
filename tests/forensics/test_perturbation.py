import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from assay.forensics.perturbation import (
    Adversary,
    Discriminator,
    FrequencyPerturbation,
    MatchedNoise,
    Perturbed,
    PixelPerturbation,
)
from assay.training import Session

SHAPES = [(4, 1, 28, 28), (3, 3, 32, 32), (2, 1, 27, 29), (2, 3, 8, 7)]


def mirrored(half, width):
    """Fill a whole spectrum up: v(-f) = conj v(f)."""
    columns = torch.arange(half.shape[-1], width)
    opposite = half[..., width - columns]
    return torch.cat([half, opposite.flip(-2).roll(1, dims=-2).conj()], dim=-1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [FrequencyPerturbation, PixelPerturbation])
def test_a_new_perturbation_is_exactly_zero(kind, shape):
    images = torch.rand(shape)
    assert torch.equal(Perturbed(kind(shape[1], width=4))(images), images)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_spectrum_goes_there_and_back(shape):
    images, perturbation = torch.rand(shape), FrequencyPerturbation(shape[1], width=4)
    perturbation.network = nn.Identity()
    assert torch.allclose(perturbation(images), images, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_real_part_of_the_inverse_of_the_whole_spectrum(shape):
    images, channels = torch.rand(shape), shape[1]
    perturbation = FrequencyPerturbation(channels, width=4)
    perturbation.network = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)
    half = torch.fft.fft2(images, norm="ortho")[..., : shape[-1] // 2 + 1]
    answer = perturbation.network(torch.cat([half.real, half.imag], dim=1))
    whole = mirrored(torch.complex(answer[:, :channels], answer[:, channels:]), shape[-1])
    assert torch.allclose(perturbation(images), torch.fft.ifft2(whole, norm="ortho").real, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_perturbation_has_the_energy_of_its_spectrum(shape):
    images = torch.rand(shape)
    perturbed = Perturbed(FrequencyPerturbation(shape[1], width=4))
    nn.init.normal_(perturbed.perturbation.network.head.weight)
    with torch.no_grad():
        after = perturbed(images)
    added = torch.fft.fft2(after, norm="ortho") - torch.fft.fft2(images, norm="ortho")
    energy = (after - images).square().sum()
    assert energy > 0
    assert torch.isclose(added.abs().square().sum(), energy, rtol=1e-4)


def test_noise_is_as_strong_as_what_was_measured_in_training_and_in_evaluation():
    noise, images = MatchedNoise(3, (16, 16), momentum=0.5), torch.rand(64, 3, 16, 16)
    strengths = (0.2, 0.1, 0.3)
    expected = 0.0
    for strength in strengths:
        noise.measure(torch.randn(64, 3, 16, 16).sign() * strength)
        expected = 0.5 * expected + 0.5 * strength**2
    for mode in (True, False):
        added = noise.train(mode)(images) - images
        assert added.square().mean().sqrt().item() == pytest.approx(expected**0.5, rel=1e-4)


def test_noise_is_new_in_training_and_fixed_in_evaluation():
    noise, images = MatchedNoise(1, (8, 8), momentum=1), torch.zeros(3, 1, 8, 8)
    noise.measure(torch.ones(1, 1, 8, 8))
    drawn = noise.train()(images)
    assert not torch.equal(drawn, noise(images))
    assert not torch.equal(drawn[0], drawn[1])
    fixed = noise.eval()(images)
    assert torch.equal(fixed, noise(images))
    assert torch.equal(fixed[0], fixed[1])


def test_nothing_is_added_before_anything_was_measured():
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(MatchedNoise(1, (8, 8))(images), images)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_discriminator_judges_each_image_by_itself(shape):
    images, discriminator = torch.rand(shape), Discriminator(shape[1], width=4).eval()
    alone = torch.cat([discriminator(image[None]) for image in images])
    assert torch.allclose(discriminator(images), alone, atol=1e-6)


def state_of(module):
    return copy.deepcopy(module.state_dict())


def same(first, second):
    return all(torch.equal(first[key], second[key]) for key in first)


def test_the_adversary_learns_without_reaching_what_made_the_images():
    session, adversary = Session(), Adversary(1, width=4, learning_rate=1e-2)
    adversary.prepare(session)
    shift = nn.Parameter(torch.tensor(0.1))
    before = state_of(adversary.network)
    for _ in range(150):
        adversary.learn(session, torch.rand(16, 1, 8, 8), torch.rand(16, 1, 8, 8) * 0.2 + shift)
    assert shift.grad is None
    assert not same(before, adversary.network.state_dict())
    logits = adversary.network.eval()
    assert (logits(torch.rand(50, 1, 8, 8)) < 0).float().mean() > 0.9
    assert (logits(torch.rand(50, 1, 8, 8) * 0.2) > 0).float().mean() > 0.9


def test_the_adversarys_loss_moves_the_images_and_leaves_the_adversary_alone():
    session, adversary = Session(), Adversary(1, width=4, learning_rate=1e-2)
    adversary.prepare(session)
    before = state_of(adversary.network)
    images = torch.rand(4, 1, 8, 8, requires_grad=True)
    loss = adversary.loss(images)
    loss.backward()
    assert images.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in adversary.network.parameters())
    assert all(parameter.requires_grad for parameter in adversary.network.parameters())
    assert adversary.network.training
    assert same(before, adversary.network.state_dict())
    logits = adversary.network.eval()(images)
    assert torch.isclose(loss, functional.binary_cross_entropy_with_logits(logits, torch.zeros(4)))
