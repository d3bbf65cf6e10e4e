"""What verified puts and gets cost over boto3's own ``upload_file`` and ``download_file``."""

import os
import statistics
import time
from pathlib import Path

import pytest

from assay.storage import ObjectStore
from tests.conftest import S3Server

MB = 1 << 20
PAIRS = 3
LEAST = 0.7  # of boto3's speed
SIZES = {"1 x 256 MB": (1, 256 * MB), "64 x 1 MB": (64, MB)}


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.stop()


def boto3_put(client, folder: Path) -> None:
    for file in sorted(folder.iterdir()):
        client.upload_file(str(file), "assay", f"boto3/{file.name}")


def boto3_get(client, folder: Path, target: Path) -> None:
    target.mkdir()
    for file in sorted(folder.iterdir()):
        client.download_file("assay", f"boto3/{file.name}", str(target / file.name))


def seconds(function, *arguments) -> float:
    begin = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - begin


@pytest.mark.parametrize("shape", SIZES)
def test_a_verified_transfer_keeps_up_with_boto3(s3, tmp_path, monkeypatch, shape):
    import boto3

    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    client, store = boto3.session.Session().client("s3"), ObjectStore("s3://assay/bench")
    count, size = SIZES[shape]
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:03d}").write_bytes(os.urandom(size))
    puts, gets = [], []
    for pair in range(PAIRS):
        puts.append(seconds(boto3_put, client, folder) / seconds(store.put, folder, "folder"))
        theirs, ours = tmp_path / f"boto3-{pair}", tmp_path / f"ours-{pair}"
        gets.append(seconds(boto3_get, client, folder, theirs) / seconds(store.get, "folder", ours))
        assert {file.name: file.read_bytes() for file in ours.iterdir()} == {
            file.name: file.read_bytes() for file in theirs.iterdir()
        }
    put, get = statistics.median(puts), statistics.median(gets)
    print(f"\n{shape}: put {put:.2f}, get {get:.2f} times boto3's speed (medians of {PAIRS} pairs)")
    assert put >= LEAST
    assert get >= LEAST
