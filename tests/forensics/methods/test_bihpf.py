import itertools
from functools import partial

import pytest
import torch

from assay.errors import UserError
from assay.forensics.compression_map import CompressionMapConfig, fit_compression_map
from assay.forensics.filters import binomial_response, frequency_response
from assay.forensics.methods import bihpf
from assay.forensics.methods.baselines import LogSpectrum
from assay.forensics.methods.bihpf import BilateralFilter, BilateralHighPass, BilateralOptions
from assay.forensics.spectrum import LogMagnitude, Unfold, half_spectrum

SIZES = [(28, 28), (64, 48), (29, 31)]
ARMS = [
    {"pixel": pixel, "frequency": frequency, "output": output, "low_pass": low_pass}
    for pixel, frequency, output, low_pass in itertools.product(
        ("mask", "convolution", "none"), (True, False), ("image", "log-magnitude"), (True, False)
    )
]


def transform(size=(28, 28), **options):
    return BilateralFilter(BilateralOptions(**options), size).eval()


@pytest.mark.parametrize("options", ARMS, ids=str)
def test_every_arm_keeps_shape_and_treats_each_image_alone(options):
    images = torch.rand(4, 3, 29, 31)
    module = transform((29, 31), **options)
    filtered = module(images)
    assert filtered.shape == images.shape and filtered.isfinite().all()
    assert torch.allclose(filtered[2:3], module(images[2:3]), atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"pixel": "convolution", "output": "log-magnitude"}, {"frequency": False, "low_pass": True}],
    ids=str,
)
def test_the_exported_filter_gives_what_the_eager_one_does(size, channels, options):
    images = torch.rand(5, channels, *size)
    module = transform(size, **options)
    dynamic = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(module, (images[:2],), dynamic_shapes=dynamic).module()
    assert torch.allclose(exported(images), module(images), atol=1e-5)


def test_without_filters_images_pass_and_their_spectrum_is_that_of_the_baseline():
    images = torch.rand(2, 3, 28, 28)
    assert torch.equal(transform(pixel="none", frequency=False)(images), images)
    baseline = LogSpectrum(LogSpectrum.Options(), channels=3, image_size=(28, 28)).transform
    assert torch.equal(transform(pixel="none", frequency=False, output="log-magnitude")(images), baseline(images))


@pytest.mark.parametrize("low_pass", [False, True])
def test_both_filters_in_a_row_multiply_their_responses(low_pass):
    size = (28, 28)
    impulse = torch.zeros(1, 1, *size)
    impulse[..., 14, 14] = 1
    module = transform(size, pixel="convolution", transition=0.1, cutoff=0.25, low_pass=low_pass)
    response = Unfold(size)((half_spectrum(module(impulse)) / half_spectrum(impulse)).real)[0, 0]
    expected = binomial_response(size, low_pass=low_pass) * frequency_response(size, 0.25, 0.1, low_pass=low_pass)
    assert torch.allclose(response, expected, atol=1e-4)


def test_the_mask_goes_over_the_image_before_the_frequency_filter():
    images = torch.rand(2, 1, 28, 28)
    module = transform()
    masked = transform(frequency=False)(images)
    assert torch.allclose(module(images), transform(pixel="none")(masked), atol=1e-6)
    assert not torch.allclose(module(images), transform(frequency=False)(transform(pixel="none")(images)), atol=1e-2)


@pytest.mark.parametrize("pixel", ["mask", "convolution", "none"])
@pytest.mark.parametrize("frequency", [True, False])
def test_the_log_magnitude_is_that_of_the_filtered_image(pixel, frequency):
    images = torch.rand(2, 3, 28, 28)
    filters = {"pixel": pixel, "frequency": frequency, "low_pass": True}
    filtered = transform(**filters)(images)
    found = transform(**filters, output="log-magnitude")(images)
    assert torch.allclose(found, LogMagnitude((28, 28))(filtered), atol=1e-2)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("options", ARMS, ids=str)
def test_images_without_variance_are_finite(options, value):
    assert transform(**options)(torch.full((1, 1, 28, 28), value)).isfinite().all()


def test_brightness_does_not_pass_the_high_pass_filters():
    images = torch.rand(2, 3, 28, 28)
    for options in ({"pixel": "none"}, {"pixel": "convolution"}, {"pixel": "convolution", "frequency": False}):
        assert torch.allclose(transform(**options)(images + 0.2), transform(**options)(images), atol=1e-5)


@pytest.mark.parametrize("options", [{"cutoff": 0}, {"cutoff": 0.8}, {"pixel": "both"}, {"transition": -1}, {"hpf": 1}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UserError, match="bihpf"):
        BilateralOptions.parse(options, where="bihpf")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("pixel", ["mask", "convolution", "none"])
def test_the_figures_show_filters_examples_and_the_map(channels, pixel, monkeypatch):
    quick = partial(fit_compression_map, config=CompressionMapConfig(steps=2))
    monkeypatch.setattr(bihpf, "fit_compression_map", quick)
    method = BilateralHighPass(BilateralOptions(pixel=pixel), channels=channels, image_size=(28, 30))
    images = torch.randint(0, 256, (8, channels, 28, 30), dtype=torch.uint8)
    filters, examples, compression = method.figures(images, images).values()
    pixels, plane = (torch.tensor(axes.images[0].get_array()) for axes in filters.axes[:2])
    gain = frequency_response((28, 30), 0.25, 0.1)
    assert torch.equal(pixels, method.transform.mask(torch.ones(28, 30)))
    assert torch.allclose(plane, gain * binomial_response((28, 30)) if pixel == "convolution" else gain)
    titles = [axes.get_ylabel().split("\n")[0] for axes in examples.axes]
    assert [title for title in titles if title][:4] == ["real", "filtered", "generated", "filtered"]
    assert compression.axes[1].get_ylabel() == "mean of 1 - M"


def test_without_generated_images_the_filters_are_shown():
    method = BilateralHighPass(BilateralOptions(), channels=1, image_size=(28, 28))
    assert len(method.figures(torch.zeros(2, 1, 28, 28, dtype=torch.uint8), None)) == 1
