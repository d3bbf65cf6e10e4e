"""Files and folders in S3, whole and verified, or not there at all.

The endpoint and the credentials are AWS's own settings: ``AWS_ENDPOINT_URL``, ``AWS_SHARED_CREDENTIALS_FILE``,
``AWS_PROFILE`` and what else boto3 reads. Every object carries the SHA-256 of its bytes; the store checks what it
receives, and a reader checks what it gets.
"""

import base64
import functools
import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from assay.errors import AssayError, UserError
from assay.files import atomic_folder, disk_errors, file_digest

_SCHEME = "s3"
_MANIFEST = "@manifest.json"
_FILES = "@files"
_SMALL = 8 << 20  # up to here one request, above several at the same time: boto3's own threshold
_WORKERS = 8  # files at a time
_STREAMS = 4  # of one large file at a time
_CHUNK = 1 << 20
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 4.0
_Result = TypeVar("_Result")
_making_client = threading.Lock()


def is_remote(location: str | os.PathLike[str]) -> bool:
    """Say whether a location is an address in S3.

    Example:
        >>> is_remote("s3://assay/training"), is_remote("/tmp/training")
        (True, False)
    """
    return os.fspath(location).startswith(f"{_SCHEME}://")


@dataclass(frozen=True)
class _Entry:
    """One file of a folder, as its manifest names it."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class ObjectStore:
    """The files and folders below one address in S3.

    A folder is its files below ``<key>/@files/`` and then, written last, ``<key>/@manifest.json`` with the path,
    size and SHA-256 of each: without its manifest a folder does not exist. It holds an address and no
    connection, so that it travels to another process.

    Args:
        address: ``s3://bucket`` or ``s3://bucket/prefix``.
        patience: how many seconds a server that does not answer is waited for.

    Raises:
        UserError: the address is not one, a key climbs out of it, or the store refuses the credentials.
        AssayError: the store stayed away, or an object does not hold the bytes that were put there.

    Example:
        >>> ObjectStore("s3://assay/training")
        ObjectStore(address='s3://assay/training', patience=60.0)
        >>> ObjectStore("training")
        Traceback (most recent call last):
        ...
        assay.errors.UserError: training is not an address in S3: write s3://BUCKET or s3://BUCKET/PREFIX.
    """

    address: str
    patience: float = 60.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.address)
        if parts.scheme != _SCHEME or not parts.netloc or parts.query or parts.fragment:
            raise UserError(f"{self.address} is not an address in S3: write s3://BUCKET or s3://BUCKET/PREFIX.")
        if self._prefix:
            _checked(self._prefix)

    def put(self, source: Path, key: str) -> None:
        """Store a file or a folder under ``key``, in place of what is there."""
        source, name = Path(source), self._name(key)
        if source.is_file():
            self._delete_folder(name)
            self._upload(source, name)
        elif source.is_dir():
            self._put_folder(source, name)
        else:
            raise UserError(f"{source} is neither a file nor a folder: nothing was stored as {self._url(name)}.")

    def get(self, key: str, target: Path) -> None:
        """Fetch the file or folder under ``key`` to ``target``, which appears whole and verified or not at all."""
        name, target = self._name(key), Path(target)
        manifest = self._manifest(name)
        if manifest is None:
            if (head := self._head(name)) is None:
                raise AssayError(f"{self._url(name)} does not exist.")
            if target.is_dir():
                raise UserError(f"{self._url(name)} is a file and {target} is a folder: name the file to write.")
            with disk_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                sha256 = head["Metadata"].get("sha256", "")
                self._download(name, target, _Entry(target.name, head["ContentLength"], sha256))
            return

        def fetch(entry: _Entry) -> None:
            file = folder / entry.path
            file.parent.mkdir(parents=True, exist_ok=True)
            self._download(f"{name}/{_FILES}/{entry.path}", file, entry)

        with atomic_folder(target) as folder:
            _in_parallel(fetch, manifest)

    def exists(self, key: str) -> bool:
        """Say whether a whole file or folder is stored under ``key``."""
        name = self._name(key)
        return self._head(f"{name}/{_MANIFEST}") is not None or self._head(name) is not None

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys of the files and whole folders at ``prefix`` and below it, sorted."""
        start = len(self._prefix) + 1 if self._prefix else 0
        found = set()
        for name in self._list(self._below(prefix)):
            key, _, part = name.partition("/@")  # no key and no prefix has a part that begins so
            if part in ("", _MANIFEST.removeprefix("@")):
                found.add(key[start:])
        return sorted(found)

    def delete(self, prefix: str) -> None:
        """Delete what is stored at ``prefix`` and below it; it is no error when there is nothing."""
        self._delete(self._list(self._below(prefix)))

    def _put_folder(self, source: Path, name: str) -> None:
        """Upload the files, then the manifest; whoever reads meanwhile finds no folder."""

        def upload(file: Path) -> _Entry:
            path = file.relative_to(source).as_posix()
            size, sha256 = self._upload(file, f"{name}/{_FILES}/{_checked(path, reserved='')}")
            return _Entry(path, size, sha256)

        self._delete([name])
        self._delete_folder(name)
        files = sorted(path for path in source.rglob("*") if path.is_file())
        entries = [vars(entry) for entry in _in_parallel(upload, files)]
        self._put_bytes(json.dumps({"files": entries}, indent=1).encode(), f"{name}/{_MANIFEST}")

    def _delete_folder(self, name: str) -> None:
        self._delete(each for each in self._list(name) if each.startswith((f"{name}/{_MANIFEST}", f"{name}/{_FILES}/")))

    def _manifest(self, name: str) -> list[_Entry] | None:
        """Return the files of a folder; None if there is no folder under that name."""
        manifest = f"{name}/{_MANIFEST}"
        head = self._head(manifest)
        if head is None:
            return None
        content = self._bytes(manifest, head["Metadata"].get("sha256", ""))
        return [
            _Entry(_checked(file["path"], reserved=""), file["size"], file["sha256"])
            for file in json.loads(content)["files"]
        ]

    def _upload(self, file: Path, name: str) -> tuple[int, str]:
        """Upload one file; return its size and its SHA-256."""
        size = file.stat().st_size
        if size <= _SMALL:
            content = file.read_bytes()
            return len(content), self._put_bytes(content, name)
        before = _signature(file)
        sha256 = file_digest(file)
        extra = {"Metadata": {"sha256": sha256}, "ChecksumAlgorithm": "CRC32"}  # of every part, checked by the store
        self._call(name, lambda s3: s3.upload_file(str(file), self._bucket, name, ExtraArgs=extra))
        head = self._head(name)
        if head is None or head["ContentLength"] != size or _signature(file) != before:
            raise AssayError(
                f"{self._url(name)} does not hold what {file} holds: it changed meanwhile; store it again."
            )
        return size, sha256

    def _put_bytes(self, content: bytes, name: str) -> str:
        digest = hashlib.sha256(content)
        checksum = base64.b64encode(digest.digest()).decode()
        settings = {"Metadata": {"sha256": digest.hexdigest()}, "ChecksumSHA256": checksum}
        answer = self._call(name, lambda s3: s3.put_object(Bucket=self._bucket, Key=name, Body=content, **settings))
        if answer.get("ChecksumSHA256", checksum) != checksum:
            raise AssayError(f"{self._url(name)} was stored with wrong bytes: store it again.")
        return digest.hexdigest()

    def _download(self, name: str, target: Path, entry: _Entry) -> None:
        """Fetch one object beside ``target`` and rename it when its bytes are right."""
        handle, staging = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        try:
            if entry.size <= _SMALL:
                Path(staging).write_bytes(self._bytes(name, entry.sha256))
            else:
                self._check(name, self._download_parts(name, Path(staging), entry.size), entry.sha256)
            Path(staging).chmod(0o644)
            Path(staging).replace(target)
        finally:
            Path(staging).unlink(missing_ok=True)

    def _download_parts(self, name: str, target: Path, size: int) -> str:
        """Fetch a large object in a few long streams at the same time, and return the SHA-256 of what was written.

        boto3's ``download_file`` asks for many short pieces and passes them through a queue, which takes as long
        as this with the digest.
        """
        length = -(-size // _STREAMS)

        def fetch(start: int) -> None:
            def stream(s3: Any) -> None:
                piece = f"bytes={start}-{min(start + length, size) - 1}"
                place = start
                for chunk in s3.get_object(Bucket=self._bucket, Key=name, Range=piece)["Body"].iter_chunks(_CHUNK):
                    place += os.pwrite(file.fileno(), chunk, place)

            self._call(name, stream)

        with target.open("r+b") as file:
            _in_parallel(fetch, range(0, size, length))
        return file_digest(target)

    def _bytes(self, name: str, sha256: str) -> bytes:
        """Return a small object's content, verified."""
        content = self._call(name, lambda s3: s3.get_object(Bucket=self._bucket, Key=name)["Body"].read())
        self._check(name, hashlib.sha256(content).hexdigest(), sha256)
        return content

    def _check(self, name: str, found: str, expected: str) -> None:
        if not expected:
            raise AssayError(
                f"{self._url(name)} has no SHA-256 with it, so it cannot be verified: store it with Assay."
            )
        if found != expected:
            raise AssayError(
                f"{self._url(name)} is damaged: its SHA-256 is {found[:12]}... and should be {expected[:12]}...; "
                "nothing was written; delete it and store it again."
            )

    def _head(self, name: str) -> dict[str, Any] | None:
        return self._call(name, lambda s3: s3.head_object(Bucket=self._bucket, Key=name), absent=None)

    def _list(self, name: str) -> list[str]:
        """Return the names of every object at ``name`` and below it, sorted."""

        def pages(s3: Any) -> list[str]:
            listing = s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=name)
            return [each["Key"] for page in listing for each in page.get("Contents", [])]

        return sorted(
            each for each in self._call(name, pages) if not name or each == name or each.startswith(f"{name}/")
        )

    def _delete(self, names: Iterable[str]) -> None:
        # Manifests first: a folder that is half deleted does not exist.
        ordered = sorted(names, key=lambda name: (not name.endswith(_MANIFEST), name))
        for start in range(0, len(ordered), 1000):
            batch = {"Objects": [{"Key": name} for name in ordered[start : start + 1000]], "Quiet": True}
            answer = self._call(ordered[start], partial(_delete_batch, bucket=self._bucket, batch=batch))
            for failure in answer.get("Errors", []):
                raise AssayError(f"{self._url(failure['Key'])} could not be deleted: {failure.get('Code')}.")

    @property
    def _bucket(self) -> str:
        return urlsplit(self.address).netloc

    @property
    def _prefix(self) -> str:
        return urlsplit(self.address).path.strip("/")

    def _name(self, key: str) -> str:
        """Return the object's name in the bucket."""
        return f"{self._prefix}/{_checked(key)}".lstrip("/")

    def _below(self, prefix: str) -> str:
        """Return the name that every object at ``prefix`` begins with; the empty prefix is the whole address."""
        return self._name(prefix.rstrip("/")) if prefix else self._prefix

    def _url(self, name: str) -> str:
        return f"{_SCHEME}://{self._bucket}/{name}"

    def _call(self, name: str, action: Callable[[Any], _Result], **default: Any) -> _Result:
        """Do one thing with the client, again and again while the server is away, for ``patience`` seconds.

        Every action that is given here can be done twice. With ``absent`` that is returned for an object that
        is not there.
        """
        import boto3.exceptions
        import botocore.exceptions

        failures = (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, boto3.exceptions.Boto3Error)
        deadline, wait = 0.0, _FIRST_WAIT
        while True:
            try:
                return action(_client(os.getpid(), *(os.environ.get(name, "") for name in _SETTINGS)))
            except failures as error:
                # boto3 wraps what the server said in an error of its own.
                cause = error.__context__ if isinstance(error, boto3.exceptions.S3UploadFailedError) else error
                code = getattr(cause, "response", {}).get("Error", {}).get("Code", "")
                if code in _ABSENT and "absent" in default:
                    return default["absent"]
                if not _may_pass(cause):
                    raise self._refusal(name, code, cause) from error
                now = time.monotonic()
                deadline = deadline or now + self.patience
                if now >= deadline:
                    raise self._lost(name, code or type(cause).__name__) from error
                time.sleep(min(wait, deadline - now))
                wait = min(2 * wait, _LONGEST_WAIT)

    def _lost(self, name: str, why: str) -> AssayError:
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
        return AssayError(
            f"The object store at {endpoint} did not answer for {self.patience:.0f} s ({why}, {self._url(name)}): "
            "start it (`assay services up`) and run the same command again."
        )

    def _refusal(self, name: str, code: str, cause: BaseException | None) -> AssayError:
        if code == "NoSuchBucket":
            return UserError(f"The bucket {self._bucket} does not exist: create it, or correct {self.address}.")
        if code in _ABSENT:
            return AssayError(f"{self._url(name)} does not exist.")
        reason = code or type(cause).__name__
        return UserError(
            f"The object store refuses {self._url(name)} ({reason}): check AWS_ENDPOINT_URL, AWS_PROFILE and "
            "AWS_SHARED_CREDENTIALS_FILE, and the permissions of that account."
        )


