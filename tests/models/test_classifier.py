import shutil

import pytest
import torch
from transformers import ResNetConfig, ResNetModel

from assay.errors import UserError
from assay.models import ImageClassifier


@pytest.fixture
def images():
    return torch.randint(0, 256, (7, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_bytes_and_floats_give_the_same_logits(images):
    model = ImageClassifier().eval()
    assert torch.allclose(model(images), model(images.float() / 255), atol=1e-6)


def test_normalisation_is_inside_the_model(images):
    torch.manual_seed(0)
    plain = ImageClassifier(mean=[0.0], std=[1.0]).eval()
    normalised = ImageClassifier(mean=[0.3], std=[0.2]).eval()
    normalised.load_state_dict(plain.state_dict())
    assert torch.allclose(normalised(images), plain((images.float() / 255 - 0.3) / 0.2), atol=1e-5)


@pytest.mark.parametrize("backbone", ["resnet-small", "vit-small"])
def test_logits_are_the_head_on_the_features_and_stages_are_in_reach(backbone, images):
    model = ImageClassifier(backbone).eval()
    assert torch.allclose(model.classifier(model.features(images)), model(images), atol=1e-5)
    states = model.hidden_states(images)
    assert len(states) >= 4 and all(len(state) == len(images) for state in states)


def test_what_is_saved_is_what_is_loaded(tmp_path, images):
    model = ImageClassifier(num_classes=2, mean=[0.3], std=[0.2], class_names=["cat", "dog"]).eval()
    model.save_pretrained(tmp_path)
    loaded = ImageClassifier.from_pretrained(tmp_path)
    assert torch.equal(loaded(images), model(images))
    assert loaded.class_names == ["cat", "dog"] and not loaded.training
    assert {p.name for p in tmp_path.iterdir()} == {"README.md", "config.json", "model.safetensors"}


def test_a_hub_backbone_is_loaded_again_without_its_source(tmp_path, images):
    source = tmp_path / "hub"
    config = ResNetConfig(hidden_sizes=[8, 16], depths=[1, 1], embedding_size=8, layer_type="basic")
    ResNetModel(config).save_pretrained(source)
    model = ImageClassifier(str(source)).eval()  # grey images, three-channel weights
    model.save_pretrained(tmp_path / "model")
    shutil.rmtree(source)
    assert torch.equal(ImageClassifier.from_pretrained(tmp_path / "model")(images), model(images))


@pytest.mark.parametrize("backbone", ["resnet-small", "vit-small"])
def test_export_takes_any_batch_size(backbone, images):
    model = ImageClassifier(backbone).eval()
    program = torch.export.export(model, (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for size in (1, 2, 7):
        assert torch.allclose(program.module()(images[:size]), model(images[:size]), atol=1e-5)


def test_images_of_another_size_fit_a_transformer(images):
    model = ImageClassifier("vit-small", image_size=32).eval()
    assert model(images).shape == (7, 10)


def test_class_names_must_be_as_many_as_the_classes():
    with pytest.raises(UserError, match="2 class names for 3 classes"):
        ImageClassifier(num_classes=3, class_names=["a", "b"])


@pytest.mark.parametrize("damage", ["empty", "truncated", "other model"])
def test_a_damaged_artifact_is_refused_in_one_sentence(tmp_path, damage):
    ImageClassifier(num_classes=2).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    if damage == "empty":
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        ImageClassifier("resnet-small", num_classes=3).save_pretrained(tmp_path / "other")
        (tmp_path / "other" / "model.safetensors").replace(weights)
    with pytest.raises(UserError, match="is not an image classifier") as caught:
        ImageClassifier.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_that_only_a_pickle_holds_are_refused(tmp_path):
    ImageClassifier(num_classes=2).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(ImageClassifier(num_classes=2).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is refused: it is a pickle"):
        ImageClassifier.from_pretrained(tmp_path)
