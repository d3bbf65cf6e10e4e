"""The training of the generators: adversarial, variational, or as a translator."""

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from assay.errors import UserError
from assay.forensics.zoo.config import GeneratorConfig
from assay.forensics.zoo.generators import NOISE, GeneratorSpec, Shape, ZooGenerator
from assay.forensics.zoo.networks import Encoder, VariationalAutoencoder
from assay.forensics.zoo.quality import measure_quality, refuse_collapse
from assay.training import Session

_BETAS = (0.0, 0.99)
_PENALTY_EVERY = 8  # steps; a penalty that is rarer and larger acts alike (Karras et al. 2020)
_SPECTRAL_RATE = 4.0  # two time scales (Heusel et al. 2017): a bounded discriminator changes slowly


def fit_generator(
    name: str,
    images: Tensor,
    config: GeneratorConfig | None = None,
    *,
    seed: int = 0,
    session: Session | None = None,
) -> ZooGenerator:
    """Train a generator on tensors and return it in evaluation mode, on the session's device.

    Args:
        name: a key of `GENERATORS`.
        images: uint8 [N, C, H, W]; the first ``config.limit`` are used.
        config: default `GeneratorConfig()`.
        seed: of the initial weights, the order and the noise, where no session is given.
        session: a session with a checkpoint store or a tracker; its seed counts.

    Raises:
        UserError: the name is unknown, there are too few images, the loss diverged, or the generator collapsed.

    Example:
        >>> images = torch.randint(0, 256, (32, 1, 12, 12), dtype=torch.uint8)
        >>> config = GeneratorConfig(epochs=1, batch_size=16, width=4, minimum_diversity=0)
        >>> fit_generator("dcgan", images, config).sample(2, seed=0).shape
        torch.Size([2, 1, 12, 12])
    """
    config = config or GeneratorConfig()
    session = session or Session(seed=seed, precision=config.precision)
    images = images[: config.limit]
    generator = create_generator(name, images, config)
    fit(session, generator, images, config)
    quality = measure_quality(generator.sample(len(images[:1000]), seed=session.seed, sources=images[:1000]), images)
    refuse_collapse(name, quality, config.minimum_diversity)
    return generator


def create_generator(name: str, images: Tensor, config: GeneratorConfig) -> ZooGenerator:
    """Return an untrained generator of images like these."""
    height, width = images.shape[2:]
    return ZooGenerator(name, Shape(images.shape[1], (height, width), config.width, config.latent_size))


def fit(session: Session, generator: ZooGenerator, images: Tensor, config: GeneratorConfig) -> None:
    """Train ``generator`` in place, from the session's last checkpoint if it has one.

    What is trained is a copy; ``generator`` is the moving average of its weights, which makes better images
    than any single step (Yazici et al. 2019), and is what the session keeps as model 0. Every epoch logs the
    losses of the family; the step is the number of epochs done.
    """
    _check(len(images), config.batch_size, session.world_size)
    images = images.to(session.device)
    training = _FAMILIES[generator.spec.family](session, generator, config)
    steps = len(images) // min(config.batch_size, len(images))
    for epoch in session.epochs(config.epochs):
        training.train()
        totals = torch.zeros(len(training.losses), device=session.device)
        for step, index in enumerate(session.progress(session.batches(len(images), config.batch_size))):
            totals += training.step(generator.encode(images[index]), step)
            training.average(epoch * steps + step)
        means = (session.reduce(totals) / (steps * session.world_size)).tolist()
        session.log(dict(zip(training.losses, means, strict=True)), step=epoch + 1)
        session.checkpoint(epoch)
    generator.eval()


class _Training(ABC):
    """The networks and optimisers of one run; a subclass for each family says what a step is."""

    losses: ClassVar[tuple[str, ...]]
    network: nn.Module

    def __init__(self, session: Session, generator: ZooGenerator, config: GeneratorConfig) -> None:
        self.session = session
        self.config = config
        self.generator = generator
        self.trained = copy.deepcopy(generator.network)
        session.prepare(generator.requires_grad_(False).eval())
        self.build(generator.spec, generator.shape, generator.padded_size)
        # Every process began with weights of its own, and data-parallel wrapping has just made them agree.
        generator.network.load_state_dict(self.trained.state_dict())

    @abstractmethod
    def build(self, spec: GeneratorSpec, shape: Shape, size: tuple[int, int]) -> None:
        """Create what is trained besides ``self.trained``, and prepare all of it."""

    def train(self) -> None:
        """Put the trained networks in training mode."""
        self.network.train()

    @abstractmethod
    def step(self, real: Tensor, step: int) -> Tensor:
        """Update the networks on one batch, float [n, C, H, W] in [-1, 1]; return the ``losses``, detached."""

    def prepare(self, network: nn.Module, rate: float) -> tuple[Any, Any]:
        """Prepare a network with its optimiser."""
        optimizer = Adam(network.parameters(), lr=rate, betas=_BETAS)
        return self.session.prepare(network, optimizer)

    def update(self, loss: Tensor, optimizer: Any) -> None:
        """Take one step."""
        self.session.backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    @torch.no_grad()
    def average(self, step: int) -> None:
        """Move the generator towards the trained network: faster at first, while there is little to keep."""
        weight = 1 - min(self.config.averaging, (1 + step) / (10 + step))
        kept, trained = self.generator.network.state_dict(), self.trained.state_dict()
        floats = [name for name, value in kept.items() if value.is_floating_point()]
        torch._foreach_lerp_([kept[name] for name in floats], [trained[name] for name in floats], weight)


