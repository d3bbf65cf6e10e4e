"""Finding and compiling the pipelines of a project."""

import importlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from assay.cluster import RAY_JOB_ANNOTATION
from assay.errors import UserError
from assay.files import safe_name
from assay.project import Project


@dataclass(frozen=True)
class Pipeline:
    """A compiled pipeline.

    Args:
        name: the file's and the function's name.
        spec: the IR as plain data.
        platform: platform settings of KFP (Kubernetes), empty without any.
        configs: for each dictionary parameter, ``module:Class`` of the model that checks it.
    """

    name: str
    spec: dict[str, Any]
    platform: dict[str, Any]
    configs: Mapping[str, str]

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """The root inputs by name: ``{"parameterType": ..., "defaultValue": ...}``."""
        inputs = self.spec["root"].get("inputDefinitions", {})
        return dict(sorted(inputs.get("parameters", {}).items()))

    @property
    def defaults(self) -> dict[str, Any]:
        """The parameters' default values; a parameter without one is absent."""
        return {
            name: _plain(entry["defaultValue"]) for name, entry in self.parameters.items() if "defaultValue" in entry
        }


def pipeline_names(project: Project) -> list[str]:
    """Return the names of the files in ``pipelines/``."""
    files = (project.root / "pipelines").glob("*.py")
    return sorted(file.stem for file in files if not file.stem.startswith("_"))


def load_pipeline(project: Project, name: str) -> Pipeline:
    """Import ``pipelines/<name>.py`` of the project and compile its function ``<name>``.

    Raises:
        UserError: there is no such file or function, or the file does not import or compile.
    """
    known = pipeline_names(project)
    if safe_name(name.replace("-", "_"), "pipeline name") not in known:
        listing = f"the pipelines are {', '.join(known)}" if known else "the folder is empty"
        raise UserError(f"{name!r} is not a pipeline in {project.root / 'pipelines'}: {listing}.")
    name = name.replace("-", "_")
    module = _import(project, name)
    function = getattr(module, name, None)
    if not hasattr(function, "pipeline_spec"):
        raise UserError(
            f"pipelines/{name}.py has no pipeline function {name!r}: decorate one of that name with @dsl.pipeline."
        )
    spec, platform = _compile(function)
    return Pipeline(name, spec, platform, dict(getattr(module, "CONFIGS", {})))


def _import(project: Project, name: str) -> Any:
    """Import the module from this project, whatever else is called ``pipelines`` on the path."""
    os.environ["ASSAY_PROJECT"] = str(project.root)
    root = str(project.root)
    sys.path[:] = [root, *(entry for entry in sys.path if entry != root)]
    for package in ("pipelines", "components"):
        _claim(package, project.root / package)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(f"pipelines.{name}")
    except UserError:
        raise
    except Exception as error:
        place = _last_line_below(project.root, error)
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
        raise UserError(f"pipelines/{name}.py does not load: {reason}{place}; correct the file.") from error


def _claim(package: str, folder: Path) -> None:
    """Make ``package`` mean this folder, even if it has no ``__init__.py`` and another package does."""
    loaded = sys.modules.get(package)
    if loaded is not None and str(folder) in getattr(loaded, "__path__", []):
        return
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]
    if not (folder / "__init__.py").is_file():
        sys.modules[package] = namespace = ModuleType(package)
        namespace.__path__ = [str(folder)]


def _compile(function: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the IR and the platform settings as plain data."""
    from google.protobuf import json_format  # type: ignore[import-untyped]

    return (
        json_format.MessageToDict(function.pipeline_spec),
        json_format.MessageToDict(function.platform_spec),
    )


def to_yaml(pipeline: Pipeline) -> str:
    """Return the IR YAML that Kubeflow Pipelines accepts: the specification, then the platform settings.

    Raises:
        UserError: ``ray`` in ``pipelines/cluster.yaml`` holds an unknown or wrong setting.
    """
    _check_ray(pipeline.platform)
    documents = [pipeline.spec, pipeline.platform] if pipeline.platform else [pipeline.spec]
    return yaml.safe_dump_all(documents, sort_keys=True, allow_unicode=True)


def _check_ray(platform: Mapping[str, Any]) -> None:
    """Check the settings of RayJobs, which no step would read before it trains."""
    executors = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    annotations = (entry.get("podMetadata", {}).get("annotations", {}) for entry in executors.values())
    for settings in {found[RAY_JOB_ANNOTATION] for found in annotations if RAY_JOB_ANNOTATION in found}:
        from assay.training.rayjob import RayJobSettings

        RayJobSettings.parse(json.loads(settings), where="cluster.yaml.ray")


def _last_line_below(root: Path, error: BaseException) -> str:
    """Return ``(file, line n)`` of the last frame inside the project, or nothing."""
    place = ""
    frame = error.__traceback__
    while frame is not None:
        file = Path(frame.tb_frame.f_code.co_filename)
        if file.is_relative_to(root) and ".venv" not in file.parts:
            place = f" ({file.relative_to(root)}, line {frame.tb_lineno})"
        frame = frame.tb_next
    return place


def _plain(value: Any) -> Any:
    """Undo the JSON of protobuf, which knows no integers: 5.0 becomes 5."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return value
