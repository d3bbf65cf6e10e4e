"""The settings of classifier training."""

from typing import Annotated, Literal

from pydantic import Field

from assay.config import Config

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1)]


class ClassificationConfig(Config):
    """How an image classifier is trained; the defaults suit small grey or colour images.

    Attributes:
        backbone: a name of `assay.models.backbones.BACKBONES`, a hub id, or a local model folder.
        epochs: passes over the training split.
        batch_size: images in a step, over all workers together.
        optimizer: SGD with Nesterov momentum 0.9, or AdamW.
        learning_rate: the peak of a one-cycle schedule.
        weight_decay: of weights, not of biases and normalisation.
        label_smoothing: probability given to all classes alike.
        horizontal_flip: probability of mirroring an image; 0 where left and right have a meaning.
        shift: largest random translation in pixels, either way; zeros come in.
        erasing: probability of erasing a random rectangle.
        precision: ``auto`` is bfloat16 on CUDA and float32 elsewhere.
        stream: whether Ray workers read the training split from the disk in every epoch instead of decoding it
            into memory; ``auto``: where it would need more than 2 GiB.

    Example:
        >>> ClassificationConfig.parse({"epochs": 3}, where="training").epochs
        3
    """

    backbone: str = "resnet-small"
    epochs: Annotated[int, Field(ge=1)] = 8
    batch_size: Annotated[int, Field(ge=2)] = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Positive = 0.2
    weight_decay: NonNegative = 5e-4
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    horizontal_flip: Probability = 0.5
    shift: Annotated[int, Field(ge=0)] = 0
    erasing: Probability = 0.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    stream: Literal["auto"] | bool = "auto"
