"""Metrics with intervals, and the comparison of two models on the same samples."""

from assay.evaluation.bootstrap import Estimate, evaluate_predictions
from assay.evaluation.comparison import Replicates, compare_predictions, replicate_over_seeds
from assay.evaluation.config import EvaluationConfig
from assay.evaluation.evaluate import evaluate_classifier
from assay.evaluation.metric import Metric
from assay.evaluation.metrics import METRICS, ReliabilityBins, reliability_bins

__all__ = [
    "METRICS",
    "Estimate",
    "EvaluationConfig",
    "Metric",
    "ReliabilityBins",
    "Replicates",
    "compare_predictions",
    "evaluate_classifier",
    "evaluate_predictions",
    "reliability_bins",
    "replicate_over_seeds",
]
