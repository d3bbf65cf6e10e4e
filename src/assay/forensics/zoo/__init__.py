"""The generator zoo: eight small generators that are trained alike and differ in one thing each."""

from assay.forensics.zoo.config import GeneratorConfig
from assay.forensics.zoo.generators import GENERATORS, GeneratorSpec, ZooGenerator
from assay.forensics.zoo.task import train_generator
from assay.forensics.zoo.training import fit_generator

__all__ = ["GENERATORS", "GeneratorConfig", "GeneratorSpec", "ZooGenerator", "fit_generator", "train_generator"]
