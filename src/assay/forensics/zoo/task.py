"""The ``generator_training`` task: from a data set artifact to a generator and the images that it makes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assay.classification.pretrain import Splits
from assay.data import SPLITS, Split, write_dataset
from assay.errors import UserError
from assay.files import write_json
from assay.forensics.halves import generator_half
from assay.forensics.zoo.config import GeneratorConfig
from assay.forensics.zoo.generators import ZooGenerator, find_spec
from assay.forensics.zoo.quality import draw_spectra, image_grid, measure_quality, nearest_real, refuse_collapse
from assay.forensics.zoo.training import create_generator, fit
from assay.registry.tracking import track_step
from assay.training import Session, checkpoint_storage, forget, launch, run_name

_GRID = 12
_MOST = 1000
_FEWEST = 8


def train_generator(
    dataset: Path,
    name: str,
    config: dict[str, Any],
    *,
    model: Path,
    images: Path,
    report: Path,
    metrics: Path,
    seed: int = 0,
    workers: int = 0,
) -> dict[str, float]:
    """Train a generator on its half of the ``train`` split and write images that it makes.

    Checkpoints are kept in the project's state while it runs, under a name made from the settings, the data
    and the seed: the same call after a crash goes on from the last epoch. A translator's images of a split are
    made from that split's real images; for ``train``, from those that it learned from.

    Args:
        dataset: data set artifact of real images.
        name: a key of `GENERATORS`.
        config: settings of `GeneratorConfig`.
        model: written; folder of the `ZooGenerator`.
        images: written; data set artifact of the generated images, with the columns ``generator`` and
            ``category``, which is empty where no single class is known.
        report: written; HTML with samples, spectra, nearest real images and the training curves.
        metrics: written; the returned metrics, as JSON.
        seed: of the weights, the order, the noise and the images.
        workers: 0 trains in this process; n on n Ray workers.

    Raises:
        UserError: the data or a setting is not valid, the loss diverged, or the generator collapsed.
    """
    spec = find_spec(name)
    settings = GeneratorConfig.parse(config, where="generator")
    splits = Splits(Path(dataset))
    real = training_split(splits, settings)
    run = run_name(f"generator-{name}", settings.model_dump(), splits.info.content_hash, seed)
    storage = checkpoint_storage()
    params = settings.model_dump() | {"generator": name, "seed": seed}
    with track_step(f"generator_training {name}", params) as tracker:
        result = launch(
            _train,
            {"splits": splits, "name": name, "settings": settings},
            storage=storage,
            name=run,
            workers=workers,
            seed=seed,
            precision=settings.precision,
            tracker=tracker,
        )
    generator = create_generator(name, real.images, settings)
    result.load(generator)
    forget(storage, run)

    made, quality = judge(generator, real.images, seed)
    refuse_collapse(name, quality, settings.minimum_diversity)
    last = {key: value for key, value in result.history[-1].items() if key != "step"}
    summary = {"epochs": result.history[-1]["step"], **last, **quality}
    generator.save_pretrained(model)
    write_images(images, generator, splits, real, settings, seed=seed, prefix=run.removeprefix("generator-"))
    subtitle = f"{spec.label} {name}: {spec.title}, on {splits.info.name}"
    write_report(report, result.history, summary, made, real.images, subtitle=subtitle)
    write_json(metrics, summary)
    return summary


def _train(session: Session, config: dict[str, Any]) -> None:
    """Train inside a session; what `launch` calls, here or in a Ray worker."""
    real = training_split(config["splits"], config["settings"])
    fit(session, create_generator(config["name"], real.images, config["settings"]), real.images, config["settings"])


def training_split(splits: Splits, settings: GeneratorConfig) -> Split:
    """Return the real images that a generator learns from: its half, of its categories, in a fixed random order.

    Raises:
        UserError: a category is unknown, or hardly an image is left.
    """
    train = _of_categories(splits, "train", settings)
    rows = np.flatnonzero(generator_half(train.sample_ids))
    if len(rows) < _FEWEST:
        raise UserError(
            f"{splits.info.name} has {len(rows)} images to train a generator on, half of what "
            f"{' and '.join(settings.categories or ['its train split'])} holds, and at least {_FEWEST} are needed: "
            "add images."
        )
    # A data set may be sorted by class.
    return _take(train, np.random.default_rng(0).permutation(rows)[: settings.limit])


def judge(generator: ZooGenerator, real: Tensor, seed: int) -> tuple[Tensor, dict[str, float]]:
    """Return images for the report, and the `measure_quality` of them.

    A translator's images are compared with real ones that are not their sources: those are near by design.
    """
    if generator.spec.family == "translator":
        count = min(_MOST, len(real) // 2)
        made = generator.sample(count, seed=seed, sources=real[:count])
        return made, measure_quality(made, real[count:])
    made = generator.sample(_MOST, seed=seed)
    return made, measure_quality(made, real)


def write_images(
    path: Path,
    generator: ZooGenerator,
    splits: Splits,
    real: Split,
    settings: GeneratorConfig,
    *,
    seed: int,
    prefix: str,
) -> None:
    """Write the generated images of every split as a data set artifact.

    Args:
        path: of the artifact.
        generator: trained.
        splits: of the real images.
        real: what the generator learned from.
        settings: how many images of each split.
        seed: of the images.
        prefix: of the sample ids, so that two generators of one name can be told apart.
    """
    info = splits.info
    parts, categories, names = [], [], []
    only = settings.categories[0] if settings.categories and len(settings.categories) == 1 else ""
    for index, split in enumerate(SPLITS):
        count = getattr(settings, split)
        if not count:
            continue
        sources, chosen = None, [only] * count
        if generator.spec.family == "translator":
            pool = real if split == "train" else _of_categories(splits, split, settings)
            rows = np.resize(np.random.default_rng([seed, index]).permutation(len(pool)), count)
            sources = pool.images[rows]
            chosen = [info.class_names[label] for label in pool.labels[rows].tolist()]
        parts.append(generator.sample(count, seed=len(SPLITS) * seed + index, sources=sources))
        categories += chosen
        names += [split] * count
    made = torch.cat(parts).permute(0, 2, 3, 1)
    write_dataset(
        path,
        images=(made.squeeze(-1) if info.channels == 1 else made).contiguous().numpy(),
        labels=np.zeros(len(made), np.int64),
        splits=names,
        class_names=["generated"],
        name=f"{info.name}-{generator.name}",
        sample_ids=[f"{prefix}-{number:06d}" for number in range(len(made))],
        source=f"the generator {generator.name}, trained on {info.name}",
        licence=info.licence,
        extra={"generator": [generator.name] * len(made), "category": categories},
    )


def write_report(
    path: Path,
    history: list[dict[str, float]],
    summary: dict[str, float],
    made: Tensor,
    real: Tensor,
    *,
    subtitle: str,
) -> None:
    """Write the HTML page: samples beside real images, spectra, nearest real images, training curves."""
    from assay.reports import Report

    page = Report("Generator", subtitle)
    page.metrics(summary)
    page.section("Samples")
    shown = _GRID * _GRID
    page.images(
        [image_grid(images[:shown], min(_GRID, len(images))).numpy() for images in (made, real)],
        ["generated", "real"],
    )
    page.section("Spectra").figure(draw_spectra(made, real[:_MOST]), "Mean log magnitude of the orthonormal FFT.")
    page.section("Nearest real images")
    few = made[:_GRID]
    pairs = torch.cat([few, nearest_real(few, real)])
    page.images(
        [image_grid(pairs, len(few)).numpy()],
        caption="Above generated images, below the nearest real training image of each, by the distance of pixels.",
    )
    page.section("Training").figure(_curves(history), "Means over an epoch.")
    page.write(path)


def _curves(history: list[dict[str, float]]) -> Any:
    from matplotlib.figure import Figure

    keys = [key for key in history[0] if key != "step"]
    figure = Figure(figsize=(4.5 * len(keys), 3), layout="constrained")
    for axes, key in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys, strict=True):
        axes.plot([record["step"] for record in history], [record[key] for record in history], marker=".")
        axes.set(title=key.replace("_", " "), xlabel="epoch")
    return figure


def _of_categories(splits: Splits, name: str, settings: GeneratorConfig) -> Split:
    """Return the samples of a split that belong to the settings' categories."""
    if settings.categories is None:
        return splits[name]
    known = splits.info.class_names
    for category in settings.categories:
        if category not in known:
            raise UserError(
                f"generator.categories: {category!r} is no class of {splits.info.name}: {', '.join(known)}."
            )
    labels = [known.index(category) for category in settings.categories]
    rows = np.flatnonzero(np.isin(splits[name].labels.numpy(), labels))
    if not len(rows):
        raise UserError(f"{splits.info.name} has no {' or '.join(settings.categories)} in its split {name!r}.")
    return _take(splits[name], rows)


def _take(split: Split, rows: np.ndarray) -> Split:
    return Split(split.images[rows], split.labels[rows], split.sample_ids[rows])
