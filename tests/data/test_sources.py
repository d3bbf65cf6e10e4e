import gzip
import io
import shutil
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from assay.data import hub, sources
from assay.data.idx import find_idx, read_idx
from assay.data.pins import dvc_repo, folder_digests, pin
from assay.errors import AssayError, UserError
from assay.project import Project


@pytest.fixture
def pinned(idx_project, tmp_path, monkeypatch):
    """A fresh clone: Fashion-MNIST pinned and not there; DVC's cache empty; no way to the outside."""
    pin(idx_project, "fashion-mnist")
    shutil.move(idx_project / "data" / "fashion-mnist", tmp_path / "original")
    shutil.rmtree(idx_project / ".dvc" / "cache")
    monkeypatch.setattr(sources, "from_debian", unavailable)
    monkeypatch.setattr(hub, "snapshot", unavailable)
    return Project(idx_project)


def unavailable(*_):
    raise sources.Unavailable("not here")


def offer_package(monkeypatch, original, folder, edit=lambda data: data):
    """Build a real Debian package of gzipped IDX files and let apt-get find it."""
    content = folder / "content"
    datasets = content / "usr" / "share" / "datasets" / "fashion-mnist"
    datasets.mkdir(parents=True)
    for file in original.iterdir():
        data = file.read_bytes()
        (datasets / f"{file.name}.gz").write_bytes(gzip.compress(edit(data) if "t10k-labels" in file.name else data))
    (content / "DEBIAN").mkdir()
    fields = {"Package": "dataset-fashion-mnist", "Version": "1", "Architecture": "all", "Maintainer": "a <a@b.c>"}
    text = "".join(f"{key}: {value}\n" for key, value in {**fields, "Description": "images"}.items())
    (content / "DEBIAN" / "control").write_text(text)
    package = folder / "dataset-fashion-mnist_1_all.deb"
    subprocess.run(["dpkg-deb", "-b", "-Znone", str(content), str(package)], check=True, capture_output=True)
    monkeypatch.setattr(sources, "_download_package", lambda name, work: package)
    monkeypatch.setattr(sources, "from_debian", FROM_DEBIAN)


FROM_DEBIAN = sources.from_debian
needs_dpkg = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is Debian's")


def offer_hub(monkeypatch, original, folder):
    """Write the Parquet layout of the hub's Fashion-MNIST."""
    for split, (images, labels) in find_idx(original).items():
        rows = [
            {"image": {"bytes": _png(image), "path": None}, "label": int(label)}
            for image, label in zip(read_idx(images), read_idx(labels), strict=True)
        ]
        home = folder / "fashion_mnist"
        home.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), home / f"{split}-00000-of-00001.parquet")
    monkeypatch.setattr(hub, "snapshot", lambda hub_id: folder)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@needs_dpkg
def test_debians_package_fills_data_and_a_second_pull_does_nothing(pinned, tmp_path, monkeypatch):
    offer_package(monkeypatch, tmp_path / "original", tmp_path / "package")
    (first,) = sources.pull(pinned)
    assert first.source == "Debian's package dataset-fashion-mnist_1_all"
    assert folder_digests(pinned.data / "fashion-mnist") == folder_digests(tmp_path / "original")
    (second,) = sources.pull(pinned, "fashion-mnist")
    assert second.source == ""


def test_the_hub_gives_the_same_bytes(pinned, tmp_path, monkeypatch):
    offer_hub(monkeypatch, tmp_path / "original", tmp_path / "hub")
    (pulled,) = sources.pull(pinned)
    assert pulled.source == "the Hugging Face hub (zalando-datasets/fashion_mnist)"
    assert folder_digests(pinned.data / "fashion-mnist") == folder_digests(tmp_path / "original")
    assert pulled.skipped == (
        "DVC remote: none is configured (`dvc remote add -d NAME URL`)",
        "Debian package: not here",
    )


def test_a_dvc_remote_comes_first(pinned, tmp_path, monkeypatch):
    shutil.copytree(tmp_path / "original", pinned.data / "fashion-mnist")
    with dvc_repo(pinned.root) as repo:
        repo.add("data/fashion-mnist")
        with repo.config.edit("repo") as settings:
            settings["remote"] = {"box": {"url": str(tmp_path / "box")}}
            settings["core"]["remote"] = "box"
    with dvc_repo(pinned.root) as repo:
        repo.push()
    shutil.rmtree(pinned.data)
    shutil.rmtree(pinned.root / ".dvc" / "cache")
    (pulled,) = sources.pull(pinned)
    assert pulled.source == f"the DVC remote box ({tmp_path / 'box'})"
    assert folder_digests(pinned.data / "fashion-mnist") == folder_digests(tmp_path / "original")

    shutil.rmtree(tmp_path / "box")
    shutil.rmtree(pinned.data)
    shutil.rmtree(pinned.root / ".dvc" / "cache")
    offer_hub(monkeypatch, tmp_path / "original", tmp_path / "hub")
    (pulled,) = sources.pull(pinned)
    assert "lacks this revision" in pulled.skipped[0]


