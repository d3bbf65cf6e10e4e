import pytest
import torch
from torch.nn import functional

from assay.errors import UserError
from assay.forensics.zoo import GENERATORS, GeneratorConfig, fit_generator
from assay.forensics.zoo.training import _PENALTY_EVERY, _Adversarial, _frozen, create_generator, fit
from assay.training import Session
from assay.training.checkpoints import CheckpointFolder


def weights(module):
    return torch.cat([value.detach().flatten().float() for value in module.state_dict().values()])


@pytest.mark.parametrize("name", GENERATORS)
def test_training_is_deterministic_and_moves_the_weights(name, images, tiny):
    first = fit_generator(name, images, tiny, seed=3)
    torch.manual_seed(3)
    assert torch.equal(weights(first), weights(fit_generator(name, images, tiny, seed=3)))
    assert not torch.allclose(weights(first), weights(fit_generator(name, images, tiny, seed=4)))
    assert not first.training and first.sample(2, seed=0, sources=images[:2]).shape == (2, 1, 14, 13)


@pytest.mark.parametrize("name", ["dcgan", "spectral-hinge", "vae", "translator"])
def test_a_run_that_was_cut_short_goes_on_to_the_same_weights(name, images, tiny, tmp_path):
    whole = fit_generator(name, images, tiny, seed=1)
    store = CheckpointFolder(tmp_path / "run")
    fit_generator(name, images, tiny.model_copy(update={"epochs": 1}), session=Session(store, seed=1))
    continued = fit_generator(name, images, tiny, session=Session(store, seed=1))
    assert torch.equal(weights(whole), weights(continued))


@pytest.mark.parametrize("name", ["vae", "translator"])
def test_reconstruction_gets_better(name, images, tiny):
    session = Session(seed=0)
    fit(session, create_generator(name, images, tiny), images, tiny.model_copy(update={"epochs": 12}))
    error = [next(value for key, value in record.items() if key.endswith("error")) for record in session.history]
    assert error[-1] < 0.7 * error[0]


@pytest.fixture
def adversarial(images, tiny):
    def create(name="dcgan"):
        session = Session(seed=0)
        training = _Adversarial(session, create_generator(name, images, tiny), tiny)
        training.train()
        return training, training.generator.encode(images[:16])

    return create


def test_the_discriminators_step_does_not_move_the_generator(adversarial):
    training, real = adversarial()
    generated = training.network(torch.randn(16, 8)).clamp(-1, 1).detach()
    before = weights(training.network), weights(training.discriminator)
    training._update_discriminator(real, generated, penalised=True)
    assert torch.equal(weights(training.network), before[0])
    assert not torch.equal(weights(training.discriminator), before[1])


def test_the_generators_step_leaves_no_gradient_in_the_discriminator(adversarial):
    training, real = adversarial()
    latent = torch.randn(16, 8)
    with _frozen(training.discriminator) as discriminator:
        loss = functional.softplus(-discriminator(training.network(latent))).mean()
    loss.backward()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in discriminator.parameters())
    assert all(parameter.grad is not None for parameter in training.network.parameters())
    training.step(real, step=0)
    assert all(parameter.grad is None for parameter in training.discriminator.parameters())


def test_the_penalty_is_the_squared_gradient_on_real_images(adversarial, monkeypatch):
    training, real = adversarial()
    torch._foreach_mul_([parameter.data for parameter in training.discriminator.parameters()], 5.0)
    losses = []
    monkeypatch.setattr(training, "update", lambda loss, optimizer: losses.append(loss.item()))
    generated = torch.zeros_like(real)
    plain = training._update_discriminator(real.clone(), generated, penalised=False).item()
    training._update_discriminator(real.clone(), generated, penalised=True)
    norms = []
    for image in real:  # one by one, with torch.func
        gradient = torch.func.grad(lambda x: training.discriminator(x[None]).sum())(image)
        norms.append(gradient.square().sum())
    expected = 0.3 / 2 * _PENALTY_EVERY * torch.stack(norms).mean().item()
    assert losses[1] - losses[0] == pytest.approx(expected, rel=1e-4)
    assert losses[0] == pytest.approx(plain)


def test_the_hinge_loss_is_flat_where_the_discriminator_is_right(adversarial, monkeypatch):
    training, real = adversarial("spectral-hinge")
    signs = torch.cat([torch.full((16, 1), 3.0), torch.full((16, 1), -3.0)])
    monkeypatch.setattr(training, "discriminator", lambda both: signs.clone().requires_grad_())
    monkeypatch.setattr(training, "update", lambda loss, optimizer: None)
    assert training._update_discriminator(real, real, penalised=True).item() == 0


def test_the_generator_is_the_moving_average_of_what_is_trained(adversarial):
    training, _ = adversarial()
    kept = weights(training.generator.network)
    floats = [value for value in training.trained.state_dict().values() if value.is_floating_point()]
    torch._foreach_add_(floats, 1.0)
    training.average(step=0)
    moved = weights(training.generator.network) - kept
    assert ((moved - 0.9).abs() < 1e-5).logical_or(moved == 0).all()  # 0: the counters of batch normalisation
    training.average(step=10**6)
    moved = weights(training.generator.network) - kept
    assert ((moved - 0.901).abs() < 1e-5).logical_or(moved == 0).all() and (moved > 0).float().mean() > 0.99


def test_what_cannot_be_trained_is_refused(images, tiny):
    with pytest.raises(UserError, match="the generators are dcgan"):
        fit_generator("biggan", images, tiny)
    with pytest.raises(UserError, match="batch normalisation needs 2"):
        fit_generator("dcgan", images[:1], tiny)
    with pytest.raises(UserError, match=r"lower the learning rate"):
        fit_generator("vae", images, tiny.model_copy(update={"learning_rate": 1e30}))


def test_a_generator_that_puts_out_one_image_is_named(images):
    config = GeneratorConfig(epochs=1, batch_size=96, width=4, learning_rate=1e-9)
    with pytest.raises(UserError, match="The generator 'dcgan' collapsed"):
        fit_generator("dcgan", images, config)
