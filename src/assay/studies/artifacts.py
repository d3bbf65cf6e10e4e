"""The data set of a study."""

from pathlib import Path

from assay.data.dataset import INFO_FILE
from assay.data.importing import import_dataset
from assay.data.pins import Pins
from assay.project import Project


def find_artifact(data: str, state: Path) -> Path:
    """Return the data set artifact that ``data`` stands for, made from the project's ``data/`` if need be.

    Args:
        data: the folder of an artifact, or the name of a data set of the project.
        state: folder of the study, where the artifact of a named data set is kept.

    Raises:
        UserError: there is no such data set.
    """
    if (Path(data) / INFO_FILE).is_file():
        return Path(data)
    revision = Pins.read(Project.find().root).revision(data)
    artifact = state / "data" / f"{data}-{revision[:12]}"
    if not (artifact / INFO_FILE).is_file():
        import_dataset(data, revision, {}, dataset=artifact, metrics=artifact.with_suffix(".json"))
    return artifact
