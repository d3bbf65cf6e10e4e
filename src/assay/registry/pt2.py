"""How a model is stored and read: torch.export's pt2 archive in MLflow's pytorch flavour, never a pickle."""

import hashlib
import json
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from assay.errors import UserError
from assay.files import file_digest
from assay.registry.tracking import Client, import_mlflow, mlflow_errors

if TYPE_CHECKING:
    import numpy as np
    import torch

MODEL_FILE = "data/model.pt2"


@dataclass(frozen=True)
class Stored:
    """What was uploaded: MLflow's id and address of the model, and the digest of its pt2 file."""

    model_id: str
    uri: str
    sha256: str


def content_digest(module: "torch.nn.Module", description: Mapping[str, Any]) -> str:
    """Return one hex digest of a module's weights, its architecture and a JSON-like description.

    Example:
        >>> import torch
        >>> a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        >>> content_digest(a, {}) == content_digest(a, {}), content_digest(a, {}) == content_digest(b, {})
        (True, False)
    """
    import torch

    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    digest.update(repr(module).encode())
    for key, tensor in sorted(module.state_dict().items()):
        digest.update(f"\0{key} {tensor.dtype} {list(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def store(
    client: Client,
    run_id: str,
    name: str,
    module: "torch.nn.Module",
    example: "np.ndarray",
    metadata: Mapping[str, Any],
) -> Stored:
    """Export a module with a dynamic batch and upload it under a run.

    Args:
        client: of the tracking server.
        run_id: the run that the model belongs to.
        name: of the model.
        module: in evaluation mode, on the CPU.
        example: uint8 [N, C, H, W] with N >= 2: torch.export takes a batch of one for a constant.
        metadata: kept in the ``MLmodel`` file.
    """
    import_mlflow()
    import mlflow.pytorch
    import torch

    with torch.inference_mode():
        probabilities = module(torch.from_numpy(example)).numpy()
    experiment = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment, name=name, source_run_id=run_id)
    with (
        mlflow_errors(client.uri),
        tempfile.TemporaryDirectory(prefix="assay-model-") as scratch,
        warnings.catch_warnings(),
    ):
        # Views of one buffer make torch warn about weights that are not on the CPU; these are.
        warnings.filterwarnings("ignore", "No complete tensor found")
        mlflow.set_tracking_uri(client.uri)
        info = mlflow.pytorch.log_model(
            module,
            model_id=logged.model_id,
            run_id=run_id,
            serialization_format="pt2",
            signature=mlflow.models.infer_signature(example, probabilities),
            input_example=example,
            pip_requirements=[f"torch=={torch.__version__.split('+')[0]}", f"mlflow=={mlflow.__version__}"],
            metadata=dict(metadata),
        )
        written = mlflow.artifacts.download_artifacts(
            artifact_uri=f"{logged.artifact_location}/{MODEL_FILE}", dst_path=scratch, tracking_uri=client.uri
        )
        return Stored(logged.model_id, info.model_uri, file_digest(written))


def fetch(client: Client, source: str, label: str, sha256: str | None) -> tuple["torch.nn.Module", dict[str, Any], int]:
    """Download a stored model, check it, and only then load it.

    Args:
        client: of the tracking server.
        source: the address of the model's folder.
        label: the version's name for sentences, as in ``classifier/3``.
        sha256: the digest that its registration recorded.

    Returns:
        The exported graph as a module, its metadata, and the size of its file in bytes.

    Raises:
        UserError: the folder holds anything that could run code when loaded, was altered, or is incomplete.
    """
    import_mlflow()
    import mlflow.pytorch

    with tempfile.TemporaryDirectory(prefix="assay-model-") as scratch:
        with mlflow_errors(client.uri):
            folder = Path(
                mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=scratch, tracking_uri=client.uri)
            )
        metadata = check(folder, label, sha256)
        try:
            module = mlflow.pytorch.load_model(str(folder))
        except mlflow.exceptions.MlflowException as error:
            raise _refused(label, MODEL_FILE, "it holds a pickle, which could run code") from error
        return module, metadata, (folder / MODEL_FILE).stat().st_size


def check(folder: Path, label: str, sha256: str | None = None) -> dict[str, Any]:
    """Return the metadata of a model's folder if nothing in it can run code when it is loaded.

    Raises:
        UserError: the sentence names the file and what is wrong with it.
    """
    description = _read_mlmodel(folder, label)
    flavour = description.get("flavors", {}).get("pytorch", {})
    if flavour.get("model_data") != "data" or flavour.get("code"):
        raise _refused(label, "MLmodel", "it is not a plain model of MLflow's pytorch flavour")
    data = folder / "data"
    for file in sorted(p for p in data.rglob("*") if p.is_file() or p.is_symlink()):
        relative = file.relative_to(folder).as_posix()
        if relative != MODEL_FILE:
            raise _refused(label, relative, "only a pt2 archive may be there, since a pickle could run code")
    archive = folder / MODEL_FILE
    if not archive.is_file():
        raise _refused(label, MODEL_FILE, "it is missing")
    if not zipfile.is_zipfile(archive):
        raise _refused(label, MODEL_FILE, "it is not a pt2 archive, and a pickle could run code")
    if sha256 is not None and file_digest(archive) != sha256:
        raise _refused(label, MODEL_FILE, "it is not the file that was registered")
    metadata = description.get("metadata") or {}
    if missing := {"class_names", "image_size", "channels"} - metadata.keys():
        raise _refused(label, "MLmodel", f"it lacks the metadata {', '.join(sorted(missing))}")
    return metadata


def _read_mlmodel(folder: Path, label: str) -> dict[str, Any]:
    try:
        description = yaml.safe_load((folder / "MLmodel").read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _refused(label, "MLmodel", "it is missing or is not YAML") from error
    if not isinstance(description, dict):
        raise _refused(label, "MLmodel", "it is not a description of a model")
    return description


def _refused(label: str, file: str, why: str) -> UserError:
    return UserError(f"{label} is refused: {file}: {why}: delete this version and register the model again.")
