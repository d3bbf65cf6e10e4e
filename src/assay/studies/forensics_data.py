"""The images of the forensics study: real ones drawn for every seed, and those of the generators."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assay.data import SPLITS, ImageDataset, codec
from assay.errors import AssayError, UserError
from assay.evaluation.metric import Array
from assay.files import tree_digest
from assay.forensics.config import TRAINING_GENERATOR, DetectorConfig
from assay.forensics.corpus import Codec, codec_of, encode_alike
from assay.forensics.halves import generator_half
from assay.forensics.zoo import GENERATORS, GeneratorConfig, fit_generator
from assay.studies.cells import Cells

GENERATOR_POOL = "generators"
"""The half of the train split that generators learn from; detectors never see it."""

_VERSION = 1
_ATTEMPTS = 3
_ENCODED_AT_ONCE = 512


@dataclass(frozen=True)
class Design:
    """The sizes of the study; all arms have the same images and the same number of steps.

    Attributes:
        generator_seeds: trainings of every generator; each has its own draw of real images.
        detector_seeds: trainings of every detector on the images of one generator seed.
        train: real images, and as many generated ones, that a detector is trained on.
        held_out: of each class, to choose the threshold on; and as many again to calibrate on.
        test: real images, and as many of every generator.
        shifted: of these, real and of the seen generator, that are scored in other colours.
        generator_images: real images that a generator learns from.
        categories: numbers of categories trained on where the category shifts.
        category_train: like ``train``, where the category shifts.
        generators: those that are tested on; the first is the one trained on.
        generator: settings of every generator.
        detector: settings of every detector; method and options are the arm's.
    """

    generator_seeds: int = 3
    detector_seeds: int = 2
    train: int = 3000
    held_out: int = 500
    test: int = 1000
    shifted: int = 500
    generator_images: int = 8000
    categories: tuple[int, ...] = (1, 2, 4)
    category_train: int = 1500
    generators: tuple[str, ...] = tuple(GENERATORS)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    detector: DetectorConfig = field(default_factory=lambda: DetectorConfig(epochs=3))

    def describe(self) -> dict[str, Any]:
        """Return the design as JSON values, for the record."""
        return asdict(self) | {
            "categories": list(self.categories),
            "generators": list(self.generators),
            "generator": self.generator.model_dump(),
            "detector": self.detector.model_dump(exclude={"method", "options"}),
        }


@dataclass(frozen=True)
class Source:
    """Real images by pool, uint8 [N, C, H, W], and their labels [N].

    Attributes:
        name: of the data set.
        revision: changes with its content.
        codec: of the one encoding that real and generated images go through.
        images: for `GENERATOR_POOL` and every split.
        labels: the same.
    """

    name: str
    revision: str
    codec: Codec
    images: dict[str, Tensor]
    labels: dict[str, Array]

    @property
    def num_classes(self) -> int:
        """K."""
        return int(self.labels[GENERATOR_POOL].max()) + 1


def load_digits() -> Source:
    """Return scikit-learn's 1,797 digits, 8 x 8."""
    from sklearn import datasets

    bunch = datasets.load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    parts = np.split(np.random.default_rng(0).permutation(len(images)), [700, 1200, 1350, 1500])
    names = (GENERATOR_POOL, *SPLITS)
    return Source(
        name="digits",
        revision="scikit-learn",
        codec="png",
        images={name: torch.from_numpy(images[rows]).unsqueeze(1) for name, rows in zip(names, parts, strict=True)},
        labels={name: bunch.target[rows].astype(np.int64) for name, rows in zip(names, parts, strict=True)},
    )


def load_source(artifact: Path) -> Source:
    """Read a data set artifact; half of its train split is for generators.

    Raises:
        UserError: it is not an artifact, or lacks one of the four splits.
    """
    dataset = ImageDataset.open(artifact)
    splits = {name: dataset.split(name) for name in SPLITS}
    half = generator_half(splits["train"].sample_ids)
    images = {name: split.images for name, split in splits.items()}
    labels = {name: split.labels.numpy() for name, split in splits.items()}
    images[GENERATOR_POOL], images["train"] = images["train"][half], images["train"][~half]
    labels[GENERATOR_POOL], labels["train"] = labels["train"][half], labels["train"][~half]
    return Source(
        name=dataset.info.name,
        revision=dataset.info.content_hash or tree_digest(artifact),
        codec=codec_of(dataset),
        images=images,
        labels=labels,
    )


