"""The cache of task outputs, keyed by what the inputs hold and not by where they lie."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp import dsl
from kfp.local.cache import LocalCache, _is_remote_uri

from assay.files import tree_digest
from assay.running.archive import Archive

_RECORD = "assay_record"
_NO_FILE_NEEDED = ("system.Metrics", "system.ClassificationMetrics", "system.SlicedClassificationMetrics")


@dataclass(frozen=True)
class Origin:
    """The run that computed a cached result, and how many seconds that took."""

    run: str
    seconds: float


class ContentCache(LocalCache):
    """KFP's local cache with three differences.

    An artifact enters the key by type, metadata and the digest of its files, so that an equal input from
    another run hits; whole floats and integers are one (parameters pass through JSON); and an entry is a hit
    only if every output still holds what it held.

    Args:
        root: the folder of the entries.
        run: the id of this run, kept with each entry it makes.
        archive: keeps every output, and gives back those whose files are gone; None keeps nothing.
    """

    def __init__(self, root: Path, run: str, archive: Archive | None = None) -> None:
        super().__init__(str(root))
        self._run = run
        self._archive = archive
        self._digests: dict[str, tuple[str, str]] = {}
        self._task = threading.local()

    def begin(self) -> None:
        """Note that this thread starts a task."""
        self._task.start = time.monotonic()
        self._task.origin = None

    @property
    def origin(self) -> Origin | None:
        """Where this thread's task was found in the cache; None when it was not."""
        return getattr(self._task, "origin", None)

    def compute_key(self, *args: Any, **kwargs: Any) -> str:
        """Return the key, with every artifact replaced by its content."""
        return super().compute_key(*args, **{**kwargs, "arguments": self._by_content(kwargs["arguments"])})

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the outputs under ``key``, or None if there are none or one of them changed since."""
        if self._archive is not None:
            for uri, (_, digest) in self._contents(key).items():
                if not _is_remote_uri(uri):
                    self._archive.restore(Path(uri), digest)
        outputs = super().get(key)
        record = outputs.pop(_RECORD, None) if outputs else None
        if outputs is None or record is None:
            return None
        for artifact in _artifacts(outputs.values()):
            if artifact.uri not in record["contents"]:
                return None
            signature, digest = record["contents"][artifact.uri]
            if _signature(artifact.uri) == signature:
                self._digests[artifact.uri] = (signature, digest)
            elif self._digest(artifact.uri) != digest:
                return None
        self._keep(record["contents"])
        self._task.origin = Origin(record["run"], record["seconds"])
        return outputs

    def put(self, key: str, outputs: dict[str, Any]) -> None:
        """Store the outputs with the digests of their files."""
        contents = {}
        for artifact in _artifacts(outputs.values()):
            path = Path(artifact.uri)
            if artifact.schema_title in _NO_FILE_NEEDED and not path.exists():
                path.touch()  # KFP takes an entry with an absent file for stale
            digest = self._digest(artifact.uri)
            contents[artifact.uri] = [_signature(artifact.uri), digest]
        seconds = time.monotonic() - self._task.start
        record = {"contents": contents, "run": self._run, "seconds": round(seconds, 3)}
        super().put(key, {**outputs, _RECORD: record})
        self._keep(contents)

    def _contents(self, key: str) -> dict[str, list[str]]:
        """Return the signature and the digest of each artifact of an entry, also where its files are gone."""
        try:
            return json.loads(Path(self._entry_path(key)).read_text())[_RECORD]["contents"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _keep(self, contents: Mapping[str, Sequence[str]]) -> None:
        """Archive what is not there yet: also on a hit, since an earlier run may have lost the object store."""
        if self._archive is not None:
            for uri, (_, digest) in contents.items():
                if not _is_remote_uri(uri):
                    self._archive.keep(Path(uri), digest)

    def _by_content(self, value: Any) -> Any:
        if isinstance(value, dsl.Artifact):
            metadata = self._by_content(value.metadata)
            return {"type": value.schema_title, "metadata": metadata, "digest": self._digest(value.uri)}
        if isinstance(value, Mapping):
            return {key: self._by_content(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [self._by_content(entry) for entry in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    def _digest(self, uri: str) -> str:
        """Return the digest of a local artifact, read again only if a size or a time changed."""
        if _is_remote_uri(uri):
            return uri
        signature = _signature(uri)
        known = self._digests.get(uri)
        if known is None or known[0] != signature:
            digest = tree_digest(uri) if Path(uri).exists() else "absent"
            known = self._digests[uri] = (signature, digest)
        return known[1]


def is_written(artifact: dsl.Artifact) -> bool:
    """Say whether an artifact holds what it must: a file or a folder, which metrics can do without."""
    local = not _is_remote_uri(artifact.uri)
    return not local or artifact.schema_title in _NO_FILE_NEEDED or Path(artifact.uri).exists()


def _artifacts(values: Any) -> Iterator[dsl.Artifact]:
    for value in values:
        if isinstance(value, dsl.Artifact):
            yield value
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield from _artifacts(value)


def _signature(uri: str) -> str:
    """Digest the names, sizes and times of an artifact's files: it changes when they are written."""
    root = Path(uri)
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        digest.update(f"{file.relative_to(root)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
