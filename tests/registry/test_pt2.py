import pickle
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from assay.errors import UserError
from assay.registry import Lineage
from assay.registry.pt2 import MODEL_FILE, content_digest
from tests.registry.conftest import CLASSES


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.fixture
def stored(registry, models, pixels, tmp_path_factory) -> Path:
    """The folder of a version that a test may tamper with."""
    lineage = Lineage(data_revision=str(tmp_path_factory.mktemp("unique")))
    version = registry.register("digits", models[0], pixels, lineage=lineage, class_names=CLASSES)
    uri = registry.client.get_model_version_download_uri("digits", str(version))
    return Path(uri.removeprefix("file://"))


def test_a_pickle_beside_or_in_place_of_the_model_is_refused_by_name(registry, stored, tmp_path):
    mark = tmp_path / "ran"
    payload = pickle.dumps(Malicious(mark))
    (stored / "data" / "model.pth").write_bytes(payload)
    (stored / "data" / "pickle_module_info.txt").write_text("pickle")
    with pytest.raises(UserError, match=r"digits/3 is refused: data/model\.pth: .*pickle"):
        registry.load("digits", 3)
    for name in ("model.pth", "pickle_module_info.txt"):
        (stored / "data" / name).unlink()
    (stored / MODEL_FILE).write_bytes(payload)
    with pytest.raises(UserError, match=r"digits/3 is refused: data/model\.pt2: it is not a pt2 archive"):
        registry.load("digits", 3)
    assert not mark.exists()


def test_a_pickle_inside_the_archive_is_refused(registry, stored, tmp_path):
    """Even where the attacker could change the recorded digest too."""
    mark = tmp_path / "ran"
    torch.save({"weights": Malicious(mark)}, tmp_path / "evil.pt")
    with zipfile.ZipFile(stored / MODEL_FILE, "a") as archive:
        archive.write(tmp_path / "evil.pt", "model/data/sample_inputs/evil.pt")
    with pytest.raises(UserError, match="it is not the file that was registered"):
        registry.load("digits", 3)
    registry.client.delete_model_version_tag("digits", "3", "assay.file_sha256")
    with pytest.raises(UserError, match=r"digits/3 is refused: data/model\.pt2: it holds a pickle"):
        registry.load("digits", 3)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"flavors": {"sklearn": {}}}, "not a plain model of MLflow's pytorch flavour"),
        ({"flavors": {"pytorch": {"model_data": "data", "code": "code"}}}, "not a plain model"),
        ({"flavors": {"pytorch": {"model_data": "../data", "code": None}}}, "not a plain model"),
        ({"metadata": None}, "lacks the metadata channels, class_names, image_size"),
    ],
)
def test_a_description_that_leads_elsewhere_is_refused(registry, stored, change, why):
    description = yaml.safe_load((stored / "MLmodel").read_text())
    (stored / "MLmodel").write_text(yaml.safe_dump({**description, **change}))
    with pytest.raises(UserError, match=f"digits/3 is refused: MLmodel: .*{why}"):
        registry.load("digits", 3)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[", b"- a list"])
def test_a_damaged_description_is_one_sentence(registry, stored, content):
    (stored / "MLmodel").write_bytes(content)
    with pytest.raises(UserError, match="digits/3 is refused: MLmodel"):
        registry.load("digits", 3)


def test_the_digest_sees_weights_architecture_and_description(models):
    linear = torch.nn.Linear(3, 2)
    digest = content_digest(linear, {"classes": ["a"]})
    assert digest == content_digest(linear, {"classes": ["a"]})
    others = [
        content_digest(linear, {"classes": ["b"]}),
        content_digest(torch.nn.Sequential(linear), {"classes": ["a"]}),
    ]
    with torch.no_grad():
        linear.weight[0, 0] += 1e-7
    others.append(content_digest(linear, {"classes": ["a"]}))
    assert len({digest, *others}) == 4
    assert content_digest(linear.bfloat16(), {}) != content_digest(linear.float(), {})
