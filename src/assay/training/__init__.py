"""What a training loop needs beyond PyTorch: the Session, and launching it here or on Ray."""

from assay.training.launch import TrainingResult, checkpoint_storage, forget, launch, run_name
from assay.training.session import Session, Tracker
from assay.training.travel import DataFolder

__all__ = ["DataFolder", "Session", "Tracker", "TrainingResult", "checkpoint_storage", "forget", "launch", "run_name"]
