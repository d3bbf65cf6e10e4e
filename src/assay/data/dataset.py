"""The data set artifact: Parquet shards in the Hugging Face image layout, and ``dataset.json``."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from assay.data import codec
from assay.errors import UserError

if TYPE_CHECKING:
    import torch

SPLITS = ("train", "validation", "calibration", "test")
REQUIRED_COLUMNS = ("sample_id", "image", "label", "split")
INFO_FILE = "dataset.json"


class DatasetInfo(BaseModel):
    """What ``dataset.json`` says: ``image_size`` is (height, width) in pixels, ``channels`` 1 or 3."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str
    task: str = "classification"
    class_names: list[str]
    image_size: tuple[int, int]
    channels: int
    splits: dict[str, int]
    content_hash: str
    source: str = ""
    licence: str = ""
    revision: str = ""


@dataclass(frozen=True)
class Split:
    """One split, decoded: images uint8 [N, C, H, W], labels int64 [N], sample_ids str [N]."""

    images: "torch.Tensor"
    labels: "torch.Tensor"
    sample_ids: np.ndarray

    def __len__(self) -> int:
        return len(self.sample_ids)


class ImageDataset:
    """A data set artifact on disk, opened for reading.

    Example:
        >>> import tempfile; from assay.data import write_dataset
        >>> made = write_dataset(Path(tempfile.mkdtemp()) / "d", images=np.zeros((2, 4, 4), np.uint8),
        ...     labels=[0, 1], splits=["train", "test"], class_names=["cat", "dog"], name="pets")
        >>> ImageDataset.open(made.path).split("test").images.shape
        torch.Size([1, 1, 4, 4])
    """

    def __init__(self, path: Path, info: DatasetInfo) -> None:
        self.path = path
        self.info = info

    @classmethod
    def open(cls, path: str | Path) -> "ImageDataset":
        """Open the artifact at ``path``.

        Raises:
            UserError: it is not a data set artifact, or one of its parts is missing or damaged.
        """
        folder = Path(path)
        try:
            info = DatasetInfo.model_validate_json((folder / INFO_FILE).read_bytes())
        except OSError:
            raise UserError(
                f"{folder} is not a data set: it has no {INFO_FILE}; make one with `assay data import`."
            ) from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"])) or "content"
            raise UserError(f"{folder / INFO_FILE} is damaged at {key} ({first['msg']}): import it again.") from None
        dataset = cls(folder, info)
        if not dataset.shards():
            raise UserError(f"{folder} is not a data set: it has no .parquet file; import it again.")
        return dataset

    def shards(self, split: str | None = None) -> list[Path]:
        """Return the Parquet files, in order: all of them, or those that hold a split."""
        return sorted(self.path.glob(f"{split}-*.parquet" if split else "*.parquet"))

    def table(
        self,
        split: str | None = None,
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
    ) -> pa.Table:
        """Return the rows as an Arrow table; all splits unless one is named, all rows unless ``where`` chooses.

        Raises:
            UserError: a shard cannot be read, or lacks a required column.
        """
        parts = []
        for shard in self.shards(split):
            try:
                present = pq.read_schema(shard).names
                for column in columns or REQUIRED_COLUMNS:
                    if column not in present:
                        raise UserError(f"{shard} has no column {column!r}: its columns are {', '.join(present)}.")
                parts.append(pq.read_table(shard, columns=list(columns) if columns else None, filters=where))
            except (pa.ArrowException, OSError) as error:
                raise UserError(f"{shard} cannot be read as Parquet ({error}): import the data set again.") from None
        if not parts:
            known = ", ".join(name for name, count in self.info.splits.items() if count)
            raise UserError(f"{self.path} has no split {split!r}: its splits are {known}.")
        return pa.concat_tables(parts, promote_options="default")

    def split(self, name: str, where: pc.Expression | None = None) -> Split:
        """Decode one split into memory, on every core, with progress.

        Args:
            name: of the split.
            where: the rows to read, as in ``pc.field("label") == 0``; the others are not decoded. Default: all.

        Raises:
            UserError: no such row is there, or an image cannot be decoded (its sample is named).
        """
        import torch

        table = self.table(name, columns=REQUIRED_COLUMNS, where=where)
        if not table.num_rows:
            raise UserError(
                f"The split {name!r} of {self.path} is empty: import the data set again with a share for it."
            )
        self._check_memory(name, table.num_rows)
        ids = table["sample_id"].to_pylist()
        encoded = image_bytes(table)
        what = f"Decoding {self.info.name} {name}"
        pixels, failures = codec.decode_all(encoded, self.info.channels, self.info.image_size, what)
        if failures:
            index, reason = min(failures.items())
            more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
            raise UserError(
                f"The image of sample {ids[index]!r}{more} in {self.path} {reason}: replace it and import again."
            )
        labels = table["label"].to_numpy().astype(np.int64)
        return Split(torch.from_numpy(pixels), torch.from_numpy(labels), np.array(ids, dtype=np.str_))

    def chunks(self, name: str, rows: int = 4096) -> Iterator[Split]:
        """Decode a split piece by piece, so that no more than ``rows`` images are in memory.

        Raises:
            UserError: the split is absent, or an image cannot be decoded (its sample is named).
        """
        if not self.shards(name):
            self.table(name)  # which says what is there
        for shard in self.shards(name):
            with pq.ParquetFile(shard) as file:
                for batch in file.iter_batches(rows, columns=list(REQUIRED_COLUMNS)):
                    yield self.decode(pa.Table.from_batches([batch]))

    def decode(self, table: pa.Table) -> Split:
        """Decode the rows of a table with the required columns, in this process's thread alone.

        Raises:
            UserError: an image cannot be decoded (its sample is named).
        """
        import torch

        pixels = np.empty((table.num_rows, self.info.channels, *self.info.image_size), np.uint8)
        ids = table["sample_id"].to_pylist()
        for row, data in enumerate(image_bytes(table)):
            try:
                pixels[row] = codec.decode(data or b"", self.info.channels, self.info.image_size)
            except codec.DecodeError as error:
                raise UserError(
                    f"The image of sample {ids[row]!r} in {self.path} {error}: replace it and import again."
                ) from error
        labels = table["label"].to_numpy().astype(np.int64)
        return Split(torch.from_numpy(pixels), torch.from_numpy(labels), np.array(ids, dtype=np.str_))

    def decoded_bytes(self, split: str) -> int:
        """Return how much memory a split needs when it is decoded."""
        height, width = self.info.image_size
        return self.info.splits.get(split, 0) * self.info.channels * height * width

    def _check_memory(self, split: str, count: int) -> None:
        height, width = self.info.image_size
        needed = count * self.info.channels * height * width
        present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > present // 2:
            raise UserError(
                f"The split {split!r} of {self.path} needs {needed / 2**30:.0f} GiB when it is decoded, more than "
                f"half of the memory ({present / 2**30:.0f} GiB): import it again with a smaller --size."
            )


def image_bytes(table: pa.Table) -> list[bytes | None]:
    """Return the encoded images of a table with the ``image`` column."""
    return [data for chunk in table["image"].chunks for data in chunk.field("bytes").to_pylist()]
