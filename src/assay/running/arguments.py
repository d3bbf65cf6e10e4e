"""The arguments of one run: the pipeline's defaults under what the user set, checked before anything starts."""

import copy
import importlib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import yaml

from assay.errors import UserError
from assay.project import Project
from assay.running.pipelines import Pipeline

_KINDS: dict[str, tuple[str, Any]] = {
    "STRING": ("text", str),
    "NUMBER_INTEGER": ("a whole number", int),
    "NUMBER_DOUBLE": ("a number", (int, float)),
    "BOOLEAN": ("true or false", bool),
    "LIST": ("a list such as [1, 2]", list),
    "STRUCT": ("a dictionary such as {epochs: 5}", dict),
}


def resolve_arguments(
    pipeline: Pipeline, project: Project, settings: Sequence[str] = (), workers: int | None = None
) -> dict[str, Any]:
    """Return every parameter's value.

    Args:
        pipeline: whose parameters and defaults count.
        project: its ``data.dvc`` gives ``revision`` where that is left empty.
        settings: ``key=value`` with a YAML value; ``training.epochs=5`` sets one entry of a dictionary.
        workers: the parameter ``workers``, if given.

    Raises:
        UserError: a setting is malformed, names no parameter, or its value does not fit.
    """
    arguments = copy.deepcopy(pipeline.defaults)
    pairs = [_parse(setting) for setting in settings]
    if workers is not None:
        pairs.append((["workers"], workers))
    for path, value in pairs:
        _set(pipeline, arguments, path, value)
    changed = {path[0] for path, _ in pairs}
    for name in sorted(changed & set(pipeline.configs)):
        _check_config(pipeline.configs[name], name, arguments[name])
    missing = [name for name in pipeline.parameters if name not in arguments and not _optional(pipeline, name)]
    if missing:
        raise UserError(f"{pipeline.name} needs a value for {missing[0]}: add --set {missing[0]}=VALUE.")
    if {"dataset", "revision"} <= set(arguments) and not arguments["revision"]:
        from assay.data.pins import Pins

        arguments["revision"] = Pins.read(project.root).revision(arguments["dataset"])
    return arguments


def _parse(setting: str) -> tuple[list[str], Any]:
    key, sign, text = setting.partition("=")
    path = key.strip().split(".")
    if not sign or not all(path):
        raise UserError(f"--set {setting!r} is not key=value: write, for example, --set training.epochs=5.")
    try:
        return path, yaml.safe_load(text) if text.strip() else ""
    except yaml.YAMLError as error:
        raise UserError(f"--set {setting!r}: {text!r} is not valid YAML; put text in quotes.") from error


def _set(pipeline: Pipeline, arguments: dict[str, Any], path: list[str], value: Any) -> None:
    """Put ``value`` at ``path``; a dictionary given whole is merged over the default."""
    name, *rest = path
    if name not in pipeline.parameters:
        known = ", ".join(pipeline.parameters) or "none"
        close = get_close_matches(name, pipeline.parameters, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(f"{name} is not a parameter of {pipeline.name}{hint}: its parameters are {known}.")
    kind = pipeline.parameters[name]["parameterType"]
    if rest:
        if kind != "STRUCT":
            raise UserError(f"{'.'.join(path)}: {name} is not a dictionary; set it as {name}=VALUE.")
        inner = arguments.setdefault(name, {})
        for key in rest[:-1]:
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                raise UserError(f"{'.'.join(path)}: {key} is not a dictionary, so it has no entry {rest[-1]}.")
        inner[rest[-1]] = value
        return
    words, types = _KINDS[kind]
    if kind == "STRING" and isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, types) or (isinstance(value, bool) and kind != "BOOLEAN"):
        raise UserError(f"{name} = {value!r} does not fit: {name} is {words}.")
    arguments[name] = _merged(arguments.get(name, {}), value) if kind == "STRUCT" else value


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        inner = merged.get(key)
        if isinstance(inner, dict) and isinstance(value, dict):
            value = _merged(inner, value)
        merged[key] = value
    return merged


def _check_config(reference: str, name: str, values: Mapping[str, Any]) -> None:
    """Check a dictionary with the model that the pipeline names for it."""
    module, _, model = reference.partition(":")
    getattr(importlib.import_module(module), model).parse(values, where=name)


def _optional(pipeline: Pipeline, name: str) -> bool:
    return bool(pipeline.parameters[name].get("isOptional"))
