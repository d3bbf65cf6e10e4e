import subprocess
import sys

import pytest
import yaml

from assay.data.pins import Pins, folder_digests, folder_revision, pin
from assay.errors import UserError


@pytest.fixture
def two(project):
    """A project that pins two data sets."""
    for name, text in {"a": "one", "b": "two"}.items():
        (project / "data" / name / "sub").mkdir(parents=True)
        (project / "data" / name / "x").write_text(text)
        (project / "data" / name / "sub" / "y").write_text(text * 2)
        pin(project, name)
    return project


def dvc(project, *arguments):
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout


def test_the_revision_is_the_one_that_dvc_computes(two):
    outs = {out["path"]: out for out in yaml.safe_load((two / "data.dvc").read_text())["outs"]}
    digests = folder_digests(two / "data" / "a")
    assert outs["data/a"]["md5"] == folder_revision(digests) == Pins.read(two).revision("a")
    assert outs["data/a"]["nfiles"] == len(digests) == 2


def test_dvc_accepts_the_file_and_fetches_what_was_pushed(two, tmp_path):
    dvc(two, "remote", "add", "-d", "box", str(tmp_path / "box"))
    dvc(two, "push", "-q")
    for folder in ("data", ".dvc/cache"):
        (two / folder).rename(tmp_path / folder.replace("/", "-"))
    dvc(two, "pull", "-q")
    assert (two / "data" / "b" / "sub" / "y").read_text() == "twotwo"
    assert "up to date" in dvc(two, "status")


def test_dvc_is_told_to_report_to_nobody(two):
    assert "analytics = false" in (two / ".dvc" / "config").read_text()


def test_pinning_one_data_set_keeps_the_pin_of_the_other_even_when_its_files_are_gone(two):
    before = Pins.read(two)
    (two / "data" / "b").rename(two / "elsewhere")
    (two / "data" / "a" / "x").write_text("changed")
    pin(two, "a")
    after = Pins.read(two)
    assert after.revision("b") == before.revision("b")
    assert after.files["b"] == before.files["b"]
    assert after.revision("a") != before.revision("a")


def test_a_clone_without_its_git_history_still_works(two):
    config = two / ".dvc" / "config"
    config.write_text(config.read_text().replace("no_scm", "autostage").replace("True", "false"))
    assert "no_scm" not in config.read_text()
    (two / "data" / "a" / "x").write_text("changed")
    assert pin(two, "a") == Pins.read(two).revision("a")


def test_in_a_git_repository_what_belongs_there_is_left_to_git(project):
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    (project / "data" / "a").mkdir(parents=True)
    (project / "data" / "a" / "x").write_text("one")
    pin(project, "a")
    ignored = subprocess.run(
        ["git", "check-ignore", "data/a/x", ".dvc/cache", ".dvc/tmp"], cwd=project, capture_output=True
    )
    assert ignored.stdout.split() == [b"data/a/x", b".dvc/cache", b".dvc/tmp"]
    assert "no_scm" not in (project / ".dvc" / "config").read_text()


def test_pinning_again_changes_nothing(two):
    before = (two / "data.dvc").read_bytes()
    pin(two, "a")
    assert (two / "data.dvc").read_bytes() == before


def test_right_files_pass(two):
    Pins.read(two).verify("a")


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda folder: (folder / "x").write_text("onf"), r"data/a/x does not match data\.dvc"),
        (lambda folder: (folder / "new").write_text(""), r"data/a/new does not match data\.dvc"),
        (lambda folder: (folder / "sub" / "y").unlink(), r"data/a lacks sub/y: run `assay data pull a`"),
    ],
)
def test_a_wrong_byte_is_refused_by_name(two, harm, sentence):
    harm(two / "data" / "a")
    with pytest.raises(UserError, match=sentence):
        Pins.read(two).verify("a")


def test_without_the_list_of_files_a_change_is_still_noticed(two):
    content = yaml.safe_load((two / "data.dvc").read_text())
    del content["meta"]
    (two / "data.dvc").write_text(yaml.safe_dump(content))
    Pins.read(two).verify("a")
    (two / "data" / "a" / "x").write_text("onf")
    with pytest.raises(UserError, match="one of its files does not match"):
        Pins.read(two).verify("a")


def test_a_list_that_does_not_add_up_is_not_trusted(two):
    text = (two / "data.dvc").read_text()
    wrong = text.replace(Pins.read(two).files["a"]["x"], "0" * 32)
    (two / "data.dvc").write_text(wrong)
    assert "a" not in Pins.read(two).files
    Pins.read(two).verify("a")


def test_what_is_not_pinned_or_no_dvc_file_is_a_sentence(two):
    with pytest.raises(UserError, match=r"pins no data set 'c' \(it pins a, b\)"):
        Pins.read(two).revision("c")
    for text in ("outs: 3", "[1, 2", "just text"):
        (two / "data.dvc").write_text(text)
        with pytest.raises(UserError, match="is not a DVC file"):
            Pins.read(two)


def test_a_cache_on_a_full_disk_is_one_sentence_and_nothing_is_pinned(project, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        (project / "data" / "a").mkdir(parents=True)
        (project / "data" / "a" / "x").write_bytes(bytes(range(256)) * 8192)
        (project / ".dvc").mkdir()
        (project / ".dvc" / "config").write_text(f"[core]\n    analytics = false\n[cache]\n    dir = {disk / 'c'}\n")
        with pytest.raises(UserError, match=r"DVC could not keep a copy of data/a/x in .*: free some space"):
            pin(project, "a")
        assert not (project / "data.dvc").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_empty_folder_cannot_be_pinned(project):
    (project / "data" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no files"):
        pin(project, "a")
    assert not (project / "data.dvc").exists()
