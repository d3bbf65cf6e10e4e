"""What the methods' transforms cost against a bare FFT there and back, and JPEG against other ways to it."""

import io
import multiprocessing
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from kornia.enhance import jpeg_codec_differentiable
from PIL import Image

from assay.forensics.augmentation import jpeg
from assay.forensics.methods import METHODS

ROUNDS, CALLS, PROCESSES = 25, 4, 3
LEAST = 0.5
BATCHES = [(128, 1, 28, 28), (128, 3, 32, 32), (128, 3, 64, 48)]


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for a core spin, and spinning counts as processor time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def seconds(function, *arguments) -> float:
    """Processor seconds of a call, so that a neighbour on the machine does not count."""
    begin = time.process_time()
    for _ in range(CALLS):
        function(*arguments)
    return (time.process_time() - begin) / CALLS


def compare(contenders, shape, rounds=ROUNDS):
    """Time contenders in turn on images, so that a change of clock speed meets all; return the times of each.

    Every round has its images, and with some ballast its results, elsewhere in memory, which an FFT feels.
    """
    times = {name: [] for name in contenders}
    images = torch.rand(shape)
    for function in contenders.values():
        function(images)
    for _ in range(rounds):
        ballast = [torch.empty(size) for size in torch.randint(1, 200_000, (3,)).tolist()]
        images = torch.rand(shape)
        for name, function in contenders.items():
            times[name].append(seconds(function, images))
        del ballast
    return times


def transforms_of(channels, size):
    """Return every method's transform by name, and every arm of BiHPF that has one of its own."""

    def create(name, **options):
        method = METHODS[name]
        return method(method.Options(**options), channels=channels, image_size=size).transform.eval()

    found = {name: create(name) for name in METHODS}
    for pixel in ("mask", "convolution", "none"):
        found[f"bihpf {pixel}, log"] = create("bihpf", pixel=pixel, output="log-magnitude")
        if pixel != "mask":
            found[f"bihpf {pixel}"] = create("bihpf", pixel=pixel)
    # FrePGAN's transform holds a convolutional network, which no FFT is a measure of: without it, and with it.
    found["frepgan with its network"] = found["frepgan"]
    found["frepgan"] = create("frepgan")
    found["frepgan"].perturbation.network = torch.nn.Identity()
    return found


def measure_transforms(_):
    """Return the milliseconds of the bare FFT and the throughput of each transform against it, by batch shape."""
    torch.set_num_threads(1)
    found = {}
    for shape in BATCHES:
        contenders = {"fft": lambda images: torch.fft.ifft2(torch.fft.fft2(images))}
        with torch.inference_mode():
            times = compare(contenders | transforms_of(shape[1], shape[2:]), shape)
        bare = times.pop("fft")
        ratios = {name: statistics.median(a / b for a, b in zip(bare, one, strict=True)) for name, one in times.items()}
        found[shape] = 1000 * statistics.median(bare), ratios
    return found


def test_transforms_run_at_half_the_throughput_of_a_bare_fft_or_better():
    # MKL's real FFT of small images takes twice as long in some processes as in others: several are asked.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        found = pool.map(measure_transforms, range(PROCESSES), chunksize=1)
    slow = {}
    for shape in BATCHES:
        bare = statistics.median(one[shape][0] for one in found)
        ratios = {name: statistics.median(one[shape][1][name] for one in found) for name in found[0][shape][1]}
        print(f"\n{shape}: fft2 + ifft2 {bare:.2f} ms; throughput against it:")
        print("  " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
        del ratios["frepgan with its network"]
        slow |= {(shape, name): round(ratio, 2) for name, ratio in ratios.items() if ratio < LEAST}
    assert slow == {}


def encode(image, quality):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize("shape", BATCHES, ids=str)
def test_jpeg_of_a_batch_is_quicker_than_kornias_and_than_a_pool(shape):
    quality = torch.randint(30, 101, shape[:1])

    def by_kornia(images):
        colour = images.expand(-1, 3, -1, -1)
        return jpeg_codec_differentiable(colour, quality.float())[:, : shape[1]]

    def by_pillow(images):
        levels = (images * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
        levels = levels[..., 0] if shape[1] == 1 else levels
        decoded = torch.from_numpy(np.stack(list(pool.map(encode, levels, quality.tolist()))))
        return (decoded[:, None] if shape[1] == 1 else decoded.permute(0, 3, 1, 2)) / 255

    contenders = {"ours": lambda images: jpeg(images, quality), "kornia": by_kornia, "Pillow": by_pillow}
    images = torch.rand(shape)
    with ThreadPoolExecutor(2) as pool, torch.inference_mode():
        exact = by_pillow(images)
        errors = {name: 255 * (function(images) - exact).abs().mean().item() for name, function in contenders.items()}
        times = compare(contenders, shape, rounds=5)
    found = {
        name: f"{1000 * statistics.median(times[name]):.1f} ms, {errors[name]:.2f} levels from Pillow"
        for name in contenders
    }
    print(f"\n{shape}: {found}")
    for other in ("kornia", "Pillow"):
        assert statistics.median(a / b for a, b in zip(times["ours"], times[other], strict=True)) < 1
