"""Detection methods: the training-time side of each, by name."""

from collections.abc import Mapping
from types import MappingProxyType

from assay.forensics.methods.base import Method
from assay.forensics.methods.baselines import NPR, RGB, AugmentedRGB, LogSpectrum, RadialSpectrum
from assay.forensics.methods.bihpf import BilateralHighPass
from assay.forensics.methods.fingerprint import Fingerprint
from assay.forensics.methods.frepgan import FrePGAN

METHODS: Mapping[str, type[Method]] = MappingProxyType(
    {
        method.name: method
        for method in (
            RGB,
            AugmentedRGB,
            LogSpectrum,
            RadialSpectrum,
            NPR,
            BilateralHighPass,
            FrePGAN,
            Fingerprint,
        )
    }
)
"""Every method by name: first the baselines, then the published ones."""

__all__ = ["METHODS", "Method"]
