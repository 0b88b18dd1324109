import numpy as np
import pytest
from hypothesis import given, strategies as st

from rethink_jax.pipeline import crops

SIDES = st.integers(1, 300)


@given(SIDES, SIDES, st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.08]))
def test_random_boxes_lie_inside_and_have_allowed_ratios(height, width, seed, least_area):
    box = crops.random_box(height, width, np.random.default_rng(seed), least_area)
    assert box.top >= 0
    assert box.left >= 0
    assert box.height >= 1
    assert box.width >= 1
    assert box.top + box.height <= height
    assert box.left + box.width <= width
    if min(height, width) > 100:  # or rounding decides
        assert 0.72 < box.width / box.height < 1.4
        assert box.height * box.width > 0.9 * least_area * height * width


def test_random_boxes_are_spread_over_areas_ratios_and_places():
    rng = np.random.default_rng(0)
    boxes = np.array([crops.random_box(375, 375, rng, 0.08) for _ in range(20_000)])
    top, left, height, width = boxes.T
    areas = height * width / 375**2
    always_fit = areas < 0.5
    quartiles = np.quantile(areas[always_fit], [0, 0.25, 0.5, 0.75, 1])
    assert quartiles == pytest.approx(np.linspace(0.08, 0.5, 5), abs=0.015)
    ratios = np.log(width[always_fit] / height[always_fit]) / np.log(4 / 3)
    assert np.quantile(ratios, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx(
        [-1, -0.5, 0, 0.5, 1], abs=0.06
    )
    small = areas < 0.2
    assert np.mean(top[small] / (375 - height[small])) == pytest.approx(0.5, abs=0.05)
    assert np.mean(left[small] / (375 - width[small])) == pytest.approx(0.5, abs=0.05)


def test_an_image_too_long_for_every_ratio_is_cut_to_the_nearest_one():
    rng = np.random.default_rng(0)
    assert crops.random_box(100, 4000, rng, 0.99) == (0, 1933, 100, 133)
    assert crops.random_box(4000, 100, rng, 0.99) == (1933, 0, 133, 100)


@pytest.mark.parametrize(
    ("height", "width", "square", "box"),
    [
        (256, 256, True, (16, 16, 224, 224)),  # the textbook's 224 of 256
        (256, 512, True, (16, 144, 224, 224)),
        (512, 256, True, (144, 16, 224, 224)),
        (400, 200, False, (25, 12, 350, 175)),
        (1, 1, True, (0, 0, 1, 1)),
    ],
)
def test_central_boxes(height, width, square, box):
    assert crops.central_box(height, width, square) == box


def resized(image, box, size):
    square = np.zeros((size, size, image.shape[-1]), np.uint8)
    crops.resize(image, box, square)
    return square


@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_cuts_and_averages(channels):
    image = np.random.default_rng(0).integers(256, size=(30, 40, channels), dtype=np.uint8)
    box = crops.Box(2, 3, 16, 24)
    small = resized(image, box, 8)
    blocks = image[2:18, 3:27].reshape(8, 2, 8, 3, channels).mean(axis=(1, 3))
    assert np.abs(small - blocks).max() <= 0.51
    same = resized(image, crops.Box(2, 3, 8, 8), 8)
    np.testing.assert_array_equal(same, image[2:10, 3:11])
    large = resized(np.full_like(image, 7), box, 64)
    np.testing.assert_array_equal(large, np.full((64, 64, channels), 7))
