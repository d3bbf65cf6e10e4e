"""Registered models: written as pt2 with their lineage, found by alias or version, loaded without pickle."""

import getpass
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from assay.errors import AssayError, UserError
from assay.files import disk_errors, safe_name
from assay.project import Project
from assay.registry.log import Event, PromotionLog, new_event
from assay.registry.pt2 import content_digest, fetch, store
from assay.registry.tracking import Client, start_run

if TYPE_CHECKING:
    import numpy as np
    import torch

CHAMPION = "champion"
PREVIOUS_CHAMPION = "previous_champion"
EVENT_TAG = "assay.event."
_DIGEST_TAG = "assay.content_digest"
_FILE_DIGEST_TAG = "assay.file_sha256"
_LOCK_SECONDS = 120.0
_BATCH = 512


@dataclass(frozen=True)
class Lineage:
    """Where a model version comes from; each field becomes a tag of the version."""

    data_revision: str = ""
    git_commit: str = ""
    image: str = ""
    pipeline_run: str = ""
    seed: int | None = None

    @classmethod
    def of(cls, project: Project, *, data_revision: str, seed: int | None = None) -> "Lineage":
        """Return the lineage of what this process makes: its project's commit and image, and its run."""
        run = os.environ.get("ASSAY_RUN_ID", "")
        return cls(data_revision, project.git_commit, project.image, run, seed)

    @property
    def summary(self) -> str:
        """The lineage in one line, for the history.

        Example:
            >>> Lineage(data_revision="9fb9a1", seed=0).summary
            'data 9fb9a1, seed 0'
        """
        known = {"data": self.data_revision[:12], "commit": self.git_commit[:12], "seed": self.seed}
        return ", ".join(f"{key} {value}" for key, value in known.items() if value not in ("", None))


@dataclass(frozen=True)
class Version:
    """One version of a registered model, with the aliases that point at it."""

    name: str
    number: int
    created: str
    aliases: tuple[str, ...]
    run_id: str
    tags: Mapping[str, str]

    @property
    def digest(self) -> str:
        """The digest of the content, empty for a version that Assay did not register."""
        return self.tags.get(_DIGEST_TAG, "")


@dataclass(frozen=True)
class LoadedModel:
    """A registered model in memory. It is the exported graph: none of the classes that made it are needed.

    ``metadata`` is what the model's maker registered with it, such as the decision of a detector.
    """

    name: str
    version: int
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    channels: int
    size_bytes: int
    module: "torch.nn.Module"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The version's name for people, as in ``classifier/3``."""
        return f"{self.name}/{self.version}"

    def predict(self, images: "np.ndarray | torch.Tensor") -> "np.ndarray":
        """Return the class probabilities, float64 [N, K], of uint8 images [N, C, H, W].

        Raises:
            UserError: the images are not uint8, or have another size or number of channels than the model.
        """
        import numpy as np
        import torch

        batch = torch.as_tensor(images)
        expected = (self.channels, *self.image_size)
        if batch.dtype != torch.uint8 or tuple(batch.shape[1:]) != expected:
            raise UserError(
                f"{self.label} takes uint8 images [N, {', '.join(map(str, expected))}], "
                f"not {str(batch.dtype).removeprefix('torch.')} {list(batch.shape)}: convert them first."
            )
        if not len(batch):
            return np.zeros((0, len(self.class_names)))
        with torch.inference_mode():
            parts = [self.module(part).double() for part in batch.split(_BATCH)]
        return torch.cat(parts).numpy()


