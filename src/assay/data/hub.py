"""Data sets of the Hugging Face hub: Parquet files whose images are structs of bytes and path."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from assay.data.dataset import SPLITS
from assay.errors import AssayError, UserError

SPLIT_ALIASES = {"val": "validation", "valid": "validation", "dev": "validation", "eval": "validation"}
_IMAGE_COLUMNS = ("image", "img")
_LABEL_COLUMNS = ("label", "labels")


def snapshot(hub_id: str) -> Path:
    """Download the Parquet files of ``owner/name`` or ``owner/name/configuration``; return their folder.

    Raises:
        AssayError: the hub cannot be reached, or has no such data set.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    owner, name, *inside = hub_id.split("/")
    pattern = "/".join([*inside, "*.parquet"])
    try:
        folder = snapshot_download(f"{owner}/{name}", repo_type="dataset", allow_patterns=pattern)
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise AssayError(
            f"The hub did not give the data set {hub_id} ({reason}): check its id and the network."
        ) from error
    return Path(folder, *inside)


def read_hub_folder(folder: Path) -> tuple[pa.Table, list[str], list[str] | None]:
    """Read the Parquet files of a hub data set as one table with ``image`` and ``label`` first.

    Returns the table, the split of each row (empty where neither a column nor the file's name says), and
    the class names that the file's Hugging Face metadata gives.

    Raises:
        UserError: there are no Parquet files, several configurations, or no image or label column.
    """
    files = sorted(path for path in folder.rglob("*.parquet") if path.is_file())
    if not files:
        raise UserError(f"{folder} has no .parquet file: a hub data set is imported from its Parquet files.")
    homes = sorted({str(path.parent.relative_to(folder)) for path in files})
    if len(homes) > 1:
        raise UserError(
            f"{folder} has several configurations ({', '.join(homes)}): add the one you mean to the source."
        )
    tables, splits = [], []
    for file in files:
        table = read_table(file)
        stem = file.stem.split("-")[0].lower()
        from_name = SPLIT_ALIASES.get(stem, stem)
        tables.append(table)
        splits += [from_name if from_name in SPLITS else ""] * table.num_rows
    table = pa.concat_tables(tables, promote_options="default")
    return table, splits, class_names(tables[0].schema)


def read_table(file: Path) -> pa.Table:
    """Read one Parquet file, with its image and label columns under the names ``image`` and ``label``.

    Raises:
        UserError: the file is not Parquet, or lacks one of the two.
    """
    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} cannot be read as Parquet ({error}): fetch the file again.") from None
    names = {column: column for column in table.column_names}
    for wanted, known in {"image": _IMAGE_COLUMNS, "label": _LABEL_COLUMNS}.items():
        found = next((column for column in known if column in names), None)
        if found is None:
            columns = ", ".join(table.column_names)
            raise UserError(f"{file} has no column {wanted!r}: its columns are {columns}; rename the one you mean.")
        names[found] = wanted
    renamed = table.rename_columns(list(names.values()))  # which drops the metadata
    return renamed.replace_schema_metadata(table.schema.metadata)


def class_names(schema: pa.Schema) -> list[str] | None:
    """Return the names of a ``ClassLabel`` column from the schema's Hugging Face metadata, if any."""
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features: dict[str, Any] = metadata.get("info", {}).get("features", {})
    for column in _LABEL_COLUMNS:
        names = features.get(column, {}).get("names")
        if names:
            return [str(name) for name in names]
    return None