def test_what_is_pushed_is_what_is_pinned_and_a_clone_pulls_it(pinned, tmp_path, monkeypatch):
    shutil.copytree(tmp_path / "original", pinned.data / "fashion-mnist")
    with pytest.raises(UserError, match=r"No DVC remote is configured: set ASSAY_PROFILE=services"):
        sources.push(pinned)
    settings = (pinned.root / ".dvc" / "config").read_text()
    monkeypatch.setenv("ASSAY_DATA_REMOTE", str(tmp_path / "box"))
    (pushed,) = sources.push(pinned)
    assert (pushed.name, pushed.files) == ("fashion-mnist", 5), "four files and the list of them"
    assert sources.push(pinned)[0].files == 0
    shutil.rmtree(pinned.data)
    shutil.rmtree(pinned.root / ".dvc" / "cache")
    assert sources.pull(pinned)[0].source == f"the DVC remote object-store ({tmp_path / 'box'})"
    assert (pinned.root / ".dvc" / "config").read_text() == settings, "where it is belongs to this machine"
    next(path for path in pinned.data.rglob("*") if path.is_file()).write_text("changed")
    with pytest.raises(UserError, match=r"does not match data.dvc"):
        sources.push(pinned)


def test_a_remote_that_is_away_is_one_sentence(pinned, tmp_path, monkeypatch):
    shutil.copytree(tmp_path / "original", pinned.data / "fashion-mnist")
    monkeypatch.setenv("ASSAY_DATA_REMOTE", "s3://assay/dvc")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "A")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-4711")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(AssayError, match=r"DVC: Could not connect to the endpoint URL") as caught:
        sources.push(pinned)
    assert "hush" not in str(caught.value)


@needs_dpkg
def test_a_wrong_byte_from_a_source_is_refused_by_name_and_nothing_is_written(pinned, tmp_path, monkeypatch):
    offer_package(monkeypatch, tmp_path / "original", tmp_path / "package", lambda data: data[:-1] + b"\x7f")
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte of fashion-mnist from Debian's package"):
        sources.pull(pinned)
    assert list(pinned.data.iterdir()) == []


def test_a_wrong_byte_in_data_is_refused_and_left_as_it_is(pinned, tmp_path):
    shutil.copytree(tmp_path / "original", pinned.data / "fashion-mnist")
    file = pinned.data / "fashion-mnist" / "train-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    before = folder_digests(pinned.data)
    with pytest.raises(UserError, match=r"data/fashion-mnist/train-labels-idx1-ubyte does not match data\.dvc"):
        sources.pull(pinned)
    assert folder_digests(pinned.data) == before


def test_a_missing_file_is_fetched_again(pinned, tmp_path, monkeypatch):
    shutil.copytree(tmp_path / "original", pinned.data / "fashion-mnist")
    (pinned.data / "fashion-mnist" / "train-labels-idx1-ubyte").unlink()
    offer_hub(monkeypatch, tmp_path / "original", tmp_path / "hub")
    sources.pull(pinned)
    assert folder_digests(pinned.data / "fashion-mnist") == folder_digests(tmp_path / "original")


def test_without_any_source_each_reason_is_told(pinned):
    with pytest.raises(AssayError, match=r"could not be fetched: DVC remote: none .*; Debian package: not here; Hug"):
        sources.pull(pinned)


def test_the_hub_out_of_reach_is_a_reason(monkeypatch):
    with pytest.raises(AssayError, match="The hub did not give the data set nobody/nothing"):
        hub.snapshot("nobody/nothing")


def test_a_project_that_pins_nothing_is_told_so(project):
    with pytest.raises(UserError, match="pins a data set"):
        sources.pull(Project(project))


@pytest.mark.parametrize("failing", ["download", "update"])
def test_without_package_lists_apt_uses_lists_of_its_own(tmp_path, monkeypatch, failing):
    """The first download fails on a new machine; the second runs on lists that need no root."""
    commands = []

    def run(command, folder):
        commands.append(command)
        own = any(part.startswith("-oDir::State::Lists=") for part in command)
        if not own or command[-1] == failing:
            raise sources.Unavailable("E: Unable to locate package")
        (folder / "x_1_all.deb").touch()

    monkeypatch.setattr(sources, "_run", run)
    if failing == "update":
        with pytest.raises(sources.Unavailable, match="Unable to locate"):
            sources._download_package("x", tmp_path)
        return
    assert sources._download_package("x", tmp_path).name == "x_1_all.deb"
    assert [command[-1] for command in commands] == ["x", "update", "x"]
    assert f"-oDir::State::Lists={tmp_path / 'lists'}" in commands[2]
