"""What every reader of a source returns: its samples, row by row."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Samples:
    """What a source holds, row by row.

    ``images`` is uint8 [N, H, W] or encoded images; ``splits`` is ``""`` where the source says none;
    ``digests`` are equal for copies of one image.
    """

    ids: list[str]
    images: np.ndarray | list[bytes]
    labels: np.ndarray
    class_names: list[str]
    splits: np.ndarray
    digests: list[str] = field(default_factory=list)
    paths: list[str] | None = None
    extra: dict[str, list[Any]] = field(default_factory=dict)
    source: str = ""
    licence: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: np.ndarray) -> "Samples":
        """Return the samples of the given row numbers, in that order."""

        def pick(values: list[Any]) -> list[Any]:
            return [values[row] for row in rows]

        return Samples(
            ids=pick(self.ids),
            images=self.images[rows] if isinstance(self.images, np.ndarray) else pick(self.images),
            labels=self.labels[rows],
            class_names=self.class_names,
            splits=self.splits[rows],
            digests=pick(self.digests) if self.digests else [],
            paths=None if self.paths is None else pick(self.paths),
            extra={column: pick(values) for column, values in self.extra.items()},
            source=self.source,
            licence=self.licence,
        )
