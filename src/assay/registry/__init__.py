"""The registry: MLflow runs, registered models without pickle, the gate, promotion, rollback and history."""

from assay.registry.gate import gate
from assay.registry.models import CHAMPION, PREVIOUS_CHAMPION, Lineage, LoadedModel, Registry, Version
from assay.registry.policy import GatePolicy, load_policy
from assay.registry.promotion import Move, history, promote, promote_decided, repair, rollback
from assay.registry.tracking import MlflowTracker, start_run

__all__ = [
    "CHAMPION",
    "PREVIOUS_CHAMPION",
    "GatePolicy",
    "Lineage",
    "LoadedModel",
    "MlflowTracker",
    "Move",
    "Registry",
    "Version",
    "gate",
    "history",
    "load_policy",
    "promote",
    "promote_decided",
    "repair",
    "rollback",
    "start_run",
]
