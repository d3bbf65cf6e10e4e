"""Post-hoc calibration: class-wise loss scaling (SCTL), its calibrators and its controls.

Example:
    >>> import numpy as np
    >>> logits, labels = np.array([[4.0, 0.0]] * 4), np.array([0, 0, 0, 1])
    >>> calibrated = TemperatureScaling().fit(logits, labels, ClassWiseLossScaling()).transform(logits)
    >>> bool(calibrated[0, 0] < 4)
    True
"""

from assay.calibration.calibrate import calibrate
from assay.calibration.calibrated import CalibratedClassifier, load_classifier
from assay.calibration.calibrator import Calibrator
from assay.calibration.calibrators import (
    ClassTemperatureScaling,
    EnsembleLogitScaling,
    EnsembleTemperatureScaling,
    MatrixScaling,
    ParameterizedTemperatureScaling,
    TemperatureScaling,
    VectorScaling,
)
from assay.calibration.config import CalibrationConfig
from assay.calibration.evaluate import evaluate
from assay.calibration.losses import (
    LOSSES,
    ClassBalancedCrossEntropy,
    ClassWiseLossScaling,
    FocalLoss,
    LabelSmoothing,
    Loss,
)

__all__ = [
    "LOSSES",
    "CalibratedClassifier",
    "CalibrationConfig",
    "Calibrator",
    "ClassBalancedCrossEntropy",
    "ClassTemperatureScaling",
    "ClassWiseLossScaling",
    "EnsembleLogitScaling",
    "EnsembleTemperatureScaling",
    "FocalLoss",
    "LabelSmoothing",
    "Loss",
    "MatrixScaling",
    "ParameterizedTemperatureScaling",
    "TemperatureScaling",
    "VectorScaling",
    "calibrate",
    "evaluate",
    "load_classifier",
]
