"""The base of every configuration model: unknown keys are refused, and errors are one sentence."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from assay.errors import UserError


class Config(BaseModel):
    """Immutable settings of one component, parsed from the ``config`` dictionary that a pipeline passes.

    Example:
        >>> class Training(Config):
        ...     epochs: int = 3
        >>> Training.parse({"epochs": 5.0}, where="training").epochs
        5
        >>> Training.parse({"epoch": 5}, where="training")
        Traceback (most recent call last):
        ...
        assay.errors.UserError: training.epoch is not a setting: the settings of training are epochs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str) -> Self:
        """Check ``values``; ``where`` is the name of the parameter that the user typed.

        Raises:
            UserError: a key is unknown, or a value has the wrong type or range.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join([where, *map(str, first["loc"])])
            if first["type"] == "extra_forbidden":
                known = ", ".join(cls.model_fields)
                raise UserError(f"{key} is not a setting: the settings of {where} are {known}.") from error
            raise UserError(f"{key} = {first.get('input')!r} is not valid: {first['msg']}.") from error
