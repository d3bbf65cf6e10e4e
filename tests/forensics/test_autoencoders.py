import pytest
import torch
from torch import nn
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from assay.forensics.augmentation import gaussian_blur
from assay.forensics.autoencoders import (
    Autoencoder,
    create_bank,
    matched_blur,
    reconstruction_loss,
    squared_error,
    to_eight_bits,
)
from assay.forensics.upsampling import UPSAMPLINGS


@pytest.fixture(scope="module")
def digits_images(digits_arrays):
    return torch.from_numpy(digits_arrays[0])[:, None].float() / 255


@pytest.mark.parametrize("shape", [(2, 1, 28, 28), (2, 3, 33, 17)])
@pytest.mark.parametrize("upsampling", [*UPSAMPLINGS, None])
def test_every_kind_keeps_the_shape_of_any_image(upsampling, shape):
    images = torch.rand(shape)
    for depth in (1, 2, 3):
        assert Autoencoder(shape[1], depth, 4, upsampling)(images).shape == images.shape


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_resolution_is_doubled_as_often_as_the_depth_says(upsampling, depth):
    sizes = []
    model = Autoencoder(1, depth, 4, upsampling)
    for layer in model.layers:
        layer.register_forward_hook(lambda _, inputs, output: sizes.append(output.shape[-1] / inputs[0].shape[-1]))
    model(torch.rand(1, 1, 32, 32))
    assert (sizes.count(0.5), sizes.count(2)) == (depth, depth)


def interior(images, border=8):
    return images[..., border:-border, border:-border]


@pytest.mark.parametrize("depth", [1, 2])
def test_up_convolutions_leave_a_trace_of_their_period_and_stride_1_leaves_none(depth):
    torch.manual_seed(0)
    flat = torch.full((1, 1, 64, 64), 0.7)
    period = 2**depth
    with torch.no_grad():
        trace = interior(Autoencoder(1, depth, 8, "transposed")(flat), border=16)
        no_trace = interior(Autoencoder(1, depth, 8, None)(flat), border=16)
    assert torch.allclose(trace[..., period:], trace[..., :-period], atol=1e-5)
    assert (trace[..., 1:] - trace[..., :-1]).abs().max() > 1e-3
    assert no_trace.amax() - no_trace.amin() < 1e-5


def test_every_image_is_reconstructed_by_one_member_and_members_take_turns():
    bank = create_bank(1, [1, 2], ["transposed", "nearest"], width=4)
    images = torch.rand(10, 1, 12, 12)
    every, mixed = bank(images), bank.mixed(images)
    assert every.shape == (4, 10, 1, 12, 12)
    for index in range(10):
        assert torch.allclose(mixed[index], every[index % 4, index], atol=1e-6)


def test_members_learn_apart_from_each_other():
    torch.manual_seed(0)
    bank = create_bank(1, [1, 2], ["transposed"], width=4)
    images = torch.rand(4, 1, 8, 8)
    torch.stack([reconstruction_loss(one, images) for one in bank(images)]).sum().backward()
    together = [p.grad.clone() for p in bank.members[1].parameters()]
    bank.zero_grad()
    reconstruction_loss(bank.members[1](images), images).backward()
    alone = [p.grad for p in bank.members[1].parameters()]
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(together, alone, strict=True))


def train(images, seed):
    torch.manual_seed(seed)
    bank = create_bank(1, [1, 2], ["transposed"], width=8)
    optimizer = torch.optim.Adam(bank.parameters(), lr=1e-2)
    for batch in images[:1024].split(32):
        torch.stack([reconstruction_loss(one, batch) for one in bank(batch)]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return bank


def test_training_brings_the_images_back_and_is_determined_by_its_seed(digits_images):
    bank, again, other = (train(digits_images, seed) for seed in (0, 0, 1))
    held_out = digits_images[1500:1600]
    with torch.no_grad():
        psnr = [peak_signal_noise_ratio(one, held_out, data_range=1.0).item() for one in bank(held_out)]
        assert psnr[0] > 18
        assert psnr[0] > psnr[1] > 12
        assert torch.equal(bank(held_out), again(held_out))
        assert not torch.equal(bank(held_out), other(held_out))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_loss_adds_the_structural_dissimilarity_to_the_mean_difference(channels):
    torch.manual_seed(0)
    # Constant borders, so that how they are padded makes no difference.
    images = nn.functional.pad(torch.rand(2, channels, 12, 12), (16,) * 4)
    others = (images + 0.3 * nn.functional.pad(torch.rand(2, channels, 12, 12), (16,) * 4)).clamp(0, 1)
    plain = reconstruction_loss(others, images)
    assert torch.isclose(plain, (images - others).abs().mean())
    similarity = structural_similarity_index_measure(
        others, images, data_range=1.0, gaussian_kernel=True, sigma=1.5, kernel_size=7
    )
    added = reconstruction_loss(others, images, ssim_weight=2.0) - plain
    assert added.item() == pytest.approx(1 - similarity.item(), abs=0.02)


def test_blur_has_the_psnr_of_its_reference_image_by_image(digits_images):
    torch.manual_seed(0)
    images = digits_images[:64]
    noise = torch.linspace(0.01, 0.15, 64)[:, None, None, None] * torch.randn_like(images)
    references = to_eight_bits(images + noise)
    blurred = matched_blur(images, references)
    for image, one, other in zip(images, references, blurred, strict=True):
        expected = peak_signal_noise_ratio(one, image, data_range=1.0).item()
        assert peak_signal_noise_ratio(other, image, data_range=1.0).item() == pytest.approx(expected, abs=0.05)


def test_a_known_blur_is_found_again(digits_images):
    images = digits_images[:8]
    blurred = gaussian_blur(images, torch.linspace(0.5, 2.0, 8))
    assert torch.allclose(matched_blur(images, blurred), blurred, atol=2e-3)


def test_images_that_no_blur_can_change_that_much_stay_finite():
    flat = torch.full((2, 1, 9, 8), 0.5)
    assert torch.allclose(matched_blur(flat, flat + 0.1), flat, atol=1e-5)
    assert torch.allclose(matched_blur(flat, flat), flat, atol=1e-5)


def test_rounding_keeps_what_a_file_can_hold_and_is_its_own_fixed_point():
    stored = torch.arange(256) / 255
    assert torch.equal(to_eight_bits(stored), stored)
    anything = to_eight_bits(torch.randn(1000))
    assert torch.equal(to_eight_bits(anything), anything)
    assert torch.equal((anything * 255).round().long().float() / 255, anything)


def test_the_squared_error_is_that_of_each_image():
    images, others = torch.rand(3, 2, 4, 4), torch.rand(3, 2, 4, 4)
    expected = torch.stack([nn.functional.mse_loss(a, b) for a, b in zip(images, others, strict=True)])
    assert torch.allclose(squared_error(images, others), expected)