@dataclass(frozen=True)
class Bench:
    """Where every image of the study is found, from any process: the cells, and what names the data in them.

    Attributes:
        cells: keep all images.
        data: name and revision of the source.
        codec: of the source.
        design: the sizes.
    """

    cells: Cells
    data: tuple[str, str]
    codec: Codec
    design: Design

    def real(
        self, seed: int, categories: Sequence[int] | None = None, source: Source | None = None
    ) -> dict[str, Tensor]:
        """Return the real images of a generator seed by pool, drawn from the source unless they were before.

        Args:
            seed: of the generators.
            categories: labels to draw from; default: all.
            source: needed the first time.

        Raises:
            UserError: the source has too few images.
        """
        wanted = self._sizes(categories)
        settings = {"cell": "real", **self._common(seed, categories), "sizes": wanted}
        arrays = self.cells.arrays(settings, partial(_draw, source, wanted, seed, categories, self.codec))
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def generated_settings(self, name: str, seed: int, categories: Sequence[int] | None = None) -> dict[str, Any]:
        """Return what a generator's images depend on."""
        return {
            "cell": "generated",
            **self._common(seed, categories),
            "generator": name,
            "config": self.design.generator.model_dump(),
            "sizes": self._sizes(categories),
        }

    def generated(self, name: str, seed: int, categories: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Return a generator's images by split, training it unless it was before.

        The generator that detectors are trained on has images for every split, the others for the test only.

        Raises:
            AssayError: it could not be trained with any seed that was tried.
        """
        settings = self.generated_settings(name, seed, categories)
        arrays = self.cells.arrays(settings, partial(self._generate, name, seed, categories))
        return {split: torch.from_numpy(array) for split, array in arrays.items() if split in SPLITS}

    def attempts(self, name: str, seed: int) -> int:
        """Return how many trainings a generator took until one did not collapse."""
        settings = self.generated_settings(name, seed)
        return int(self.cells.arrays(settings, partial(self._generate, name, seed, None))["attempts"])

    def _common(self, seed: int, categories: Sequence[int] | None) -> dict[str, Any]:
        name, revision = self.data
        chosen = None if categories is None else sorted(categories)
        return {"data": name, "revision": revision, "seed": seed, "categories": chosen, "version": _VERSION}

    def _sizes(self, categories: Sequence[int] | None) -> dict[str, int]:
        design = self.design
        train = design.train if categories is None else design.category_train
        held_out = {"validation": design.held_out, "calibration": design.held_out}
        return {GENERATOR_POOL: design.generator_images, "train": train, **held_out, "test": design.test}

    def _generate(self, name: str, seed: int, categories: Sequence[int] | None) -> dict[str, Array]:
        real = self.real(seed, categories)
        pool, config = real[GENERATOR_POOL], self.design.generator
        # As many steps on few categories, which have fewer images.
        epochs = round(config.epochs * self.design.generator_images / len(pool))
        generator, attempts = _fit_until_sound(name, pool, config.model_copy(update={"epochs": epochs}), seed)
        splits = SPLITS if name == TRAINING_GENERATOR else ("test",)
        images = {
            split: generator.sample(len(real[split]), seed=1000 * seed + SPLITS.index(split), sources=real[split])
            for split in splits
        }
        arrays = {split: encode_and_decode(sample, self.codec).numpy() for split, sample in images.items()}
        return arrays | {"attempts": np.array(attempts)}


def category_sets(classes: int, numbers: Sequence[int], seed: int) -> tuple[dict[int, list[int]], list[int]]:
    """Return, for each number, that many categories to train on, and those to test on, which nobody trains on.

    The smaller sets are part of the larger ones; which categories they hold depends on the seed.

    Raises:
        UserError: no category is left to test on.

    Example:
        >>> trained, tested = category_sets(5, [1, 2], seed=0)
        >>> trained, tested
        ({1: [2], 2: [2, 4]}, [3, 0, 1])
    """
    order = np.random.default_rng(seed).permutation(classes).tolist()
    if max(numbers) >= classes:
        raise UserError(f"{classes} categories leave none to test on when {max(numbers)} are trained on: use more.")
    return {number: order[:number] for number in numbers}, order[max(numbers) :]


def encode_and_decode(images: Tensor, encoding: Codec) -> Tensor:
    """Return images uint8 [N, C, H, W] after the one encoding that both classes go through."""
    if encoding == "png":  # lossless
        return images
    channels, size = images.shape[1], (images.shape[2], images.shape[3])
    parts = [
        codec.decode_all(encode_alike(part.numpy(), encoding), channels, size)[0]
        for part in images.split(_ENCODED_AT_ONCE)
    ]
    return torch.from_numpy(np.concatenate(parts))


def _draw(
    source: Source | None, wanted: dict[str, int], seed: int, categories: Sequence[int] | None, encoding: Codec
) -> dict[str, Array]:
    if source is None:
        raise AssayError(f"The real images of seed {seed} were never drawn.")
    drawn = {}
    for index, (pool, count) in enumerate(wanted.items()):
        labels = source.labels[pool]
        rows = np.arange(len(labels)) if categories is None else np.flatnonzero(np.isin(labels, categories))
        # The small pools of a single category may hold fewer images than all categories together.
        count = min(count, len(rows)) if pool != "train" else count
        if len(rows) < max(count, 2):
            raise UserError(
                f"{source.name} has {len(rows)} images for {pool!r} and the study needs {max(count, 2)}: use more data."
            )
        chosen = np.random.default_rng([seed, index]).permutation(rows)[:count]
        images = source.images[pool][chosen]
        drawn[pool] = (images if pool == GENERATOR_POOL else encode_and_decode(images, encoding)).numpy()
    return drawn


def _fit_until_sound(name: str, images: Tensor, config: GeneratorConfig, seed: int) -> tuple[Any, int]:
    """Train a generator, with another seed after a collapse; return it with the number of trainings."""
    for attempt in range(_ATTEMPTS):
        try:
            return fit_generator(name, images, config, seed=seed + 1000 * attempt), attempt + 1
        except UserError as error:
            reason = error
    raise AssayError(f"The generator {name!r} could not be trained with {_ATTEMPTS} seeds: {reason}") from reason
