import os
import pickle
import signal
import threading
import time
from pathlib import Path

import pytest

from assay.errors import AssayError, UserError
from assay.storage import ObjectStore, is_remote

MB = 1 << 20


@pytest.fixture
def store(s3, monkeypatch, request) -> ObjectStore:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return ObjectStore(f"s3://assay/{request.node.name.partition('[')[0]}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    (root / "parts" / "@files").mkdir(parents=True)
    (root / "config.json").write_text("{}")
    (root / "empty").write_bytes(b"")
    (root / "parts" / "@files" / "@manifest.json").write_text("a name that the store uses itself")
    (root / "parts" / "large").write_bytes(os.urandom(9 * MB + 1))  # beyond one request
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_only_an_address_in_s3_is_remote():
    assert is_remote("s3://assay/training") and not is_remote(Path("s3")) and not is_remote("/s3://x")


@pytest.mark.parametrize("address", ["assay", "s3://", "http://assay", "s3://assay/../other", "s3://assay/a?b"])
def test_a_wrong_address_is_one_sentence(address):
    with pytest.raises(UserError, match="not a"):
        ObjectStore(address)


@pytest.mark.parametrize("key", ["..", "a/../../b", "/etc/passwd", "", "a//b", "a\\b", "a\nb", "@files/x"])
def test_a_key_cannot_climb_out_or_into_a_stored_folder(key, tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    for act in (ObjectStore("s3://assay").exists, lambda key: ObjectStore("s3://assay").put(file, key)):
        with pytest.raises(UserError, match="not a valid name"):
            act(key)


@pytest.mark.services
def test_files_and_folders_come_back_as_they_were(store, folder, tmp_path):
    store.put(folder, "run/epoch-1")
    store.put(folder / "parts" / "large", "run/epoch-10")
    assert store.keys() == store.keys("run") == ["run/epoch-1", "run/epoch-10"]
    assert store.keys("run/epoch-1") == ["run/epoch-1"], "a prefix is a path, not the beginning of a name"
    assert store.exists("run/epoch-1") and not store.exists("run") and not store.exists("run/epoch-1/parts")
    travelled = pickle.loads(pickle.dumps(store))  # noqa: S301
    travelled.get("run/epoch-1", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(folder)
    travelled.get("run/epoch-10", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == (folder / "parts" / "large").read_bytes()
    store.delete("run/epoch-1")
    assert store.keys() == ["run/epoch-10"]
    store.delete("run/epoch-1")
    store.delete("")
    assert store.keys() == []


@pytest.mark.services
def test_what_is_put_again_takes_the_place_of_what_was_there(store, folder, tmp_path):
    store.put(folder, "key")
    (folder / "parts" / "large").unlink()
    store.put(folder, "key")
    store.get("key", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(folder)
    store.put(folder / "config.json", "key")
    store.get("key", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "{}"


@pytest.mark.services
def test_a_half_written_folder_does_not_exist(store, folder, s3):
    class Killed(BaseException):
        pass

    put = ObjectStore._put_bytes
    written = []

    def die_at_the_manifest(self, content, name):
        if name.endswith("/@manifest.json") and "/@files/" not in name:
            raise Killed
        written.append(name)
        return put(self, content, name)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(ObjectStore, "_put_bytes", die_at_the_manifest)
        store.put(folder, "half")
    assert written and not store.exists("half") and store.keys() == []
    with pytest.raises(AssayError, match=r"s3://assay/.*/half does not exist"):
        store.get("half", folder.parent / "back")


@pytest.mark.services
@pytest.mark.parametrize("file", ["config.json", "parts/large"])
def test_a_damaged_object_is_refused_by_name_and_nothing_is_written(store, folder, tmp_path, s3, file):
    store.put(folder, "model")
    name = f"{store.address.removeprefix('s3://assay/')}/model/@files/{file}"
    before = s3.client.head_object(Bucket="assay", Key=name)
    size = before["ContentLength"]
    s3.client.put_object(Bucket="assay", Key=name, Body=b"x" * size, Metadata=before["Metadata"])
    with pytest.raises(AssayError, match=rf"model/@files/{file} is damaged: its SHA-256 is"):
        store.get("model", tmp_path / "back")
    assert not (tmp_path / "back").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "nothing half-written stays"


@pytest.mark.services
def test_an_object_of_somebody_else_cannot_be_verified(store, tmp_path, s3):
    s3.client.put_object(Bucket="assay", Key=f"{store.address.removeprefix('s3://assay/')}/foreign", Body=b"x")
    with pytest.raises(AssayError, match="foreign has no SHA-256"):
        store.get("foreign", tmp_path / "back")


@pytest.mark.services
def test_wrong_credentials_and_a_missing_bucket_are_one_sentence(store, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"bucket nowhere does not exist|refuses s3://nowhere"):
        ObjectStore("s3://nowhere").put(_file(tmp_path), "key")
    wrong = tmp_path / "credentials"
    wrong.write_text("[assay]\naws_access_key_id = A\naws_secret_access_key = hush-4711\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(wrong))
    with pytest.raises(UserError, match=r"refuses .*AWS_PROFILE") as caught:
        store.put(_file(tmp_path), "key")
    assert "hush" not in str(caught.value)


@pytest.mark.services
def test_a_server_that_is_away_for_a_while_is_ridden_out(store, tmp_path, s3):
    os.kill(s3.process.pid, signal.SIGKILL)
    restart = threading.Timer(3, s3.start)
    restart.start()
    store.put(_file(tmp_path), "key")
    restart.join()
    store.get("key", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "content"


def test_a_server_that_stays_away_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "A")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-4711")
    begin = time.monotonic()
    with pytest.raises(AssayError, match=r"http://127.0.0.1:9 did not answer for 1 s") as caught:
        ObjectStore("s3://assay", patience=1).put(_file(tmp_path), "key")
    assert time.monotonic() - begin < 15
    assert caught.value.exit_code == 1 and "hush" not in str(caught.value)


def _file(folder: Path) -> Path:
    file = folder / "file"
    file.write_text("content")
    return file
