import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from assay.data import codec
from assay.data.codec import DecodeError


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@settings(max_examples=30, deadline=None)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)))
    | arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))
)
def test_png_keeps_every_pixel(pixels):
    channels = 1 if pixels.ndim == 2 else 3
    back = codec.decode(codec.encode_png(pixels), channels)
    assert np.array_equal(back[0] if channels == 1 else back.transpose(1, 2, 0), pixels)


def test_sixteen_bits_keep_the_high_byte():
    deep = np.array([[0, 255, 256, 65535]], np.uint16)
    assert codec.decode(encoded(Image.fromarray(deep)), 1).ravel().tolist() == [0, 0, 1, 255]


def test_palette_becomes_its_colours_and_transparency_is_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    assert codec.decode(encoded(image), 3)[:, 0].T.tolist() == [[10, 20, 30], [200, 100, 50]]
    assert codec.decode(encoded(image, transparency=0), 3)[:, 0].T.tolist() == [[255, 255, 255], [200, 100, 50]]


def test_half_transparent_black_is_grey():
    image = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert abs(int(codec.decode(encoded(image), 1).item()) - 127) <= 1


def test_colour_becomes_grey_by_rec_601_and_grey_is_repeated():
    image = Image.new("RGB", (1, 1), (100, 150, 200))
    assert codec.decode(encoded(image), 1).item() == round(0.299 * 100 + 0.587 * 150 + 0.114 * 200)
    assert codec.decode(encoded(Image.new("L", (1, 1), 7)), 3).ravel().tolist() == [7, 7, 7]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16"])
def test_every_mode_reaches_the_wanted_shape(mode):
    kind = "TIFF" if mode in ("CMYK", "I") else "PNG"
    data = encoded(Image.new(mode, (6, 4)), kind)
    assert codec.decode(data, 3, (5, 7)).shape == (3, 5, 7)
    assert codec.decode(data, 1).shape == (1, 4, 6)


def test_a_photo_lying_on_its_side_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new("RGB", (6, 4)), "JPEG", exif=exif)
    assert codec.decode(data, 3).shape == (3, 6, 4)
    assert (codec.header(data).height, codec.header(data).width) == (6, 4)


def test_resizing_a_constant_keeps_it_constant():
    assert set(codec.decode(encoded(Image.new("L", (50, 30), 77)), 1, (8, 8)).ravel().tolist()) == {77}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"just some text", "is not an image"),
        (codec.encode_png(np.zeros((40, 40), np.uint8))[:-30], "is truncated or damaged"),
        (encoded(Image.new("F", (2, 2)), "TIFF"), "has floating-point pixels"),
    ],
)
def test_bytes_that_are_no_usable_image_say_why(data, reason):
    with pytest.raises(DecodeError, match=reason):
        codec.decode(data, 1)


def test_a_decompression_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DecodeError, match="larger than can be decoded safely"):
        codec.decode(codec.encode_png(np.zeros((9, 9), np.uint8)), 1)


def test_decoding_many_reports_the_broken_and_keeps_the_others():
    images = np.random.default_rng(0).integers(0, 256, (1200, 3, 3), np.uint8)
    data = codec.encode_all(images)
    data[700] = b"broken"
    pixels, failures = codec.decode_all(data, 1, (3, 3))
    good = np.arange(1200) != 700
    assert np.array_equal(pixels[good, 0], images[good])
    assert list(failures) == [700]


def test_the_digest_is_of_the_picture_and_not_of_the_file():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8))
    digests, _ = codec.inspect_all([encoded(picture), encoded(picture, "BMP"), encoded(picture.rotate(90))])
    assert digests[0] == digests[1] != digests[2]


def test_resizing_leaves_an_image_of_the_right_size_alone():
    right, wrong = (codec.encode_png(np.zeros((n, n), np.uint8)) for n in (4, 9))
    first, second = codec.resize_all([right, wrong], (4, 4))
    assert first == right
    assert codec.header(second).height == 4
