import pytest
import torch

from assay.errors import AssayError, UserError
from assay.forensics import DetectionSplit, DetectorConfig, fit_detector
from assay.forensics.augmentation import jpeg
from assay.forensics.autoencoders import squared_error, to_eight_bits
from assay.forensics.methods.fingerprint import Fingerprint, FingerprintOptions
from assay.forensics.spectrum import LogMagnitude
from assay.training import Session
from assay.training.checkpoints import CheckpointFolder

SIMULATORS = ["autoencoder", "stride-1", "blur", "autogan"]


def create(seed=0, session=None, channels=1, size=(16, 16), **options):
    session = session or Session(seed=seed)
    options = {"width": 4, "depths": (1, 2)} | options
    method = Fingerprint(FingerprintOptions(**options), channels=channels, image_size=size)
    method.prepare(session)
    return session, method


@pytest.fixture(scope="module")
def digits_images(digits_arrays):
    return torch.from_numpy(digits_arrays[0])[:, None]


@pytest.fixture(scope="module")
def trained(digits_images):
    """A method whose autoencoders have seen the digits."""
    session, method = create(width=8, input="pixel", learning_rate=1e-2)
    for part in (digits_images[:1024].float() / 255).split(32):
        method.pretraining_step(session, part, None)
    return session, method


@pytest.mark.parametrize("wrong", [{"depths": []}, {"depths": [0]}, {"kinds": ["cubic"]}, {"pretraining_epochs": 0}])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        FingerprintOptions.parse(wrong, where="options of fingerprint")


def test_generated_images_are_refused_wherever_training_could_read_them():
    session, method = create()
    images = torch.rand(4, 1, 16, 16)
    for step in (method.training_batch, method.pretraining_step):
        with pytest.raises(AssayError, match="must never read one"):
            step(session, images, images)
    assert not Fingerprint.needs_generated


def test_a_detector_is_the_same_whatever_generated_images_lie_beside_its_data(digits_images):
    config = DetectorConfig(
        method="fingerprint", options={"width": 4, "depths": [1], "pretraining_epochs": 1}, epochs=1, batch_size=32
    )
    real = digits_images[:64]
    scores = []
    for generated in (None, real.flip(-1), torch.zeros_like(real)):
        split = DetectionSplit(real, generated)
        scores.append(fit_detector(split, config, validation=split, calibration=split).score(digits_images[100:140]))
    assert (scores[0] == scores[1]).all()
    assert (scores[0] == scores[2]).all()


def test_a_batch_holds_each_image_and_its_own_reconstruction(trained, digits_images):
    session, method = trained
    real = digits_images[1200:1211].float() / 255
    inputs, labels = method.training_batch(session, real, None)
    assert labels.tolist() == [0.0] * 11 + [1.0] * 11
    assert torch.equal(inputs[:11], real)
    assert torch.equal(inputs[11:], method.simulate(real))
    to_others = torch.stack([squared_error(real, inputs[11:].roll(shift, dims=0)) for shift in range(11)])
    assert to_others.argmin(dim=0).eq(0).all()
    assert not inputs.requires_grad


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_both_classes_hold_only_values_that_a_file_can_hold(simulator):
    session, method = create(simulator=simulator, input="pixel", kinds=("nearest", "pixel-shuffle"))
    inputs, _ = method.training_batch(session, torch.rand(6, 1, 16, 16), None)
    assert torch.equal(inputs, to_eight_bits(inputs))


def test_simulations_get_the_last_encoding_of_the_images(digits_images):
    real = digits_images[:6].float() / 255
    _, plain = create()
    _, encoded = create(jpeg_quality=75)
    assert torch.equal(encoded.simulate(real), jpeg(plain.simulate(real), torch.full((6,), 75)))


def test_the_spectrum_is_what_the_network_sees_unless_told_otherwise():
    session, method = create()
    real = to_eight_bits(torch.rand(4, 1, 16, 16))
    inputs, _ = method.training_batch(session, real, None)
    spectra = LogMagnitude((16, 16))(torch.cat([real, method.simulate(real)]))
    assert torch.allclose(inputs, spectra)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["transposed, depth 1", "transposed, depth 2"]),
        ({"depths": (3,), "kinds": ("nearest", "transposed-3")}, ["nearest, depth 3", "transposed-3, depth 3"]),
        ({"simulator": "stride-1"}, ["stride 1, depth 1", "stride 1, depth 2"]),
        ({"simulator": "autogan", "kinds": ("bilinear", "nearest")}, ["bilinear, depth 2"]),
    ],
)
def test_the_options_name_the_simulators(options, names):
    assert create(**options)[1].bank.names == names


