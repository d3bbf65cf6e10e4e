"""What a training loop needs beyond PyTorch: the Session, and launching it here or on Ray."""

from assay.training.launch import TrainingResult, checkpoint_storage, forget, launch, run_name
from assay.training.session import Session, Tracker

__all__ = ["Session", "Tracker", "TrainingResult", "checkpoint_storage", "forget", "launch", "run_name"]
