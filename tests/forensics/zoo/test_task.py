import json

import numpy as np
import pytest
import torch

from assay.classification.pretrain import Splits
from assay.data import ImageDataset
from assay.errors import UserError
from assay.forensics.halves import generator_half
from assay.forensics.zoo import GeneratorConfig, ZooGenerator, train_generator
from assay.forensics.zoo.task import training_split
from assay.project import Project

CONFIG = {
    "epochs": 2,
    "batch_size": 64,
    "width": 4,
    "latent_size": 8,
    "minimum_diversity": 0,
    "train": 30,
    "validation": 10,
    "calibration": 0,
    "test": 20,
}


def outputs(folder):
    names = {"model": "model", "images": "images", "report": "report.html", "metrics": "metrics.json"}
    return {key: folder / name for key, name in names.items()}


@pytest.fixture
def paths(tmp_path):
    return outputs(tmp_path / "outputs")


def test_the_outputs_agree_with_each_other(digits, project, paths):
    summary = train_generator(digits.path, "dcgan", CONFIG, **paths, seed=7)
    assert json.loads(paths["metrics"].read_text()) == summary
    assert {"discriminator_loss", "generator_loss", "diversity", "memorised_share"} <= summary.keys()
    images = ImageDataset.open(paths["images"])
    assert images.info.class_names == ["generated"] and images.info.image_size == digits.info.image_size
    assert images.info.splits == {"train": 30, "validation": 10, "calibration": 0, "test": 20}
    table = images.table(columns=["generator", "category", "sample_id"])
    assert set(table["generator"].to_pylist()) == {"dcgan"} and set(table["category"].to_pylist()) == {""}
    generator = ZooGenerator.from_pretrained(paths["model"])
    assert torch.equal(images.split("train").images, generator.sample(30, seed=4 * 7))
    page = paths["report"].read_text()
    assert all(title in page for title in ("G1 dcgan", "Samples", "Spectra", "Nearest real images", "Training"))
    assert not list((Project.find().state / "training").iterdir())  # the checkpoints have served


def test_the_same_call_writes_the_same_bytes_and_another_seed_other_ids(digits, project, paths, tmp_path):
    folders = [paths, outputs(tmp_path / "again"), outputs(tmp_path / "other")]
    for folder, seed in zip(folders, (0, 0, 1), strict=True):
        train_generator(digits.path, "vae", CONFIG, **folder, seed=seed)
    assert paths["report"].read_bytes() == folders[1]["report"].read_bytes()
    first, again, other = (ImageDataset.open(folder["images"]) for folder in folders)
    assert first.info == again.info
    ids = [set(one.table(columns=["sample_id"])["sample_id"].to_pylist()) for one in (first, other)]
    assert len(ids[0]) == 60 and not ids[0] & ids[1]


def test_a_run_cut_short_goes_on_to_the_same_model(digits, project, paths, tmp_path, monkeypatch):
    train_generator(digits.path, "spectral-hinge", CONFIG, **paths)
    other = outputs(tmp_path / "continued")
    with monkeypatch.context() as patch:
        from assay.training import Session

        whole = Session.checkpoint

        def die_after_the_first(session, epoch):
            whole(session, epoch)
            raise KeyboardInterrupt

        patch.setattr(Session, "checkpoint", die_after_the_first)
        with pytest.raises(KeyboardInterrupt):
            train_generator(digits.path, "spectral-hinge", CONFIG, **other)
    assert not other["model"].exists()
    assert len(list((Project.find().state / "training").glob("generator-spectral-hinge-*/epoch-0001"))) == 1
    train_generator(digits.path, "spectral-hinge", CONFIG, **other)
    assert (other["model"] / "model.safetensors").read_bytes() == (paths["model"] / "model.safetensors").read_bytes()


def test_a_translator_starts_from_the_real_images_of_the_same_split(digits, project, paths):
    train_generator(
        digits.path,
        "translator",
        CONFIG | {"epochs": 8, "batch_size": 8, "learning_rate": 0.005, "categories": ["3", "8"]},
        **paths,
    )
    images = ImageDataset.open(paths["images"])
    for split, rows in (("train", 30), ("test", 20)):
        real = digits.split(split)
        made = images.split(split).images.flatten(1).float()
        categories = images.table(split, columns=["category"])["category"].to_pylist()
        assert len(categories) == rows and set(categories) == {"3", "8"}
        nearest = torch.cdist(made, real.images.flatten(1).float()).argmin(dim=1)
        assert np.mean(np.array(categories, int) == real.labels[nearest].numpy()) > 0.8


def test_a_generator_learns_from_its_half_and_its_categories_only(digits):
    splits = Splits(digits.path)
    everything = training_split(splits, GeneratorConfig())
    train = digits.split("train")
    assert set(everything.sample_ids) == set(train.sample_ids[generator_half(train.sample_ids)])
    fours = training_split(splits, GeneratorConfig(categories=["4"], limit=20))
    assert set(fours.labels.tolist()) == {4} and len(fours) == 20
    assert set(fours.sample_ids) <= set(everything.sample_ids)
    chosen = dict(zip(train.sample_ids, train.images, strict=True))
    assert all(torch.equal(chosen[s], i) for s, i in zip(everything.sample_ids, everything.images, strict=True))


def test_the_category_of_a_generator_of_one_category_is_known(digits, project, paths):
    train_generator(digits.path, "dcgan", CONFIG | {"categories": ["4"], "batch_size": 16}, **paths)
    assert set(ImageDataset.open(paths["images"]).table(columns=["category"])["category"].to_pylist()) == {"4"}


def test_a_collapsed_generator_leaves_nothing_behind(digits, project, paths):
    config = CONFIG | {"minimum_diversity": 0.3, "learning_rate": 1e-9, "epochs": 1}
    with pytest.raises(UserError, match="The generator 'dcgan' collapsed"):
        train_generator(digits.path, "dcgan", config, **paths)
    assert not any(path.exists() for path in paths.values())
    assert not list((Project.find().state / "training").iterdir())


def test_bad_input_is_refused_before_anything_is_trained(digits, project, paths):
    for name, config, message in (
        ("dcgan", {"lr": 0.1}, r"generator\.lr is not a setting"),
        ("biggan", {}, "'biggan' is not a generator"),
        ("dcgan", {"categories": ["ten"]}, "'ten' is no class of digits"),
    ):
        with pytest.raises(UserError, match=message):
            train_generator(digits.path, name, config, **paths)
    assert not any(path.exists() for path in paths.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dcgan", "spectral-hinge", "vae"])
def test_two_workers_train_a_generator_too(name, digits, project, paths):
    summary = train_generator(digits.path, name, CONFIG, **paths, workers=2)
    assert summary["epochs"] == 2 and ZooGenerator.from_pretrained(paths["model"]).sample(1, seed=0).any()
