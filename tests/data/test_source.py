import io

import cv2
import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays as hypothesis_arrays
from PIL import Image

from rethink_jax.data.source import decode_image
from tests.data_helpers import png


@given(
    st.sampled_from([1, 3, 4]).flatmap(
        lambda channels: hypothesis_arrays(
            np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(channels))
        )
    )
)
def test_decoding_a_png_gives_its_pixels(pixels):
    decoded_pixels = decode_image(png(pixels), pixels.shape[-1])
    np.testing.assert_array_equal(decoded_pixels, pixels)
    assert decoded_pixels.dtype == np.uint8


def test_decoding_to_other_channels():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    np.testing.assert_array_equal(decode_image(png(grey), 3), np.repeat(grey, 3, axis=-1))


def test_more_than_eight_bits_are_refused():
    buffer = io.BytesIO()
    Image.fromarray(np.full((2, 2), 3000, np.uint16)).save(buffer, "png")
    with pytest.raises(ValueError, match="more than 8 bits"):
        decode_image(buffer.getvalue(), 1)


def encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)).resize(
    (33, 21), Image.Resampling.BICUBIC
)
ODD = {
    "jpeg": encoded(PICTURE, "jpeg"),
    "jpeg 4:4:4": encoded(PICTURE, "jpeg", subsampling=0),
    "jpeg 4:2:2": encoded(PICTURE, "jpeg", subsampling=1),
    "progressive": encoded(PICTURE, "jpeg", progressive=True),
    "turned": encoded(
        PICTURE,
        "jpeg",
        exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
    ),
    "grey jpeg": encoded(PICTURE.convert("L"), "jpeg"),
    "cmyk jpeg": encoded(PICTURE.convert("CMYK"), "jpeg"),
    "bytes after the end": encoded(PICTURE, "jpeg") + b"more",
    "palette": encoded(PICTURE.convert("P"), "png"),
    "transparent palette": encoded(PICTURE.convert("P"), "png", transparency=bytes([0, 9])),
    "alpha": encoded(PICTURE.convert("RGBA"), "png"),
    "grey and alpha": encoded(PICTURE.convert("LA"), "png"),
    "one bit": encoded(PICTURE.convert("1"), "png"),
    "gif": encoded(PICTURE, "gif"),
    "bmp": encoded(PICTURE, "bmp"),
    "webp": encoded(PICTURE, "webp", lossless=True),
}


@pytest.mark.filterwarnings("default:Palette images")  # Pillow's own, where the test converts
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ODD)
def test_odd_images_are_decoded_as_by_pillow(kind, channels):
    with Image.open(io.BytesIO(ODD[kind])) as image:
        expected = np.asarray(image.convert({1: "L", 3: "RGB"}[channels]))
    decoded = decode_image(ODD[kind], channels)
    np.testing.assert_array_equal(decoded, expected.reshape(21, 33, channels))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_that_is_cut_is_refused(channels):
    with pytest.raises(OSError, match="truncated"):
        decode_image(ODD["jpeg"][:-100], channels)


def test_more_than_eight_bits_of_colour_are_refused():
    pixels = np.full((2, 2, 3), 3000, np.uint16)
    _, png_of_16_bits = cv2.imencode(".png", pixels)
    with pytest.raises(ValueError, match="more than 8 bits"):
        decode_image(png_of_16_bits.tobytes(), 3)