class Registry:
    """The registered models of one tracking server, and this machine's log of what happened to them.

    MLflow's aliases are authoritative for *which* version is champion; the log in ``state/registry`` is
    authoritative for *how* it came to be. Each event is mirrored as a tag ``assay.event.<id>``, so that
    whoever shares the tracking server reads the same history.
    """

    def __init__(self, project: Project | None = None) -> None:
        self.project = project or Project.find()
        self.log = PromotionLog(self.project.state / "registry" / "promotions.jsonl")

    @cached_property
    def client(self) -> Client:
        """The client of the tracking server, connected at its first use."""
        return Client(self.project.tracking_uri, self.project.state)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock that every change of the registry from this machine holds; it can be nested.

        Raises:
            AssayError: another process has held it for minutes.
        """
        path = self.project.state / "registry" / "lock"
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path, timeout=_LOCK_SECONDS, is_singleton=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise AssayError(
                f"Another process has held {path} for {_LOCK_SECONDS:.0f} s: end it, then try again."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def names(self) -> list[str]:
        """Return the names of the registered models."""
        return sorted(model.name for model in _pages(self.client.search_registered_models))

    def versions(self, name: str) -> list[Version]:
        """Return the versions of a model, oldest first.

        Raises:
            UserError: no model has this name.
        """
        aliases: dict[int, list[str]] = {}
        for alias, number in self.aliases(name).items():
            aliases.setdefault(number, []).append(alias)
        found = _pages(self.client.search_model_versions, f"name = '{name}'")
        return sorted(
            (_version(version, aliases.get(int(version.version), [])) for version in found),
            key=lambda version: version.number,
        )

    def aliases(self, name: str) -> dict[str, int]:
        """Return the version of each alias of a model.

        Raises:
            UserError: no model has this name.
        """
        if (model := self._registered(name)) is None:
            known = ", ".join(self.names()) or "none yet"
            raise UserError(f"There is no registered model {name!r}: the registered models are {known}.")
        return {alias: int(number) for alias, number in model.aliases.items()}

    def champion(self, name: str) -> int | None:
        """Return the version of the champion, or None where there is no champion or no such model."""
        model = self._registered(name)
        return int(model.aliases[CHAMPION]) if model is not None and CHAMPION in model.aliases else None

    def resolve(self, name: str, alias_or_version: str | int) -> Version:
        """Return the version that an alias or a number stands for.

        Raises:
            UserError: there is no such model, alias or version; the sentence lists those there are.
        """
        versions = self.versions(name)
        wanted = str(alias_or_version)
        for version in versions:
            if wanted == str(version.number) or wanted in version.aliases:
                return version
        known = [str(version.number) for version in versions]
        known += [f"@{alias}" for version in versions for alias in version.aliases]
        raise UserError(f"{name} has no version or alias {wanted!r}: it has {', '.join(known) or 'no version'}.")

    def register(
        self,
        name: str,
        module: "torch.nn.Module",
        example: "np.ndarray | torch.Tensor",
        *,
        lineage: Lineage,
        class_names: Sequence[str],
        metrics: Mapping[str, float] | None = None,
        metadata: Mapping[str, Any] | None = None,
        run_id: str | None = None,
    ) -> int:
        """Export a module and register it; registering the same content again returns the version there is.

        The content is the weights, the architecture, the classes, the input's shape, the metadata, the data
        revision and the seed. Which run, commit or image made it is not: a retried or repeated run must not
        double it.

        Args:
            name: the registered model.
            module: images uint8 [N, C, H, W] -> probabilities [N, K].
            example: at least two images, uint8 [N, C, H, W], kept as the input example.
            lineage: becomes tags of the version, with the champion at this moment as the parent version.
            class_names: the K classes in the order of the probabilities.
            metrics: of the evaluation, kept as tags ``metric.<name>``.
            metadata: what else must travel with the model, as JSON values; see `LoadedModel`.
            run_id: the MLflow run that made it; default ``MLFLOW_RUN_ID``, else a new run.

        Raises:
            UserError: the name is not valid, the example holds fewer than two images, or the metadata cannot be
                written as JSON.
        """
        import torch

        safe_name(name, "model name")
        images = torch.as_tensor(example)
        if images.ndim != 4 or images.dtype != torch.uint8 or len(images) < 2:
            raise UserError(
                f"The example of {name} must be two or more uint8 images [N, C, H, W], not "
                f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}: pass some of the data set."
            )
        module = module.cpu().eval()
        description = {
            "class_names": list(class_names),
            "image_size": list(images.shape[2:]),
            "channels": int(images.shape[1]),
            **({"extra": _as_json(name, metadata)} if metadata else {}),  # the digest of a model without is as ever
        }
        digest = content_digest(module, {**description, "data_revision": lineage.data_revision, "seed": lineage.seed})
        with self.lock():
            if (existing := self._with_digest(name, digest)) is not None:
                return existing
            origin = {**asdict(lineage), "parent_version": self.champion(name)}
            event = new_event("registration", name, None, actor=actor(), reason=lineage.summary, digest=digest)
            tags = {
                **{key: str(value) for key, value in origin.items() if value not in ("", None)},
                **{f"metric.{key}": f"{value:.6g}" for key, value in (metrics or {}).items()},
                _DIGEST_TAG: digest,
                EVENT_TAG + event["id"]: json.dumps(event),
            }
            version = self._create(name, module, images.numpy()[:2], description, tags, run_id)
            self.log.append({**event, "version": version})
            return version

    def load(self, name: str, alias_or_version: str | int = CHAMPION) -> LoadedModel:
        """Load a version, after checking that it is a pt2 archive and the one that was registered.

        Raises:
            UserError: there is no such version, or what is stored could run code or was altered.
        """
        version = self.resolve(name, alias_or_version)
        source = self.client.get_model_version_download_uri(name, str(version.number))
        label = f"{name}/{version.number}"
        module, metadata, size = fetch(self.client, source, label, version.tags.get(_FILE_DIGEST_TAG))
        return LoadedModel(
            name=name,
            version=version.number,
            class_names=tuple(metadata["class_names"]),
            image_size=(metadata["image_size"][0], metadata["image_size"][1]),
            channels=metadata["channels"],
            size_bytes=size,
            module=module,
            metadata=metadata.get("extra", {}),
        )

    def annotate(self, event: Event) -> None:
        """Mirror an event about one version as a tag of it, then append it to the log."""
        self.client.set_model_version_tag(
            event["model"], str(event["version"]), EVENT_TAG + event["id"], json.dumps(event)
        )
        self.log.append(event)

    def event_tags(self, name: str) -> list[tuple[Mapping[str, str], int | None]]:
        """Return the tags that may mirror events: the model's own, and each version's with its number.

        Raises:
            UserError: no model has this name.
        """
        versions = self.versions(name)
        return [
            (self._registered(name).tags, None),
            *((version.tags, version.number) for version in versions),
        ]

    def _registered(self, name: str) -> Any:
        """Return MLflow's record of a registered model, or None."""
        found = _pages(self.client.search_registered_models, f"name = '{safe_name(name, 'model name')}'")
        return found[0] if found else None

    def _with_digest(self, name: str, digest: str) -> int | None:
        """Return the newest version that holds this content."""
        if self._registered(name) is None:
            return None
        same = [v.number for v in self.versions(name) if v.digest == digest]
        return max(same, default=None)

    def _create(
        self,
        name: str,
        module: "torch.nn.Module",
        example: "np.ndarray",
        metadata: Mapping[str, Any],
        tags: Mapping[str, str],
        run_id: str | None,
    ) -> int:
        """Store and register; the version appears with all its tags in one transaction."""
        if run_id is None:
            with start_run(name, project=self.project) as tracker:
                return self._create(name, module, example, metadata, tags, tracker.run_id)
        stored = store(self.client, run_id, name, module, example, metadata)
        if self._registered(name) is None:
            self.client.create(lambda: self.client.create_registered_model(name), lambda: self._registered(name))

        def make() -> int:
            version = self.client.create_model_version(
                name,
                stored.uri,
                run_id=run_id,
                tags={**tags, _FILE_DIGEST_TAG: stored.sha256},
                model_id=stored.model_id,
            )
            return int(version.version)

        return self.client.create(make, lambda: self._with_digest(name, tags[_DIGEST_TAG]))


def actor() -> str:
    """Return who acts: the pipeline run inside one, else the user of this machine."""
    run = os.environ.get("ASSAY_RUN_ID", "")
    return f"run {run}" if run else getpass.getuser()


def _as_json(name: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata as it comes back from JSON.

    Raises:
        UserError: it holds something that JSON does not, such as NaN.
    """
    try:
        return json.loads(json.dumps(metadata, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(f"The metadata of {name} cannot be written as JSON ({error}): give plain values.") from error


def _version(found: Any, aliases: Sequence[str]) -> Version:
    created = datetime.fromtimestamp(found.creation_timestamp / 1000, UTC).isoformat(timespec="milliseconds")
    return Version(
        found.name, int(found.version), created, tuple(sorted(aliases)), found.run_id or "", dict(found.tags)
    )


def _pages(search: Callable[..., Any], filter_string: str | None = None) -> list[Any]:
    """Return every result of one of MLflow's searches, page after page."""
    results: list[Any] = []
    token = None
    while True:
        page = search(filter_string=filter_string, max_results=200, page_token=token)
        results += page
        if not (token := page.token):
            return results
