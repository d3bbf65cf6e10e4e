import copy

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from assay.errors import AssayError, UserError
from assay.forensics.methods.frepgan import FrePGAN, FrePGANOptions
from assay.training import Session
from assay.training.checkpoints import CheckpointFolder

ARMS = ["alternating", "frozen", "noise", "low-pass", "none"]


def create(seed=0, channels=1, size=(12, 12), session=None, **options):
    session = session or Session(seed=seed)
    method = FrePGAN(FrePGANOptions(width=4, **options), channels=channels, image_size=size)
    method.prepare(session)
    return session, method


def batch(channels=1, size=(12, 12), count=8):
    real = torch.rand(count, channels, *size)
    return real, real.roll(1, dims=0).round(decimals=1)


def state_of(module):
    return copy.deepcopy(module.state_dict())


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_unknown_arms_and_options_are_refused():
    with pytest.raises(UserError, match="lambda is not a setting"):
        FrePGANOptions.parse({"lambda": 1.0}, where="options of frepgan")
    with pytest.raises(UserError, match="arm"):
        FrePGANOptions.parse({"arm": "thawed"}, where="options of frepgan")


def test_the_detector_first_sees_the_raw_images():
    _, method = create()
    for images in batch():
        assert torch.equal(method.transform(images), images)
    assert method.pretraining_epochs == 0
    assert create(arm="frozen", pretraining_epochs=3)[1].pretraining_epochs == 3


@pytest.mark.parametrize("shown", ["perturbed", "perturbation"])
def test_one_step_has_the_losses_of_the_paper(monkeypatch, shown):
    session, method = create(discriminator_input=shown, penalty=0.7)
    nn.init.normal_(method.perturbation.network.head.weight, std=0.1)
    real, generated = batch()
    discriminator = copy.deepcopy(method.adversary.network)
    perturbation = method.perturbation(generated).detach()
    seen = generated + perturbation if shown == "perturbed" else perturbation
    losses = []
    backward = session.backward
    monkeypatch.setattr(session, "backward", lambda loss: (losses.append(loss.item()), backward(loss)))

    logits = discriminator(torch.cat([real, seen]))
    expected = binary_cross_entropy_with_logits(logits[:8], torch.zeros(8))
    expected += binary_cross_entropy_with_logits(logits[8:], torch.ones(8))
    method.training_batch(session, real, generated)
    assert losses[0] == pytest.approx(expected.item(), rel=1e-5)

    # The perturbation is judged by the discriminator after its step.
    judged = method.adversary.network.eval()(seen)
    expected = binary_cross_entropy_with_logits(judged, torch.zeros(8)) + 0.7 * perturbation.square().mean()
    assert losses[1] == pytest.approx(expected.item(), rel=1e-5)
    assert len(losses) == 2


def test_no_step_moves_a_network_that_is_not_its_own():
    session, method = create()
    nn.init.normal_(method.perturbation.network.head.weight, std=0.1)
    real, generated = batch()
    detector = nn.Sequential(nn.Flatten(), nn.Linear(144, 1))

    before = state_of(method.perturbation)
    method.adversary.learn(session, real, generated + method.perturbation(generated))  # D's
    assert same(before, method.perturbation.state_dict())
    assert all(p.grad is None for p in method.perturbation.parameters())

    inputs, labels = method.training_batch(session, real, generated)
    before = state_of(method.perturbation), state_of(method.adversary.network)
    assert not inputs.requires_grad
    binary_cross_entropy_with_logits(detector(inputs).squeeze(1), labels).backward()  # C's
    torch.optim.SGD(detector.parameters(), lr=1.0).step()
    assert same(before[0], method.perturbation.state_dict())
    assert same(before[1], method.adversary.network.state_dict())
    for network in (method.perturbation, method.adversary.network):
        assert all(p.grad is None or not p.grad.any() for p in network.parameters())

    before = state_of(method.adversary.network)
    (method.adversary.loss(generated + method.perturbation(generated))).backward()  # G's
    method._optimizer.step()
    assert same(before, method.adversary.network.state_dict())
    assert not any(p.grad is not None and p.grad.any() for p in method.adversary.network.parameters())


@pytest.mark.parametrize("arm", ARMS)
def test_each_arm_moves_its_networks_when_it_says_so(arm):
    session, method = create(arm=arm)
    networks = (method.perturbation, method.adversary.network)
    real, generated = batch()
    before = [state_of(network) for network in networks]
    method.training_batch(session, real, generated)
    moved = [not same(old, network.state_dict()) for old, network in zip(before, networks, strict=True)]
    assert moved == [arm in ("alternating", "noise")] * 2
    if arm == "frozen":
        method.pretraining_step(session, real, generated)
        assert not any(same(old, network.state_dict()) for old, network in zip(before, networks, strict=True))