class _Adversarial(_Training):
    """A GAN: one update of the discriminator and one of the generator on the same generated images."""

    losses = ("discriminator_loss", "generator_loss")

    def build(self, spec: GeneratorSpec, shape: Shape, size: tuple[int, int]) -> None:
        """Create the discriminator."""
        discriminator = Encoder(shape.channels, size, width=shape.width, outputs=1, spectral_norm=spec.spectral_norm)
        rate = self.config.learning_rate
        self.latent_size = shape.latent_size
        self.hinge = spec.loss == "hinge"
        self.penalty = 0.0 if spec.spectral_norm else self.config.penalty
        self.network, self.optimizer = self.prepare(self.trained, rate)
        self.discriminator, self.discriminator_optimizer = self.prepare(
            discriminator, rate * _SPECTRAL_RATE if spec.spectral_norm else rate
        )

    def train(self) -> None:
        """Put both networks in training mode."""
        super().train()
        self.discriminator.train()

    def step(self, real: Tensor, step: int) -> Tensor:
        """Update the discriminator, then the generator."""
        latent = torch.randn(len(real), self.latent_size, device=real.device)
        with self.session.autocast():
            generated = self.network(latent).clamp(-1, 1)
        first = self._update_discriminator(real, generated.detach(), penalised=step % _PENALTY_EVERY == 0)
        with _frozen(self.session.unwrap(self.discriminator)) as discriminator, self.session.autocast():
            logits = discriminator(generated).float()
        loss = -logits.mean() if self.hinge else functional.softplus(-logits).mean()
        self.update(loss, self.optimizer)
        return torch.stack([first, loss.detach()])

    def _update_discriminator(self, real: Tensor, generated: Tensor, *, penalised: bool) -> Tensor:
        """Update the discriminator and return its loss without the penalty.

        The penalty is the squared gradient on real images (Mescheder et al. 2018), every few steps.
        """
        penalised = penalised and self.penalty > 0
        real.requires_grad_(penalised)
        with self.session.autocast():
            on_real, on_generated = self.discriminator(torch.cat([real, generated])).float().chunk(2)
        if self.hinge:
            loss = functional.relu(1 - on_real).mean() + functional.relu(1 + on_generated).mean()
        else:
            loss = functional.softplus(-on_real).mean() + functional.softplus(on_generated).mean()
        total = loss
        if penalised:
            (gradient,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
            total = loss + self.penalty / 2 * _PENALTY_EVERY * gradient.square().sum(dim=(1, 2, 3)).mean()
        self.update(total, self.discriminator_optimizer)
        return loss.detach()


class _Variational(_Training):
    """A VAE whose decoder variance is the one that fits best (sigma-VAE, Rybkin et al. 2021): nothing to tune."""

    losses = ("squared_error", "divergence")

    def build(self, spec: GeneratorSpec, shape: Shape, size: tuple[int, int]) -> None:
        """Create the encoder."""
        encoder = Encoder(shape.channels, size, width=shape.width, outputs=2 * shape.latent_size)
        self.pixels = shape.channels * size[0] * size[1]
        network = VariationalAutoencoder(encoder, self.trained)
        self.network, self.optimizer = self.prepare(network, self.config.learning_rate)

    def step(self, real: Tensor, step: int) -> Tensor:
        """Take a step on the negative evidence lower bound, in nats for each pixel."""
        with self.session.autocast():
            reconstruction, mean, log_variance = self.network(real)
        error = _residual(reconstruction, real).square().mean()
        mean, log_variance = mean.float(), log_variance.float()
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1).mean() / 2
        # The mean squared error is the best variance, and with it the likelihood is log(error) / 2 a pixel.
        self.update((error + 1e-6).log() / 2 + divergence / self.pixels, self.optimizer)
        return torch.stack([error.detach(), divergence.detach()])


class _Translation(_Training):
    """A translator learns to give back its source without the noise that was added to it [ours]."""

    losses = ("absolute_error",)

    def build(self, spec: GeneratorSpec, shape: Shape, size: tuple[int, int]) -> None:
        """Prepare the one network there is."""
        self.network, self.optimizer = self.prepare(self.trained, self.config.learning_rate)

    def step(self, real: Tensor, step: int) -> Tensor:
        """Take a step on the mean absolute error."""
        with self.session.autocast():
            restored = self.network(real + NOISE * torch.randn_like(real))
        loss = _residual(restored, real).abs().mean()
        self.update(loss, self.optimizer)
        return loss.detach()[None]


_FAMILIES: dict[str, type[_Training]] = {"gan": _Adversarial, "vae": _Variational, "translator": _Translation}


def _residual(outputs: Tensor, real: Tensor) -> Tensor:
    """Return the difference, 0 where an output beyond black or white will be cut to what it should be."""
    outputs = outputs.float()
    return torch.where(outputs.clamp(-1, 1) == real, 0.0, outputs - real)


@contextlib.contextmanager
def _frozen(network: nn.Module) -> Iterator[nn.Module]:
    """Let gradients go through ``network`` to its input, and none to its weights."""
    network.requires_grad_(False)
    try:
        yield network
    finally:
        network.requires_grad_(True)


def _check(count: int, batch_size: int, world_size: int) -> None:
    share = min(batch_size, count) // world_size
    if share < 2:
        raise UserError(
            f"{count} training images in batches of {batch_size} over {world_size} workers leave {share} for a step, "
            "and batch normalisation needs 2: add images or categories, use fewer workers, or a larger batch_size."
        )