_ABSENT = ("404", "NoSuchKey", "NotFound")
_SETTINGS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_SHARED_CREDENTIALS_FILE", "AWS_PROFILE")


@functools.lru_cache(maxsize=4)
def _client(process: int, *settings: str) -> Any:
    """Return boto3's client; each process has its own, since connections do not survive a fork."""
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": 2},
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=4 * _WORKERS,
    )
    with _making_client:
        return boto3.session.Session().client("s3", config=config)


def _delete_batch(s3: Any, bucket: str, batch: dict[str, Any]) -> dict[str, Any]:
    return s3.delete_objects(Bucket=bucket, Delete=batch)


def _may_pass(error: BaseException | None) -> bool:
    """Say whether an error is one of a server that is away, starting, or too busy."""
    import boto3.exceptions
    import botocore.exceptions

    lost = (
        botocore.exceptions.ConnectionError,
        botocore.exceptions.HTTPClientError,
        botocore.exceptions.IncompleteReadError,
        boto3.exceptions.RetriesExceededError,
    )
    response = getattr(error, "response", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    damaged_on_the_way = response.get("Error", {}).get("Code") == "BadDigest"
    return isinstance(error, lost) or status >= 500 or status == 429 or damaged_on_the_way


def _checked(name: str, reserved: str = "@") -> str:
    """Return a name that stays below its address and does not look like a part of a stored folder."""
    for part in name.split("/"):
        unsafe = part in ("", ".", "..") or "\\" in part or not part.isprintable()
        if unsafe or (reserved and part.startswith(reserved)):
            raise UserError(
                f"{name!r} is not a valid name in an object store: use a relative one, with neither '..' nor '\\', "
                "of which no part is empty or begins with '@'."
            )
    return name


def _in_parallel(function: Callable[[Any], _Result], items: Iterable[Any]) -> list[_Result]:
    """Apply a function to every item, in threads, in order; the first failure stops what has not begun."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            pool.shutdown(cancel_futures=True)


def _signature(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns
