"""The settings of an evaluation."""

from typing import Annotated, Literal

from pydantic import Field

from assay.config import Config


class EvaluationConfig(Config):
    """What is measured, on which split, and how the intervals are made.

    Attributes:
        split: the split that is scored.
        replicates: bootstrap replicates of every interval.
        confidence: coverage of every interval.
        seed: of the resampling.
        worst: how many of the most confident errors are shown.
        slice_values: a column with at most this many values makes one slice for each.
        brightness_slices: how many equal parts the images are cut into by brightness; 0 for none.
        batch_size: images that go through the model at a time.

    Example:
        >>> EvaluationConfig.parse({"replicates": 200}, where="evaluation").split
        'test'
    """

    split: Literal["train", "validation", "calibration", "test"] = "test"
    replicates: Annotated[int, Field(ge=2, le=100_000)] = 1000
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    seed: Annotated[int, Field(ge=0)] = 0
    worst: Annotated[int, Field(ge=0, le=200)] = 24
    slice_values: Annotated[int, Field(ge=2)] = 12
    brightness_slices: Annotated[int, Field(ge=0, le=20)] = 4
    batch_size: Annotated[int, Field(ge=1)] = 512
