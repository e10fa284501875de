"""Grey values before the network: histogram matching inside the object, percentile windows, Otsu."""

import numpy as np
import pytest
import SimpleITK as sitk

from landmarklabel.networks.preprocess import match_to_reference, otsu_threshold, outline


def hand(seed=0, shape=(60, 50), level=150.0, spread=10.0):
    """A bright block with a dark hole and a bright speck, on a dark background: image and true outline."""
    rng = np.random.default_rng(seed)
    image = rng.normal(20, 2, shape)
    block = tuple(slice(10, 40) for _ in shape)
    image[block] = rng.normal(level, spread, image[block].shape)
    image[tuple(slice(20, 24) for _ in shape)] = 20.0
    image[tuple(slice(2, 5) for _ in shape)] = level
    mask = np.zeros(shape, bool)
    mask[block] = True
    return image, mask


@pytest.mark.parametrize("shape", [(60, 50), (42, 44, 46)])
def test_the_outline_is_the_largest_object_without_holes(shape):
    image, mask = hand(shape=shape)
    np.testing.assert_array_equal(outline(image), mask)


def test_otsu_agrees_with_simpleitk_on_two_noisy_classes():
    image, _ = hand()
    reference = sitk.OtsuThresholdImageFilter()
    reference.SetInsideValue(0)
    reference.SetOutsideValue(1)
    reference.SetNumberOfHistogramBins(256)
    expected = sitk.GetArrayFromImage(reference.Execute(sitk.GetImageFromArray(image))).astype(bool)
    np.testing.assert_array_equal(image > otsu_threshold(image), expected)


def test_otsu_splits_two_grey_values_between_them():
    assert 10 <= otsu_threshold(np.array([[10, 10, 200]], np.uint8)) < 200


def test_matching_gives_the_object_the_reference_histogram():
    image, mask = hand(level=120, spread=5)
    reference, reference_mask = hand(seed=1, level=180, spread=20, shape=(70, 64))
    matched = match_to_reference(image, reference)
    assert matched.dtype == np.float32 and matched.shape == image.shape
    quantiles = np.linspace(5, 95, 19)
    expected = np.percentile(reference[reference_mask], quantiles)
    np.testing.assert_allclose(np.percentile(matched[mask], quantiles), expected, atol=2)


def test_matching_leaves_the_background_and_the_order_of_grey_values():
    image, mask = hand()
    matched = match_to_reference(image, hand(seed=1, level=200)[0])
    np.testing.assert_array_equal(matched[~mask], image[~mask].astype(np.float32))
    order = np.argsort(image[mask], kind="stable")
    assert (np.diff(matched[mask][order]) >= 0).all()


def test_matching_to_itself_changes_nothing_and_not_the_input():
    image = np.round(hand()[0]).clip(0, 255).astype(np.uint8)
    before = image.copy()
    np.testing.assert_array_equal(match_to_reference(image, image), image.astype(np.float32))
    np.testing.assert_array_equal(image, before)


def test_an_image_without_an_object_stays_as_it_is():
    flat = np.full((20, 20), 7, np.uint16)
    np.testing.assert_array_equal(match_to_reference(flat, hand()[0]), flat.astype(np.float32))
    image = hand()[0]
    np.testing.assert_array_equal(match_to_reference(image, flat), image.astype(np.float32))
