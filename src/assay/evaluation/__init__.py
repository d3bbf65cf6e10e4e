"""Metrics with intervals, and the comparison of two models on the same samples."""

from assay.evaluation.bootstrap import Estimate, evaluate_predictions
from assay.evaluation.comparison import Replicates, compare_predictions, replicate_over_seeds
from assay.evaluation.config import EvaluationConfig
from assay.evaluation.evaluate import evaluate_classifier, write_predictions
from assay.evaluation.metric import Metric
from assay.evaluation.metrics import ALL_METRICS, METRICS, ReliabilityBins, metrics_for, reliability_bins

__all__ = [
    "ALL_METRICS",
    "METRICS",
    "Estimate",
    "EvaluationConfig",
    "Metric",
    "ReliabilityBins",
    "Replicates",
    "compare_predictions",
    "evaluate_classifier",
    "evaluate_predictions",
    "metrics_for",
    "reliability_bins",
    "replicate_over_seeds",
    "write_predictions",
]
