"""Training of an image classifier: the step that every later one starts from."""

from assay.classification.config import ClassificationConfig
from assay.classification.predict import predict_logits
from assay.classification.pretrain import pretrain
from assay.classification.train import train_classifier

__all__ = ["ClassificationConfig", "predict_logits", "pretrain", "train_classifier"]
