"""What is refused as predictions, and how it is said."""

import numpy as np
import pytest

from assay.errors import UserError
from assay.evaluation.metric import check_predictions

GOOD = np.array([[0.5, 0.5], [0.1, 0.9]])


@pytest.mark.parametrize(
    ("probabilities", "labels", "sentence"),
    [
        (np.empty((0, 2)), np.empty(0, int), "shape [0, 2]"),
        (GOOD, np.array([0]), "labels have shape [1]"),
        (GOOD, np.array([0.0, 1.0]), "labels are float64"),
        (GOOD, np.array([0, 2]), "Label 2 in row 1 is not one of the 2 columns"),
        (GOOD, np.array([-1, 0]), "Label -1 in row 0"),
        (np.array([[0.5, 0.5], [np.nan, 1.0]]), np.array([0, 1]), "Row 1 of the probabilities"),
        (np.array([[1.5, -0.5], [0.5, 0.5]]), np.array([0, 1]), "Row 0 of the probabilities"),
        (np.array([[0.5, 0.5], [0.5, 0.6]]), np.array([0, 1]), "Row 1 of the probabilities sums to 1.1"),
    ],
)
def test_bad_predictions_end_in_a_sentence_that_names_the_row(probabilities, labels, sentence):
    with pytest.raises(UserError, match=sentence.replace("[", r"\[").replace("]", r"\]")):
        check_predictions(probabilities, labels)
