"""Validating a data set: run the suite on the table of its images, write the Data Docs, stop what must stop."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from assay.data.dataset import ImageDataset
from assay.data.docs import data_docs
from assay.data.statistics import describe
from assay.data.suite import Outcome, ValidationConfig, expectations, outcomes
from assay.errors import UserError
from assay.files import atomic_write, write_json

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult


def validate(dataset: Path, config: dict[str, Any], *, report: Path, metrics: Path) -> dict[str, float]:
    """Check the data set artifact ``dataset``; write Data Docs (HTML) at ``report`` and counts at ``metrics``.

    Returns how many checks there were, how many of each severity failed, and for each check that was
    missed how many rows (classes, splits) missed it. Both files are written before a critical failure is raised.

    Raises:
        UserError: a critical check failed (rows are named), a setting is unknown, or this is no data set.
    """
    settings = ValidationConfig.parse(config, where="validation")
    found = run_checks(ImageDataset.open(dataset), settings, report=report)
    failed = [outcome for outcome in found if not outcome.passed]
    numbers = {
        "checks": float(len(found)),
        "critical_failures": float(sum(outcome.severity == "critical" for outcome in failed)),
        "warning_failures": float(sum(outcome.severity == "warning" for outcome in failed)),
        **{f"missed_{outcome.check}": float(outcome.count) for outcome in found if outcome.count},
    }
    write_json(metrics, numbers)
    stop_on_critical(dataset, found, report)
    return numbers


def run_checks(dataset: ImageDataset, config: ValidationConfig, *, report: Path) -> list[Outcome]:
    """Check a data set, write the Data Docs at ``report``, and return each check's outcome; none is raised.

    Raises:
        UserError: a required column is missing, or a shard cannot be read.
    """
    table = describe(dataset, near_rmse=config.near_duplicate_rmse, identity_column=config.identity_column)
    table["size"] = table["width"].astype(str) + " x " + table["height"].astype(str)
    table["shorter_side"] = table[["width", "height"]].min(axis=1)
    table["label_in_train"] = table["label"].where(table["split"] == "train")
    # What an image is cannot be said where it cannot be decoded: that is one failure, not five.
    table.loc[~table["decodable"], ["size", "shorter_side", "mode", "brightness"]] = None
    results = _run_suite(dataset, table, config)
    found = outcomes(results, table, dataset.info)
    atomic_write(report, data_docs(dataset.info, found, results))
    return found


def stop_on_critical(dataset: Path, found: list[Outcome], report: Path) -> None:
    """Raise if a critical check failed.

    Raises:
        UserError: one did; the sentence names up to three rows, and how many other checks failed.
    """
    critical = [outcome for outcome in found if not outcome.passed and outcome.severity == "critical"]
    if critical:
        others = f", and {len(critical) - 1} more critical checks failed" if len(critical) > 1 else ""
        raise UserError(
            f"The data set {dataset} has {critical[0].sentence}{others}: correct the source and import it again "
            f"(the report {report} shows more)."
        )


def _run_suite(
    dataset: ImageDataset, table: pd.DataFrame, config: ValidationConfig
) -> "ExpectationSuiteValidationResult":
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the package is imported
    with _quiet():
        import great_expectations as gx

        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        asset = context.data_sources.add_pandas("pandas").add_dataframe_asset(dataset.info.name)
        batch = asset.add_batch_definition_whole_dataframe("samples")
        suite = gx.ExpectationSuite(
            "image classification", expectations=expectations(dataset.info, table.columns.tolist(), config)
        )
        definition = gx.ValidationDefinition(name="validation", data=batch, suite=context.suites.add(suite))
        result_format = {
            "result_format": "SUMMARY",
            "unexpected_index_column_names": ["row", "sample_id"],
            "partial_unexpected_count": 20,
        }
        return context.validation_definitions.add(definition).run(
            batch_parameters={"dataframe": table.rename_axis("row").reset_index()}, result_format=result_format
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("great_expectations")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
