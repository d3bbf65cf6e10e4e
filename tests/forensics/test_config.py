import pytest

from assay.errors import UserError
from assay.forensics import DetectorConfig, DetectorTrainingConfig


def test_options_reach_the_method_that_they_are_for():
    shared = DetectorTrainingConfig.parse({"epochs": 2, "options": {"bihpf": {"pixel": "none"}}}, where="detector")
    assert shared.of_method("bihpf").options == {"pixel": "none"}
    assert shared.of_method("rgb") == DetectorConfig(method="rgb", epochs=2)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"options": {"bihpf": {"pixl": "none"}}}, "options of bihpf.pixl is not a setting"),
        ({"options": {"magic": {}}}, "'magic' is not a detection method: the methods are rgb,"),
        ({"epochs": 0}, "detector.epochs = 0 is not valid"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(values, sentence):
    with pytest.raises(UserError, match=sentence):
        DetectorTrainingConfig.parse(values, where="detector")
