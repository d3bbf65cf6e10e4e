import kornia.augmentation
import pytest
import torch
from torch.nn import functional

from assay.classification.augment import RandomShift, create_augmentation


def test_every_shift_is_a_whole_translation_with_zeros_at_the_border():
    torch.manual_seed(0)
    image = torch.rand(1, 3, 6, 5)
    padded = functional.pad(image, [2] * 4)
    translations = [padded[0, :, y : y + 6, x : x + 5] for y in range(5) for x in range(5)]
    shifted = RandomShift(2)(image.repeat(400, 1, 1, 1))
    found = [[torch.equal(one, other) for other in translations].index(True) for one in shifted]
    assert set(found) == set(range(25))  # each of the 25 translations, and nothing else


def test_shift_keeps_every_image_in_its_place_in_the_batch():
    values = torch.arange(1.0, 9).reshape(8, 1, 1, 1)
    shifted = RandomShift(1)(values.expand(8, 1, 5, 5))
    assert torch.equal(shifted.amax(dim=(1, 2, 3)), values.flatten())


def test_shift_has_the_distribution_of_kornias_padded_crop():
    torch.manual_seed(0)
    images = torch.rand(1, 1, 6, 6).repeat(4000, 1, 1, 1)
    ours = RandomShift(1)(images)
    theirs = kornia.augmentation.RandomCrop((6, 6), padding=1)(images)
    assert torch.allclose(ours.mean(0), theirs.mean(0), atol=0.05)


def test_randomness_is_seeded_by_torch():
    augment = create_augmentation(horizontal_flip=0.5, shift=2, erasing=0.5)
    images = torch.rand(16, 1, 12, 12)

    def draw(seed):
        torch.manual_seed(seed)
        return augment(images)

    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))


def test_flip_mirrors_the_stated_share():
    torch.manual_seed(0)
    images = torch.tensor([0.0, 1.0]).expand(4000, 1, 1, 2)
    flipped = create_augmentation(horizontal_flip=0.3)(images)[:, 0, 0, 0].mean()
    assert flipped == pytest.approx(0.3, abs=0.03)


def test_without_any_augmentation_images_pass_through():
    images = torch.rand(2, 1, 4, 4)
    assert torch.equal(create_augmentation()(images), images)
