"""How a training reaches machines that do not see this one's files: as JSON, its data through the object store.

Functions and classes travel as their names, and only this package's are looked up: nothing is unpickled.
"""

import importlib
import os
import tempfile
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

from filelock import FileLock

from assay.config import Config
from assay.errors import AssayError
from assay.files import tree_digest
from assay.storage import ObjectStore

_DATA, _SETTINGS = "$data", "$settings"


class DataFolder:
    """What a training reads: opened from a folder when first used, so that its address is all that travels.

    A subclass is made by ``Subclass(path, *options)`` with options that JSON has.
    """

    path: Path

    def options(self) -> tuple[Any, ...]:
        """Return what the class is called with after the path."""
        return ()

    def __reduce__(self) -> tuple[type["DataFolder"], tuple[Any, ...]]:
        return type(self), (self.path.absolute(), *self.options())  # a worker has another current folder


class TrainingJob(Config):
    """A training in JSON, as another machine runs it; see `launch` for what the fields mean.

    Attributes:
        function: the loop, as `name_of` names it.
        config: of the loop, as `encode` leaves it.
        resources: of each worker, as Ray names them.
        version: digest of the library that wrote this: another one would compute something else.
    """

    function: str
    config: dict[str, Any]
    name: str
    workers: tuple[int, int]
    seed: int
    precision: str
    max_failures: int
    resources: dict[str, int]
    stream: str
    version: str


class Outcome(Config):
    """Why a training on another machine failed: the sentence, and whether the user can mend it."""

    sentence: str
    by_user: bool


Document = TypeVar("Document", bound=Config)


def put_document(store: ObjectStore, key: str, document: Config) -> None:
    """Store a model as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "document.json"
        file.write_text(document.model_dump_json(indent=2))
        store.put(file, key)


def get_document(store: ObjectStore, key: str, kind: type[Document]) -> Document:
    """Read back what `put_document` stored."""
    with tempfile.TemporaryDirectory() as folder:
        store.get(key, Path(folder) / "document.json")
        return kind.model_validate_json((Path(folder) / "document.json").read_bytes())


def job_key(run: str) -> str:
    """Return where the `TrainingJob` of a run is stored, beside its checkpoints."""
    return f"{run}/job.json"


def outcome_key(run: str) -> str:
    """Return where the `Outcome` of a run that failed is stored."""
    return f"{run}/outcome.json"


def encode(config: dict[str, Any], store: ObjectStore) -> dict[str, Any]:
    """Return ``config`` as JSON, after uploading the folders that it reads under their content's hash.

    Args:
        config: of a training: JSON, `Config` models and `DataFolder`.
        store: that both machines reach; what is there already is not sent again.
    """
    return {key: _encode(value, store) for key, value in config.items()}


def _encode(value: Any, store: ObjectStore) -> Any:
    if isinstance(value, DataFolder):
        key = f"data/{tree_digest(value.path)}"
        if not store.exists(key):
            store.put(value.path, key)
        return {_DATA: name_of(type(value)), "key": key, "options": list(value.options())}
    if isinstance(value, Config):
        return {_SETTINGS: name_of(type(value)), "values": value.model_dump(mode="json")}
    return value


def decode(config: dict[str, Any], store: ObjectStore) -> dict[str, Any]:
    """Return what `encode` was given; what it reads is downloaded once for all processes of this machine.

    Raises:
        AssayError: the data is not what was sent, or a name is not one of this package.
    """
    return {key: _decode(value, store) for key, value in config.items()}


def _decode(value: Any, store: ObjectStore) -> Any:
    if isinstance(value, dict) and _DATA in value:
        return look_up(value[_DATA], DataFolder)(fetch(store, value["key"]), *value["options"])
    if isinstance(value, dict) and _SETTINGS in value:
        return look_up(value[_SETTINGS], Config).model_validate(value["values"])
    return value


def fetch(store: ObjectStore, key: str) -> Path:
    """Return this machine's copy of a folder of the store, whose key ends with its digest.

    Raises:
        AssayError: the copy has another digest.
    """
    # Beside other users' copies, not in one place with them: who can write a copy chooses what is trained on.
    cache = Path(os.environ.get("ASSAY_DATA_CACHE") or Path(tempfile.gettempdir()) / f"assay-data-{os.getuid()}")
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = key.rsplit("/", 1)[-1]
    target = cache / digest
    with FileLock(cache / f"{digest}.lock"):
        if not target.is_dir():
            store.get(key, target)
            if (found := tree_digest(target)) != digest:
                raise AssayError(f"The data at {key} has the digest {found[:12]} instead of {digest[:12]}: remove it.")
    return target


def name_of(item: Any) -> str:
    """Return ``module:name`` of a function or class at the top of a module of this package.

    Raises:
        AssayError: it is somewhere else, so that another process could not find it.

    Example:
        >>> name_of(fetch)
        'assay.training.travel:fetch'
    """
    name = f"{item.__module__}:{item.__qualname__}"
    look_up(name, item if isinstance(item, type) else None)
    return name


def look_up(name: str, kind: type | None = None) -> Any:
    """Return what `name_of` named.

    Args:
        name: ``module:name``.
        kind: the class that it must be a subclass of; None asks for a function.

    Raises:
        AssayError: there is no such thing in this package.

    Example:
        >>> look_up("os:system")
        Traceback (most recent call last):
        ...
        assay.errors.AssayError: os:system is not a training function of this package: it cannot run on other machines.
    """
    module, _, attribute = name.partition(":")
    found = None
    if module.startswith("assay."):
        try:
            found = getattr(importlib.import_module(module), attribute, None)
        except ImportError:
            found = None
    fits = isinstance(found, type) and issubclass(found, kind) if kind else isinstance(found, FunctionType)
    if found is None or not fits or found.__module__ != module:
        what = "training function" if kind is None else kind.__name__
        raise AssayError(f"{name} is not a {what} of this package: it cannot run on other machines.")
    return found
