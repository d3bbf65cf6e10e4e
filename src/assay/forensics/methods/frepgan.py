"""FrePGAN: a detector trained while a generator of perturbations hides what the spectrum gives away."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from assay.config import Config
from assay.errors import AssayError
from assay.forensics.filters import FrequencyFilter
from assay.forensics.methods.base import Method
from assay.forensics.perturbation import (
    ADAM_BETAS,
    Adversary,
    FrequencyPerturbation,
    MatchedNoise,
    Measured,
    Perturbed,
    PixelPerturbation,
)
from assay.forensics.pictures import MOST_IMAGES, Row, draw_rows, transformed
from assay.training import Session

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class FrePGANOptions(Config):
    """FrePGAN, and the arms that it is compared with.

    Attributes:
        arm: ``alternating`` is the method: perturbation, discriminator and detector learn in turns. ``frozen``
            trains the perturbation first and the detector after it; ``noise`` adds noise as strong as the
            perturbation instead of it; ``low-pass`` cuts high frequencies off; ``none`` changes nothing.
        domain: what the perturbation is computed from.
        discriminator_input: the generated image with its perturbation, or the perturbation alone; the paper can
            be read either way.
        penalty: weight of the perturbation's mean square, lambda.
        perturbation_learning_rate: of Adam for the perturbation.
        discriminator_learning_rate: of Adam for the discriminator.
        width: channels of the perturbation's network at full resolution, and of the discriminator's first layer.
        pretraining_epochs: of the perturbation, in the arm ``frozen`` only.
        cutoff: of the arm ``low-pass``, in cycles per pixel; an axis ends at 0.5.

    Example:
        >>> FrePGANOptions.parse({"arm": "noise"}, where="options of frepgan").domain
        'frequency'
    """

    arm: Literal["alternating", "frozen", "noise", "low-pass", "none"] = "alternating"
    domain: Literal["frequency", "pixel"] = "frequency"
    discriminator_input: Literal["perturbed", "perturbation"] = "perturbed"
    penalty: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    perturbation_learning_rate: Positive = 1e-3
    discriminator_learning_rate: Positive = 1e-3
    width: Annotated[int, Field(ge=1)] = 16
    pretraining_epochs: Annotated[int, Field(ge=1)] = 2
    cutoff: Annotated[float, Field(gt=0, le=0.71)] = 0.25


class FrePGAN(Method):
    """Alternating updates of a perturbation G, a discriminator D and the detector C [Jeong et al., AAAI 2022].

    In every step, with labels 0 for real and 1 for generated, and A(x) = x + G(x):

    - D learns ``BCE(D(x_real), 0) + BCE(D(A(x_generated)), 1)``;
    - G learns ``BCE(D(A(x_generated)), 0) + penalty * mean(G(x_generated)^2)``;
    - C learns ``BCE(C(A(x)), y)`` on real and generated images, and nothing of it reaches G.

    The structure is the paper's, the losses are our reading of it. G gives 0 at first, so that C sees the raw
    artefacts before they are hidden.

    Example:
        >>> method = FrePGAN(FrePGANOptions(), channels=1, image_size=(28, 28))
        >>> images = torch.rand(2, 1, 28, 28)
        >>> torch.equal(method.transform(images), images)
        True
    """

    name: ClassVar[str] = "frepgan"
    title: ClassVar[str] = "FrePGAN"
    Options: ClassVar[type[Config]] = FrePGANOptions
    options: FrePGANOptions

    def __init__(self, options: FrePGANOptions, *, channels: int, image_size: tuple[int, int]) -> None:
        super().__init__(options, channels=channels, image_size=image_size)
        kind = FrequencyPerturbation if options.domain == "frequency" else PixelPerturbation
        self.perturbation = kind(channels, options.width)
        self.adversary = Adversary(channels, options.width, options.discriminator_learning_rate)
        self.noise = MatchedNoise(channels, image_size) if options.arm == "noise" else None
        self.pretraining_epochs = options.pretraining_epochs if options.arm == "frozen" else 0
        self.transform = self._transform()

    def _transform(self) -> nn.Module:
        if self.options.arm == "none":
            return nn.Identity()
        if self.options.arm == "low-pass":
            return FrequencyFilter(self.image_size, self.options.cutoff, low_pass=True)
        return self.noise or Perturbed(self.perturbation)

    def prepare(self, session: Session) -> None:
        """Hand perturbation, its optimiser and the adversary to the session, where the arm trains them."""
        self.transform.to(session.device)
        if self.options.arm in ("low-pass", "none"):
            return
        optimizer = torch.optim.Adam(
            self.perturbation.parameters(), lr=self.options.perturbation_learning_rate, betas=ADAM_BETAS
        )
        trained = self.perturbation if self.noise is None else Measured(self.perturbation, self.noise)
        self._perturb, self._optimizer = session.prepare(trained, optimizer)
        self.adversary.prepare(session)

    def pretraining_step(self, session: Session, real: Tensor, generated: Tensor | None) -> None:
        """Let the discriminator take a step, then the perturbation."""
        self._alternate(session, real, generated)

    def training_batch(self, session: Session, real: Tensor, generated: Tensor | None) -> tuple[Tensor, Tensor]:
        """Let discriminator and perturbation take a step where the arm says so; return the transformed batch."""
        if self.options.arm in ("alternating", "noise"):
            self._alternate(session, real, generated)
        return super().training_batch(session, real, generated)

    def _alternate(self, session: Session, real: Tensor, generated: Tensor | None) -> None:
        if generated is None:
            raise AssayError("FrePGAN was given no generated images to hide the traces of.")
        perturbation = self._perturb(generated)
        shown = perturbation if self.options.discriminator_input == "perturbation" else generated + perturbation
        self.adversary.learn(session, real, shown)
        penalty = self.options.penalty * perturbation.square().mean()
        session.backward(self.adversary.loss(shown) + penalty)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def figures(self, real: Tensor, generated: Tensor | None) -> "dict[str, Figure]":
        """Return images, what is added to them, their sum, and the mean spectrum of each."""
        if self.options.arm == "none":
            return {}
        rows = []
        for kind, images in (("real", real), ("generated", generated)):
            if images is not None:
                before, after = transformed(self.transform, images[:MOST_IMAGES].float() / 255)
                rows += [Row(kind, before), Row(f"added to {kind}", after - before, signed=True), Row("sum", after)]
        return {"What FrePGAN adds to images before the detector sees them.": draw_rows(rows)}
