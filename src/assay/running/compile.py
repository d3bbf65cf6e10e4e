"""Compiling a pipeline to the IR YAML that a Kubeflow Pipelines server runs."""

import copy
from collections.abc import Sequence
from pathlib import Path

from assay.files import atomic_write
from assay.project import Project
from assay.running.arguments import resolve_arguments
from assay.running.pipelines import Pipeline, load_pipeline, to_yaml


def compile_pipeline(
    name: str, output: Path | None = None, settings: Sequence[str] = (), project: Project | None = None
) -> Path:
    """Write the IR of ``pipelines/<name>.py`` with the pinned data revision and ``settings`` as its defaults.

    Args:
        name: the pipeline.
        output: default: ``<name>.yaml`` in the current folder.
        settings: ``key=value`` pairs.
        project: default: the one around the current folder.

    Raises:
        UserError: a wrong name or setting, or a file that cannot be written.
    """
    project = project or Project.find()
    pipeline = load_pipeline(project, name)
    arguments = resolve_arguments(pipeline, project, settings)
    spec = copy.deepcopy(pipeline.spec)
    for parameter, entry in spec["root"].get("inputDefinitions", {}).get("parameters", {}).items():
        if parameter in arguments:
            entry["defaultValue"] = arguments[parameter]
    target = output or Path(f"{pipeline.name}.yaml")
    atomic_write(target, to_yaml(Pipeline(pipeline.name, spec, pipeline.platform, pipeline.configs)))
    return target
