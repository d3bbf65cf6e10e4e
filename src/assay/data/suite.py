"""The Great Expectations suite of image classification: what is checked, how severe, and how a miss is told."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from pydantic import Field

from assay.config import Config
from assay.data.dataset import SPLITS, DatasetInfo
from assay.errors import UserError

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult
    from great_expectations.expectations.expectation import Expectation

Severity = Literal["critical", "warning"]

CHECKS: dict[str, tuple[Severity, str, str]] = {
    "unique_ids": ("critical", "sample ids that occur more than once", ""),
    "known_labels": ("critical", "labels that no class has", "label"),
    "known_splits": ("critical", "splits that are not known", "split"),
    "filled_splits": ("critical", "splits without samples", ""),
    "decodable_images": ("critical", "images that cannot be decoded", "problem"),
    "large_enough_images": ("critical", "images that are too small", ""),
    "same_size_images": ("warning", "images of another size, which are resized", ""),
    "expected_modes": ("warning", "images of an unexpected mode, which are converted", "mode"),
    "brightness": ("warning", "images whose mean brightness is out of range", ""),
    "classes_in_train": ("warning", "classes without a training sample", ""),
    "class_shares": ("warning", "classes whose share of a split is out of range", ""),
    "no_copies": ("critical", "images with an exact copy in another split", "copy_in_other_split"),
    "no_near_copies": ("warning", "images with a near-duplicate in another split", "near_copy_in_other_split"),
    "no_shared_identities": ("critical", "identities in more than one split", "identity_in_other_split"),
}
"""Each check: its severity, what fails it, and the column that says more about a row (or none)."""


class ValidationConfig(Config):
    """What the data must be like.

    ``splits`` must all have samples; ``minimum_side`` is in pixels; ``modes`` are Pillow's; ``brightness`` is
    the range of an image's mean grey level (0 to 255); ``class_share`` that of a class's share of its split;
    ``near_duplicate_rmse`` is how far (in grey levels, over 16 x 16 thumbnails) near-duplicates may differ;
    ``severities`` changes the severity of a check.
    """

    splits: tuple[str, ...] = SPLITS
    minimum_side: int = Field(default=4, ge=1)
    modes: tuple[str, ...] = ("L", "RGB")
    brightness: tuple[float, float] = (1.0, 254.0)
    class_share: tuple[float, float] = (0.001, 0.95)
    near_duplicate_rmse: float = Field(default=5.0, ge=0)
    identity_column: str = "person_id"
    severities: dict[str, Severity] = Field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """One check's result: ``count`` rows (or classes, or splits) miss it; ``subjects`` names some of them."""

    check: str
    severity: str
    passed: bool
    count: int
    what: str
    subjects: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The miss in words, with at most three names.

        Example:
            >>> Outcome("brightness", "warning", False, 5, "dark images", ("'a'", "'b'", "'c'", "'d'")).sentence
            "dark images: 'a', 'b', 'c' (5 in all)"
        """
        named = ", ".join(self.subjects[:3])
        return f"{self.what}: {named}" + (f" ({self.count:,} in all)" if self.count > 3 else "")


def expectations(info: DatasetInfo, columns: list[str], config: ValidationConfig) -> "list[Expectation]":
    """Return the suite for a data set's table (see `statistics.describe`).

    Raises:
        UserError: ``severities`` names a check that does not exist.
    """
    from great_expectations import expectations as gx

    for check in config.severities:
        if check not in CHECKS:
            raise UserError(f"validation.severities.{check} is not a check: the checks are {', '.join(CHECKS)}.")

    def expect(check: str, kind: Callable[..., Any], column: str, **settings: Any) -> Any:
        severity = config.severities.get(check, CHECKS[check][0])
        return kind(column=column, severity=severity, meta={"check": check}, **settings)

    labels = list(range(len(info.class_names)))
    in_set, between, null = (
        gx.ExpectColumnValuesToBeInSet,
        gx.ExpectColumnValuesToBeBetween,
        gx.ExpectColumnValuesToBeNull,
    )
    contains = gx.ExpectColumnDistinctValuesToContainSet
    height, width = info.image_size
    suite = [
        expect("unique_ids", gx.ExpectColumnValuesToBeUnique, "sample_id"),
        expect("known_labels", in_set, "label", value_set=labels),
        expect("known_splits", in_set, "split", value_set=list(SPLITS)),
        expect("filled_splits", contains, "split", value_set=list(config.splits)),
        expect("decodable_images", in_set, "decodable", value_set=[True]),
        expect("large_enough_images", between, "shorter_side", min_value=config.minimum_side),
        expect("same_size_images", in_set, "size", value_set=[f"{width} x {height}"]),
        expect("expected_modes", in_set, "mode", value_set=list(config.modes)),
        expect("brightness", between, "brightness", **_range(config.brightness)),
        expect("classes_in_train", contains, "label_in_train", value_set=labels),
        expect("class_shares", between, "class_share", **_range(config.class_share)),
        expect("no_copies", null, "copy_in_other_split"),
        expect("no_near_copies", null, "near_copy_in_other_split"),
    ]
    if "identity_in_other_split" in columns:
        suite.append(expect("no_shared_identities", null, "identity_in_other_split"))
    return suite


def outcomes(results: "ExpectationSuiteValidationResult", table: pd.DataFrame, info: DatasetInfo) -> list[Outcome]:
    """Turn Great Expectations' results into one `Outcome` for each check, in the order of `CHECKS`."""
    found = {}
    for result in results.results:
        expectation = result.expectation_config
        check = expectation.meta["check"]
        count, subjects = (0, []) if result.success else _misses(check, result, table, info)
        severity = expectation.severity.value
        found[check] = Outcome(check, severity, bool(result.success), count, CHECKS[check][1], tuple(subjects))
    return [found[check] for check in CHECKS if check in found]


def _misses(check: str, result: Any, table: pd.DataFrame, info: DatasetInfo) -> tuple[int, list[str]]:
    """Return how many rows (splits, classes) miss a check, and the names of some."""
    kwargs = result.expectation_config.kwargs
    if check == "filled_splits":
        subjects = [repr(split) for split in kwargs["value_set"] if split not in set(table["split"])]
        return len(subjects), subjects
    if check == "classes_in_train":
        present = set(table["label_in_train"].dropna())
        subjects = [repr(name) for label, name in enumerate(info.class_names) if label not in present]
        return len(subjects), subjects
    if check == "class_shares":
        wrong = table[~table["class_share"].between(kwargs["min_value"], kwargs["max_value"])]
        shares = wrong.drop_duplicates(["split", "label"])[["split", "label", "class_share"]]
        names = dict(enumerate(info.class_names))
        subjects = [
            f"{names.get(label, label)!r} with {share:.2%} of {split}"
            for split, label, share in shares.itertuples(index=False, name=None)
        ]
        return len(subjects), subjects
    rows = [row["row"] for row in result.result["partial_unexpected_index_list"]]
    return int(result.result["unexpected_count"]), [_subject(table, row, CHECKS[check][2]) for row in rows]


def _range(limits: tuple[float, float]) -> dict[str, float]:
    return {"min_value": limits[0], "max_value": limits[1]}


def _subject(table: pd.DataFrame, row: int, detail: str) -> str:
    name = repr(table.at[row, "sample_id"])
    if not detail:
        return name
    value: Any = table.at[row, detail]
    return f"{name} and {value!r}" if detail.endswith("_in_other_split") else f"{name} ({value})"
