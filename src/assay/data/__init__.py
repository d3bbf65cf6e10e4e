"""Data sets: the artifact format, where data comes from, importing it, and validating it."""

from assay.data.dataset import SPLITS, DatasetInfo, ImageDataset, Split
from assay.data.importing import ImportConfig, import_data, import_dataset
from assay.data.suite import ValidationConfig
from assay.data.validation import validate
from assay.data.writer import write_dataset

__all__ = [
    "SPLITS",
    "DatasetInfo",
    "ImageDataset",
    "ImportConfig",
    "Split",
    "ValidationConfig",
    "import_data",
    "import_dataset",
    "validate",
    "write_dataset",
]
