"""The settings of a detector, of its training, and of the data that it is trained on."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from assay.config import Config
from assay.training.session import Precision

TRAINING_GENERATOR = "dcgan"
"""The generator that detectors are trained on unless told otherwise: G1 of the protocol."""


JPEG_QUALITY = 95
"""Of the last encoding of both classes, where that is JPEG."""


class _Training(Config):
    """What all detectors share, so that they differ in their method alone."""

    epochs: int = Field(default=4, ge=1)
    batch_size: int = Field(default=128, ge=4)
    """Images in a step, half of them real."""
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    backbone: str = "resnet-detail"
    precision: Precision = "auto"
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Share of either class that "real" and "generated" are right about; between them a detector is unsure."""


class DetectorConfig(_Training):
    """The settings of one detector: its method, the method's own options, and its training.

    Example:
        >>> DetectorConfig(method="rgb").epochs
        4
        >>> DetectorConfig.parse({"method": "telepathy"}, where="detector")
        Traceback (most recent call last):
        ...
        assay.errors.UserError: detector = {'method': 'telepathy'} is not valid: Value error, ...
    """

    method: str = "npr"
    options: dict[str, Any] = Field(default={})

    @model_validator(mode="after")
    def _options_of_the_method(self) -> Self:
        check_options(self.method, self.options)
        return self


class DetectorTrainingConfig(_Training):
    """The settings that the detectors of one run share, and ``options`` for each method by its name."""

    options: dict[str, dict[str, Any]] = Field(default={})

    @model_validator(mode="after")
    def _options_of_every_method(self) -> Self:
        for method, options in self.options.items():
            check_options(method, options)
        return self

    def of_method(self, method: str) -> DetectorConfig:
        """Return the settings of one method's detector.

        Raises:
            UserError: there is no such method.

        Example:
            >>> DetectorTrainingConfig(options={"bihpf": {"pixel": "none"}}).of_method("bihpf").options
            {'pixel': 'none'}
        """
        shared = self.model_dump(exclude={"options"})
        return DetectorConfig.parse(
            {**shared, "method": method, "options": self.options.get(method, {})}, where="detector"
        )


class DetectionDataConfig(Config):
    """How real and generated images become one data set. Counts are per split: of real, and of each generator.

    ``codec`` is the last encoding, the same for both classes: ``auto`` is JPEG where a real image is one, else
    PNG. Generators that are not in ``train_generators`` stay unseen: they are in validation and test only.
    """

    train_generators: tuple[str, ...] = Field(default=(TRAINING_GENERATOR,), min_length=1)
    train: int = Field(default=4000, ge=2)
    validation: int = Field(default=1000, ge=2)
    calibration: int = Field(default=1000, ge=2)
    test: int = Field(default=1000, ge=2)
    codec: Literal["auto", "png", "jpeg"] = "auto"
    jpeg_quality: int = Field(default=JPEG_QUALITY, ge=1, le=100)


def check_options(method: str, options: dict[str, Any]) -> None:
    """Raise ``ValueError`` unless ``options`` are settings of the method."""
    from assay.errors import UserError
    from assay.forensics.methods import METHODS

    if method not in METHODS:
        raise ValueError(f"{method!r} is not a detection method: the methods are {', '.join(METHODS)}")
    try:
        METHODS[method].Options.parse(options, where=f"options of {method}")
    except UserError as error:
        raise ValueError(str(error).rstrip(".")) from error
