import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.reports.values import Measurement, format_duration, format_value, measurements


@given(st.floats(min_value=1e-12, max_value=1e12))
def test_what_is_printed_is_the_number_to_a_thousandth(number):
    for sign, mark in ((1, ""), (-1, "−")):
        text = format_value(sign * number)
        assert text.startswith(mark)
        assert float(text.removeprefix(mark).replace(",", "")) == pytest.approx(number, rel=6e-3)


def test_an_interval_is_joined_to_its_value_and_nothing_else_is_lost():
    found = measurements({"ece": 0.03, "ece_low": 0.02, "ece_high": 0.04, "loss_low": 1, "n": 7, "kind": "TS"})
    assert found == [
        Measurement("ece", 0.03, 0.02, 0.04),
        Measurement("loss_low", 1),
        Measurement("n", 7),
        Measurement("kind", "TS"),
    ]


def test_the_ends_have_the_decimals_of_the_value():
    assert str(Measurement("accuracy", 0.9, 0.88512345, 0.91)) == "0.9000 [0.8851, 0.9100]"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"), (3599.6, "1 h 00 min")]
)
def test_durations_carry_over(seconds, text):
    assert format_duration(seconds) == text
