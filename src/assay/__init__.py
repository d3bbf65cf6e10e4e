"""Assay: train, calibrate, test and promote vision models that can be trusted.

Importing this package loads nothing heavy; import the room you need, for example
``from assay.calibration import TemperatureScaling``.
"""

__version__ = "0.1.0"
