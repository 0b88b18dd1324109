import io

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays as hypothesis_arrays
from PIL import Image

from rethink_jax.data.examples import decode_image
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
