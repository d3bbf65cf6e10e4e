"""The ``evaluation`` task: score a model folder, calibrated or plain, on a data set artifact."""

from pathlib import Path
from typing import Any

from assay.calibration.calibrated import load_classifier
from assay.classification import predict_logits
from assay.evaluation.config import EvaluationConfig
from assay.evaluation.evaluate import evaluate_classifier


def evaluate(
    dataset: Path, model: Path, config: dict[str, Any], *, predictions: Path, report: Path, metrics: Path
) -> dict[str, float]:
    """Measure what a model knows about one split, and how far its confidence can be believed.

    Args:
        dataset: data set artifact.
        model: folder of a calibrated classifier, or of a plain one (then a softmax follows).
        config: settings of :class:`assay.evaluation.EvaluationConfig`.
        predictions: file for ``sample_ids``, ``labels``, ``probabilities`` and ``class_names``, as npz.
        report: file for the HTML page.
        metrics: file for the returned metrics, as JSON.

    Returns:
        Every metric with ``<name>_low`` and ``<name>_high``, and the worst class and slice.

    Raises:
        UserError: a setting, the data or the model are not valid, or they do not fit each other.
    """
    settings = EvaluationConfig.parse(config, where="evaluation")
    classifier = load_classifier(model)
    return evaluate_classifier(
        dataset,
        lambda images: predict_logits(classifier, images, settings.batch_size).numpy(),
        settings,
        predictions=predictions,
        report=report,
        metrics=metrics,
    )
