"""Backbones and the classifier that is built on them."""

from assay.models.backbones import create_backbone
from assay.models.classifier import ImageClassifier

__all__ = ["ImageClassifier", "create_backbone"]
