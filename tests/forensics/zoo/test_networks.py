import pytest
import torch
from torch import nn

from assay.forensics.upsampling import UPSAMPLINGS, upsample
from assay.forensics.zoo.networks import Encoder, Translator


@pytest.mark.parametrize("kind", UPSAMPLINGS)
def test_every_up_sampling_doubles_the_resolution_and_is_linear(kind):
    torch.manual_seed(0)
    layer = upsample(kind, 3, 2).double()
    x, y = torch.randn(2, 1, 3, 5, 4, dtype=torch.float64)
    assert layer(x).shape == (1, 2, 10, 8)
    assert torch.allclose(layer(x + y) - layer(y), layer(x) - layer(torch.zeros_like(x)))


def test_only_a_transposed_convolution_of_kernel_3_treats_pixels_by_parity():
    """Its kernel is no multiple of its stride: a constant becomes a checkerboard, whatever the kernel 4 does."""
    constant = torch.ones(1, 1, 6, 6)
    for kind in ("transposed", "transposed-3"):
        layer = upsample(kind, 1, 1)
        nn.init.ones_(layer.weight), nn.init.zeros_(layer.bias)
        inner = layer(constant)[0, 0, 2:-2, 2:-2]
        assert (inner == inner[0, 0]).all() == (kind == "transposed")


def test_spectral_normalisation_bounds_every_layer():
    torch.manual_seed(0)
    encoder = Encoder(1, (16, 16), width=4, outputs=1, spectral_norm=True).train()
    for _ in range(50):  # power iterations
        encoder(torch.randn(2, 1, 16, 16))
    weights = [layer.weight.detach().flatten(1) for layer in encoder.layers if hasattr(layer, "weight")]
    assert len(weights) == 4
    for weight in weights:
        assert torch.linalg.matrix_norm(weight, ord=2).item() == pytest.approx(1, abs=1e-3)


def test_no_pixel_of_a_translation_goes_round_the_last_up_sampling():
    network = Translator(("transposed-3", "transposed-3", "transposed-3"), 1, width=4).eval()
    nn.init.zeros_(network.up_to_full.weight)
    assert not network(torch.randn(2, 1, 16, 16)).any()
