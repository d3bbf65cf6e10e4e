"""Telling generated images from real ones: FrePGAN, artificial fingerprints, BiHPF, and what they must beat."""

from assay.forensics.config import DetectionDataConfig, DetectorConfig, DetectorTrainingConfig
from assay.forensics.corpus import DetectionSplit, assemble_detection_data
from assay.forensics.decision import Decision
from assay.forensics.detector import Detector
from assay.forensics.detector_training import train_detector
from assay.forensics.evaluate import DetectionEvaluationConfig, evaluate_detectors
from assay.forensics.integrity import IntegrityConfig, check_integrity
from assay.forensics.train import fit_detector

__all__ = [
    "Decision",
    "DetectionDataConfig",
    "DetectionEvaluationConfig",
    "DetectionSplit",
    "Detector",
    "DetectorConfig",
    "DetectorTrainingConfig",
    "IntegrityConfig",
    "assemble_detection_data",
    "check_integrity",
    "evaluate_detectors",
    "fit_detector",
    "train_detector",
]
