import pytest
import torch
from transformers import ResNetConfig, ResNetModel

from assay.errors import UserError
from assay.models.backbones import BACKBONES, create_backbone, feature_size


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize(("channels", "image_size"), [(1, 28), (3, 32)])
def test_every_backbone_pools_to_its_feature_size(name, channels, image_size):
    backbone = create_backbone(name, channels=channels, image_size=image_size).eval()
    with torch.no_grad():
        output = backbone(torch.rand(2, channels, image_size, image_size))
    assert output.pooler_output.flatten(1).shape == (2, feature_size(backbone.config))


@pytest.mark.parametrize(("image_size", "stem_size"), [(32, 32), (96, 96), (128, 32), (224, 56)])
def test_small_images_keep_their_resolution_in_the_stem(image_size, stem_size):
    backbone = create_backbone("resnet18", channels=3, image_size=image_size)
    with torch.no_grad():
        states = backbone(torch.rand(1, 3, image_size, image_size), output_hidden_states=True).hidden_states
    assert states[0].shape[-1] == stem_size


def test_resnet18_and_50_have_the_published_number_of_parameters():
    # torchvision's counts less the classification layer: 11,689,512 - 513,000 and 25,557,032 - 2,049,000.
    for name, published in [("resnet18", 11_176_512), ("resnet50", 23_508_032)]:
        backbone = create_backbone(name, channels=3, image_size=224)
        assert sum(p.numel() for p in backbone.parameters()) == published


def test_a_local_folder_gives_its_weights(tmp_path):
    saved = ResNetModel(ResNetConfig(hidden_sizes=[8, 16], depths=[1, 1], embedding_size=8, layer_type="basic"))
    saved.save_pretrained(tmp_path)
    loaded = create_backbone(str(tmp_path), channels=3, image_size=32)
    assert all(torch.equal(a, b) for a, b in zip(saved.parameters(), loaded.parameters(), strict=True))


def test_a_hub_id_that_cannot_be_reached_is_one_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"'nobody/nothing' is neither one of resnet-small, .* check the spelling"):
        create_backbone("nobody/nothing")


def test_a_folder_with_pickled_weights_is_refused(tmp_path):
    saved = ResNetModel(ResNetConfig(hidden_sizes=[8, 16], depths=[1, 1], embedding_size=8, layer_type="basic"))
    saved.config.save_pretrained(tmp_path)
    torch.save(saved.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="save the model as safetensors"):
        create_backbone(str(tmp_path))
