import json

import pytest
import torch

from assay.errors import UserError
from assay.forensics.zoo import GENERATORS, GeneratorConfig, ZooGenerator
from assay.forensics.zoo.generators import Shape
from assay.forensics.zoo.training import create_generator

SMALL = Shape(channels=3, image_size=(10, 19), width=4, latent_size=8)


def parameters(generator):
    return sum(parameter.numel() for parameter in generator.parameters())


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_is_small_by_default(name):
    for shape in ((1, 28, 28), (3, 32, 32)):
        images = torch.zeros(1, *shape, dtype=torch.uint8)
        assert parameters(create_generator(name, images, GeneratorConfig())) <= 500_000


def test_the_labels_are_those_of_the_protocol():
    assert [spec.label for spec in GENERATORS.values()] == [f"G{number}" for number in range(1, 9)]


def test_the_anti_artefact_generator_differs_from_dcgan_in_its_last_layer_only():
    shapes = [
        {name: value.shape for name, value in ZooGenerator(name, SMALL).state_dict().items()}
        for name in ("dcgan", "anti-artefact")
    ]
    different = {name for name in shapes[0].keys() | shapes[1].keys() if shapes[0].get(name) != shapes[1].get(name)}
    assert different and all(name.startswith("network.upsample.4") for name in different)


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (13, 30)])
def test_padding_and_rounding_lose_nothing(size):
    generator = ZooGenerator("nearest", Shape(1, size, width=2, latent_size=4))
    images = torch.randint(0, 256, (4, 1, *size), dtype=torch.uint8)
    seen = generator.encode(images)
    assert all(side % 8 == 0 for side in seen.shape[2:]) and seen.abs().max() <= 1
    assert torch.equal(generator.decode(seen), images)


@pytest.mark.parametrize("name", GENERATORS)
def test_samples_depend_on_the_seed_and_on_nothing_else(name):
    torch.manual_seed(0)
    generator = ZooGenerator(name, SMALL).train()
    sources = torch.randint(0, 256, (300, 3, 10, 19), dtype=torch.uint8)
    first = generator.sample(300, seed=1, sources=sources)
    assert first.dtype == torch.uint8 and first.shape == (300, 3, 10, 19) and generator.training
    torch.manual_seed(5)
    assert torch.equal(first, generator.sample(300, seed=1, sources=sources))
    assert torch.equal(first[:256], generator.sample(256, seed=1, sources=sources[:256]))
    assert not torch.equal(first, generator.sample(300, seed=2, sources=sources))


@pytest.mark.parametrize("name", ["dcgan", "translator"])
def test_a_saved_generator_makes_the_same_images(name, tmp_path):
    generator, sources = ZooGenerator(name, SMALL), torch.zeros(3, 3, 10, 19, dtype=torch.uint8)
    generator.save_pretrained(tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"config.json", "model.safetensors"}
    loaded = ZooGenerator.from_pretrained(tmp_path / "model")
    assert torch.equal(loaded.sample(3, seed=0, sources=sources), generator.sample(3, seed=0, sources=sources))


def test_what_is_no_generator_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match="is not a generator"):
        ZooGenerator.from_pretrained(tmp_path)
    ZooGenerator("dcgan", SMALL).save_pretrained(tmp_path / "model")
    description = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(description | {"width": 8}))
    with pytest.raises(UserError, match="is not a generator"):
        ZooGenerator.from_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match="the generators are dcgan, nearest"):
        ZooGenerator("stylegan", SMALL)


def test_a_translator_wants_one_source_for_each_image():
    translator = ZooGenerator("translator", SMALL)
    with pytest.raises(UserError, match="give it 2 source images, not none"):
        translator.sample(2, seed=0)
    with pytest.raises(UserError, match="give it 2 source images, not 3"):
        translator.sample(2, seed=0, sources=torch.zeros(3, 3, 10, 19, dtype=torch.uint8))