def test_pretraining_teaches_the_autoencoders_and_then_they_stay(trained, digits_images):
    session, method = trained
    real = digits_images[1300:1400].float() / 255
    _, untrained = create(width=8, input="pixel")
    errors = squared_error(real, method.simulate(real)), squared_error(real, untrained.simulate(real))
    assert errors[0].mean() < errors[1].mean() / 10
    before = [p.clone() for p in method.bank.parameters()]
    method.training_batch(session, real, None)
    assert all(torch.equal(a, b) for a, b in zip(before, method.bank.parameters(), strict=True))


def test_the_blur_loses_as_much_as_the_autoencoders_and_has_no_trace_of_them(trained, digits_images):
    _, method = trained
    _, control = create(width=8, input="pixel", simulator="blur")
    control.bank.load_state_dict(method.bank.state_dict())
    real = digits_images[1400:1440].float() / 255
    encoded, blurred = method.simulate(real), control.simulate(real)
    decibels = [-10 * squared_error(real, images).log10() for images in (encoded, blurred)]
    assert torch.allclose(*decibels, atol=0.1)
    assert not torch.equal(encoded, blurred)
    high = torch.fft.rfft2(blurred)[..., 8, 8].abs().mean(), torch.fft.rfft2(encoded)[..., 8, 8].abs().mean()
    assert high[0] < high[1]


def test_the_single_simulator_learns_against_its_discriminator():
    session, method = create(simulator="autogan")
    before = [p.clone() for p in (*method.bank.parameters(), *method.adversary.network.parameters())]
    method.pretraining_step(session, torch.rand(8, 1, 16, 16), None)
    after = [*method.bank.parameters(), *method.adversary.network.parameters()]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(("channels", "size"), [(1, (28, 28)), (3, (15, 17))])
@pytest.mark.parametrize("seen", ["spectrum", "pixel"])
def test_the_exported_transform_equals_the_eager_one_for_any_batch(channels, size, seen):
    _, method = create(channels=channels, size=size, input=seen)
    transform = method.transform.eval()
    exported = torch.export.export(
        transform, (torch.rand(2, channels, *size),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    ).module()
    for count in (1, 5):
        images = torch.rand(count, channels, *size)
        assert torch.allclose(exported(images), transform(images), atol=1e-5)


def pretrain(store, epochs, stop_after=None, *, seed=0, simulator="autoencoder"):
    session, method = create(session=Session(store, seed=seed), simulator=simulator)
    images = torch.rand(32, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    for epoch in session.epochs(epochs):
        for index in session.batches(32, batch_size=8):
            method.pretraining_step(session, images[index], None)
        session.checkpoint(epoch)
        if epoch == stop_after:
            break
    return method.simulate(images)


@pytest.mark.parametrize("simulator", ["autoencoder", "autogan"])
def test_a_pretraining_that_was_cut_off_goes_on_to_the_same_simulator(tmp_path, simulator):
    whole = pretrain(None, 3, simulator=simulator)
    pretrain(CheckpointFolder(tmp_path), 3, stop_after=0, simulator=simulator)
    assert torch.equal(whole, pretrain(CheckpointFolder(tmp_path), 3, simulator=simulator))


def test_the_seed_determines_the_simulator():
    first = pretrain(None, 1)
    assert torch.equal(first, pretrain(None, 1))
    assert not torch.equal(first, pretrain(None, 1, seed=1))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_pictures_show_every_simulator_and_what_it_changed(channels):
    _, method = create(channels=channels)
    (figure,) = method.figures(torch.randint(0, 256, (4, channels, 16, 16), dtype=torch.uint8), None).values()
    assert len(figure.axes) == 5 * 5 + 1  # real, two simulators, two differences; four examples, a spectrum
    assert figure.axes[5].get_ylabel().startswith("transposed, depth 1\nPSNR")
