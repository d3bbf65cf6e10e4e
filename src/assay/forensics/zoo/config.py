"""The settings of a generator's training, and of what it is asked to make."""

from typing import Annotated, Literal

from pydantic import Field

from assay.config import Config

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class GeneratorConfig(Config):
    """How a generator is trained, and what it makes.

    The defaults [ours] suit Fashion-MNIST and about a minute on one core; colour photographs want more epochs.

    Attributes:
        epochs: passes over the training images.
        batch_size: images in a step, over all workers together.
        learning_rate: of Adam, for every network; the discriminator with spectral normalisation takes four
            times as much, because it can only change slowly.
        width: channels before the last up-sampling; each one before it has twice as many.
        latent_size: numbers that an image is made from.
        averaging: decay of the moving average of the weights, which is the generator that is kept.
        penalty: weight of the gradient penalty on real images, for the discriminators without spectral
            normalisation.
        limit: at most this many training images.
        categories: train on these classes only; default: all.
        train: images to generate for this split.
        validation: images to generate for this split.
        calibration: images to generate for this split.
        test: images to generate for this split.
        minimum_diversity: below this, relative to real images, a generator counts as collapsed.
        precision: ``auto`` is bfloat16 on CUDA and float32 elsewhere.

    Example:
        >>> GeneratorConfig.parse({"epochs": 3, "categories": ["Sneaker"]}, where="generator").categories
        ['Sneaker']
    """

    epochs: Annotated[int, Field(ge=1)] = 5
    batch_size: Annotated[int, Field(ge=2)] = 32
    learning_rate: Positive = 1e-3
    width: Annotated[int, Field(ge=1)] = 24
    latent_size: Annotated[int, Field(ge=1)] = 64
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.99
    penalty: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.3
    limit: Annotated[int, Field(ge=2)] = 8000
    categories: list[str] | None = None
    train: Count = 4000
    validation: Count = 1000
    calibration: Count = 1000
    test: Count = 1000
    minimum_diversity: Annotated[float, Field(ge=0, le=1)] = 0.3
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