@pytest.mark.parametrize("domain", ["frequency", "pixel"])
def test_the_batch_is_the_perturbed_one_of_both_classes(domain):
    session, method = create(domain=domain)
    real, generated = batch()
    inputs, labels = method.training_batch(session, real, generated)
    for images, part in ((real, inputs[:8]), (generated, inputs[8:])):
        assert torch.allclose(part, images + method.perturbation(images), atol=1e-6)
        assert not torch.equal(part, images)
    assert labels.tolist() == [0.0] * 8 + [1.0] * 8


def test_the_noise_is_as_strong_as_the_perturbation_that_it_replaces():
    session, method = create(arm="noise", perturbation_learning_rate=1e-2)
    real, generated = batch(count=64)
    expected = 0.0
    for _ in range(30):
        expected += 0.1 * (method.perturbation(generated).square().mean().item() - expected)
        inputs, _ = method.training_batch(session, real, generated)
        added = (inputs - torch.cat([real, generated])).square().mean().sqrt().item()
        assert added == pytest.approx(expected**0.5, rel=1e-3, abs=1e-6)
    assert expected > 0
    method.transform.eval()
    # What a registered detector carries is a pattern and its strength, and nothing of G.
    assert set(method.transform.state_dict()) == {"pattern", "mean_square"}
    added = (method.transform(real) - real).square().mean().sqrt().item()
    assert added == pytest.approx(expected**0.5, rel=1e-3)


def test_a_heavier_penalty_leaves_a_weaker_perturbation():
    strengths = []
    for penalty in (0.0, 1000.0):
        session, method = create(penalty=penalty, perturbation_learning_rate=5e-3)
        torch.manual_seed(1)
        real, generated = batch(count=32)
        for _ in range(40):
            method.training_batch(session, real, generated)
        strengths.append(method.perturbation(generated).square().mean().item())
    assert strengths[1] < strengths[0] / 10


def test_generated_images_are_needed():
    session, method = create()
    with pytest.raises(AssayError, match="no generated images"):
        method.training_batch(session, batch()[0], None)


@pytest.mark.parametrize(
    ("options", "channels", "size"),
    [
        ({}, 1, (28, 28)),
        ({}, 3, (15, 17)),
        ({"domain": "pixel"}, 3, (15, 16)),
        ({"arm": "noise"}, 1, (12, 12)),
        ({"arm": "low-pass"}, 3, (9, 14)),
    ],
)
def test_the_exported_transform_equals_the_eager_one_for_any_batch(options, channels, size):
    session, method = create(channels=channels, size=size, **options)
    for _ in range(3):
        method.training_batch(session, *batch(channels, size))
    transform = method.transform.eval()
    exported = torch.export.export(
        transform, (torch.rand(2, channels, *size),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    ).module()
    for count in (1, 5):
        images = torch.rand(count, channels, *size)
        assert torch.allclose(exported(images), transform(images), atol=1e-6)
        assert torch.equal(transform(images), transform(images))
        assert not torch.equal(transform(images), images)


def train(store, epochs, stop_after=None, *, seed=0, arm="alternating"):
    """A detector's loop in small: C is one linear layer."""
    session = Session(store, seed=seed)
    _, method = create(session=session, arm=arm)
    detector = nn.Sequential(nn.Flatten(), nn.Linear(144, 1))
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-2)
    detector, optimizer = session.prepare(detector, optimizer)
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(32, 1, 12, 12, generator=generator)
    generated = torch.rand(32, 1, 12, 12, generator=generator).round(decimals=1)
    for epoch in session.epochs(epochs):
        for index in session.batches(32, batch_size=8):
            inputs, labels = method.training_batch(session, real[index], generated[index])
            session.backward(binary_cross_entropy_with_logits(detector(inputs).squeeze(1), labels))
            optimizer.step()
            optimizer.zero_grad()
        session.checkpoint(epoch)
        if epoch == stop_after:
            break
    networks = (method.transform, method.perturbation, method.adversary.network, detector)
    return {f"{i} {key}": value for i, network in enumerate(networks) for key, value in network.state_dict().items()}


@pytest.mark.parametrize("arm", ["alternating", "noise"])
def test_a_training_that_was_cut_off_goes_on_to_the_same_weights(tmp_path, arm):
    whole = train(CheckpointFolder(tmp_path / "whole"), 3, arm=arm)
    train(CheckpointFolder(tmp_path / "cut"), 3, stop_after=0, arm=arm)
    assert same(whole, train(CheckpointFolder(tmp_path / "cut"), 3, arm=arm))


def test_the_seed_determines_the_training():
    first = train(None, 1)
    assert same(first, train(None, 1))
    assert not same(first, train(None, 1, seed=1))


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_pictures_show_both_classes_before_and_after(arm, channels):
    _, method = create(arm=arm, channels=channels)
    images = torch.randint(0, 256, (4, channels, 12, 12), dtype=torch.uint8)
    figures = method.figures(images, images.flip(0))
    assert len(figures) == (arm != "none")
    for figure in figures.values():
        assert isinstance(figure, Figure)
        assert len(figure.axes) == 6 * 5 + 1  # before, added, after; four examples, a spectrum; a colour bar
