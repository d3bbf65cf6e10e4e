import math

import pytest

from assay.classification import ClassificationConfig
from assay.errors import UserError


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"epoch": 3},
            r"training.epoch is not a setting: the settings of training are backbone, epochs",
        ),
        ({"learning_rate": math.nan}, "training.learning_rate = nan is not valid"),
        ({"learning_rate": math.inf}, "training.learning_rate = inf is not valid"),
        ({"learning_rate": 0}, "training.learning_rate = 0 is not valid"),
        ({"epochs": 2.5}, "training.epochs = 2.5 is not valid"),
        ({"optimizer": "lion"}, "training.optimizer = 'lion' is not valid"),
        ({"horizontal_flip": 1.5}, "training.horizontal_flip = 1.5 is not valid"),
    ],
)
def test_bad_settings_are_named(values, sentence):
    with pytest.raises(UserError, match=sentence):
        ClassificationConfig.parse(values, where="training")


def test_whole_numbers_that_arrive_as_floats_are_taken():
    assert ClassificationConfig.parse({"epochs": 2.0}, where="training").epochs == 2
