import pytest
import torch
from torch.nn import functional

from assay.classification import ClassificationConfig, predict_logits, train_classifier
from assay.classification.train import channel_statistics, create_optimizer
from assay.errors import UserError
from assay.models import ImageClassifier

CONFIG = ClassificationConfig(epochs=12, batch_size=64, learning_rate=0.1, shift=2)


@pytest.fixture(scope="module")
def splits(digits):
    return digits.split("train"), digits.split("test")


@pytest.fixture(scope="module")
def trained(splits):
    train, _ = splits
    return train_classifier(train.images, train.labels, CONFIG, seed=1)


def test_the_trained_model_reads_digits(trained, splits):
    _, test = splits
    predicted = predict_logits(trained, test.images).argmax(dim=1)
    assert (predicted == test.labels).float().mean() >= 0.93
    for digit in range(10):  # and no class is lost
        assert (predicted[test.labels == digit] == digit).float().mean() >= 0.7


@pytest.mark.parametrize("axis", [2, 3])
def test_a_shift_by_one_pixel_changes_few_predictions(trained, splits, axis):
    _, test = splits
    padding = [0, 0, 1, 0] if axis == 2 else [1, 0, 0, 0]
    shifted = functional.pad(test.images, padding)[:, :, :16, :16]
    before, after = (predict_logits(trained, images).argmax(dim=1) for images in (test.images, shifted))
    assert (before == after).float().mean() >= 0.9


def test_brightness_alone_changes_few_predictions(trained, splits):
    _, test = splits
    before = predict_logits(trained, test.images).argmax(dim=1)
    after = predict_logits(trained, test.images.float() / 255 * 0.9).argmax(dim=1)
    assert (before == after).float().mean() >= 0.9


def test_the_seed_decides_every_bit(splits):
    train, _ = splits
    images, labels = train.images[:128], train.labels[:128]
    config = ClassificationConfig(epochs=1, batch_size=32, erasing=0.5, horizontal_flip=0.5)
    first, same, other = (
        predict_logits(train_classifier(images, labels, config, seed=seed), images) for seed in (7, 7, 8)
    )
    assert torch.equal(first, same) and not torch.equal(first, other)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_spares_biases_and_normalisation(optimizer):
    model = ImageClassifier()
    config = ClassificationConfig(optimizer=optimizer, weight_decay=0.1)
    decayed = {
        id(p)
        for group in create_optimizer(model, config).param_groups
        if group["weight_decay"]
        for p in group["params"]
    }
    for name, parameter in model.named_parameters():
        assert (id(parameter) in decayed) == ("convolution.weight" in name or name == "classifier.weight")


def test_a_learning_rate_that_diverges_stops_with_a_sentence(splits):
    train, _ = splits
    config = ClassificationConfig(epochs=2, batch_size=64, learning_rate=1e30)
    with pytest.raises(UserError, match="lower the learning rate"):
        train_classifier(train.images, train.labels, config)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_out_of_range_is_named(label):
    images, labels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 2, label])
    with pytest.raises(UserError, match=f"Label {label} is out of range: 3 classes are numbered 0 to 2"):
        train_classifier(images, labels, class_names=["a", "b", "c"])


def test_one_image_is_too_few():
    with pytest.raises(UserError, match=r"1 training images .* batch normalisation needs 2"):
        train_classifier(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.tensor([0]))


def test_constant_images_do_not_divide_by_zero():
    images = torch.full((8, 3, 8, 8), 200, dtype=torch.uint8)
    config = ClassificationConfig(epochs=1, batch_size=4)
    model = train_classifier(images, torch.arange(8) % 2, config)
    assert predict_logits(model, images).isfinite().all()


def test_channel_statistics_are_those_of_the_float_images():
    images = torch.randint(0, 256, (20, 3, 7, 5), dtype=torch.uint8)
    mean, std = channel_statistics(images)
    floats = images.double() / 255
    assert mean == pytest.approx(floats.mean(dim=(0, 2, 3)).tolist())
    assert std == pytest.approx(floats.std(dim=(0, 2, 3), correction=0).tolist())
