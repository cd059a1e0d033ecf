"""Views are pictures of the right place and grey value, the same on whatever rank."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrdist.core.augment import Augment
from cxrdist.core.augment_config import AUGMENT_PARTS, AugmentConfig
from cxrdist.core.augment_params import Params
from cxrdist.errors import InputError


def pictures(count: int, side: int, seed: int = 0) -> torch.Tensor:
    small = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed)) * 255
    return F.interpolate(small, size=(side, side), mode="bicubic").clamp(0, 255).round().to(torch.uint8)


def still(count: int, **changes: np.ndarray) -> Params:
    """Parameters that do nothing but what `changes` says."""
    zeros = np.zeros(count, dtype=np.float32)
    values = {
        "theta": np.tile(np.array([[1, 0, 0], [0, 1, 0]], dtype=np.float32), (count, 1, 1)),
        "table": np.tile((np.arange(256) / 255).astype(np.float32), (count, 1)),
        "shrink": zeros + 1, "sigma": zeros, "noise": zeros, "noise_at": zeros.astype(np.float64),
        "box": np.zeros((count, 4), dtype=np.float32),
    }  # fmt: skip
    return Params(**{**values, **changes})


@pytest.mark.parametrize(("inside", "outside"), [(40, 32), (32, 48), (96, 24)])
@settings(max_examples=12, deadline=None)
@given(start=st.integers(0, 18), count=st.integers(1, 20), seed=st.integers(0, 10**6))
def test_a_row_has_the_same_view_bit_for_bit_in_any_batch(inside, outside, start, count, seed):
    images = pictures(20, inside)
    augment = Augment(AugmentConfig(), inside, outside)
    whole = augment.apply(images, augment.draw(seed, 3, 20))
    rows = slice(start, min(20, start + count))
    assert torch.equal(augment.apply(images[rows], augment.draw(seed, 3, rows)), whole[rows])


def test_views_steps_and_rows_differ_and_repeat():
    augment = Augment(AugmentConfig(), 40, 32)
    image = pictures(1, 40).expand(2, -1, -1, -1)
    first = augment.apply(image, augment.draw(0, 0, 2, view=0))
    assert torch.equal(first, augment.apply(image, augment.draw(0, 0, 2, view=0)))
    assert not torch.equal(first[0], first[1])
    for other in (augment.draw(0, 0, 2, view=1), augment.draw(0, 1, 2), augment.draw(1, 0, 2)):
        assert not torch.equal(first, augment.apply(image, other))


def test_without_augmentation_an_image_of_the_right_size_is_only_normalised():
    images = pictures(3, 32)
    augment = Augment(AugmentConfig(preset="none"), 32, 32, mean=0.4, std=0.2)
    expected = (images / 255 - 0.4) / 0.2
    assert torch.allclose(augment.apply(images, augment.draw(0, 0, 3)), expected, atol=1e-5)
    assert torch.equal(augment.plain(images), augment.apply(images, augment.draw(0, 0, 3)))


@pytest.mark.parametrize("factor", [2, 4])
def test_shrinking_averages_all_pixels_instead_of_skipping_some(factor):
    side = 16 * factor
    images = torch.randint(0, 256, (2, 1, side, side), dtype=torch.uint8)
    augment = Augment(AugmentConfig(preset="none"), side, 16, mean=0.0, std=1.0)
    expected = F.avg_pool2d(images / 255, factor)
    assert torch.allclose(augment.plain(images), expected, atol=1e-5)


def test_a_flip_mirrors_left_and_right():
    images = pictures(4, 32)
    config = AugmentConfig(preset="none", flip=1.0)
    augment = Augment(config, 32, 32)
    assert torch.allclose(augment.apply(images, augment.draw(0, 0, 4)), augment.plain(images).flip(3), atol=1e-5)


def test_a_crop_shows_the_named_part_of_the_image():
    images = pictures(1, 64)
    augment = Augment(AugmentConfig(preset="none"), 64, 32)
    theta = np.array([[[0.5, 0, -0.5], [0, 0.5, 0.5]]], dtype=np.float32)  # lower left quarter
    got = augment.apply(images, still(1, theta=theta, shrink=np.array([0.5], dtype=np.float32)))
    expected = (images[:, :, 32:, :32] / 255 - 0.5) / 0.25
    assert torch.allclose(got, expected, atol=1e-5)


def test_a_rotation_by_a_right_angle_turns_the_picture_and_what_lies_outside_is_black():
    images = pictures(1, 32)
    augment = Augment(AugmentConfig(preset="none"), 32, 32, mean=0.0, std=1.0)
    turn = np.array([[[0, -1, 0], [1, 0, 0]]], dtype=np.float32)
    assert torch.allclose(augment.apply(images, still(1, theta=turn)), (images / 255).rot90(1, (2, 3)), atol=1e-5)
    away = np.array([[[1, 0, 2], [0, 1, 0]]], dtype=np.float32)
    assert (augment.apply(images, still(1, theta=away)) == 0).all()


def test_drawn_geometry_stays_within_its_limits():
    config = AugmentConfig(preset="none", crop=(0.25, 0.81), aspect=1.3, rotate=20.0)
    theta = Augment(config, 32, 32).draw(5, 0, 4000).theta
    area = np.abs(np.linalg.det(theta[:, :, :2]))
    assert 0.24 < area.min() < 0.27 and 0.77 < area.max() <= 0.8101
    angle = np.rad2deg(np.arctan2(theta[:, 1, 0], theta[:, 0, 0]))
    assert 18 < np.abs(angle).max() <= 20.001
    upright = Augment(AugmentConfig(preset="none", crop=(0.25, 0.81), aspect=1.3), 32, 32).draw(5, 0, 4000).theta
    assert (np.abs(upright[:, 0, 2]) + upright[:, 0, 0]).max() <= 1.0001  # a crop never leaves the image


def test_crops_are_those_of_torchvision():
    """Areas and aspect ratios of the preset natural against 20,000 draws of RandomResizedCrop at a large size."""
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    blank = torch.zeros(1, 1000, 1000)
    drawn = [RandomResizedCrop.get_params(blank, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(20_000)]
    theirs = np.array([(width / 1000, height / 1000) for _, _, height, width in drawn])
    theta = Augment(AugmentConfig(preset="natural", flip=0.0), 32, 32).draw(1, 0, 20_000).theta
    ours = np.stack([theta[:, 0, 0], theta[:, 1, 1]], axis=1)
    quantiles = np.linspace(0.02, 0.98, 25)
    for measure in (lambda side: side[:, 0] * side[:, 1], lambda side: side[:, 0] / side[:, 1]):
        a, b = np.quantile(measure(ours), quantiles), np.quantile(measure(theirs), quantiles)
        assert np.abs(a - b).max() < 0.015
    assert (ours[:, 0] * ours[:, 1]).mean() == pytest.approx(0.478, abs=0.005)


def test_a_crop_that_never_fits_becomes_the_whole_image():
    config = AugmentConfig(preset="none", crop=(1.0, 1.0), aspect=2.0)
    theta = Augment(config, 32, 32).draw(1, 0, 50).theta
    assert np.allclose(theta, [[1, 0, 0], [0, 1, 0]])


def test_grey_values_follow_brightness_contrast_and_gamma():
    augment = Augment(AugmentConfig(preset="none", gamma=2.0, tone_p=1.0), 32, 32, mean=0.3)
    table = augment.draw(0, 0, 2000).table
    gamma = np.log(table[:, 100].astype(float)) / np.log(100 / 255)
    assert 0.5 <= gamma.min() < 0.51 and 1.98 < gamma.max() <= 2.0001
    table = (
        Augment(AugmentConfig(preset="none", contrast=0.5, tone_p=1.0), 32, 32, mean=100 / 255).draw(0, 0, 500).table
    )
    assert np.allclose(table[:, 100], 100 / 255, atol=1e-6)  # the mean stays where it is
    table = Augment(AugmentConfig(preset="none", brightness=0.2, tone_p=1.0), 32, 32).draw(0, 0, 500).table
    shift = table[:, 128] - 128 / 255
    assert -0.2001 <= shift.min() < -0.19 and 0.19 < shift.max() <= 0.2001
    assert table.min() >= 0 and table.max() <= 1


def test_the_blur_is_a_gaussian_of_the_named_width():
    image = torch.zeros(1, 1, 65, 65, dtype=torch.uint8)
    image[0, 0, 32, 32] = 255
    augment = Augment(AugmentConfig(preset="none", blur=(0.1, 8.0)), 65, 65, mean=0.0, std=1.0)
    got = augment.apply(image, still(1, sigma=np.array([2.0 / 65], dtype=np.float32)))[0, 0].double()
    x = torch.arange(65, dtype=torch.float64) - 32
    assert got.sum() == pytest.approx(1.0, abs=1e-4)
    assert float((got.sum(0) * x**2).sum()) == pytest.approx(4.0, rel=0.02)
    assert torch.allclose(got, got.T, atol=1e-6)


def test_noise_has_the_named_spread_and_erasing_the_named_area():
    image = torch.full((1, 1, 64, 64), 128, dtype=torch.uint8)
    augment = Augment(AugmentConfig(preset="none", noise=0.1), 64, 64, mean=0.0, std=1.0)
    got = augment.apply(image, still(1, noise=np.array([0.1], dtype=np.float32), noise_at=np.array([0.3])))
    assert float(got.std()) == pytest.approx(0.1, rel=0.05) and float(got.mean()) == pytest.approx(0.5, abs=0.01)
    box = np.array([[0.25, 0.5, 0.5, 1.0]], dtype=np.float32)
    got = Augment(AugmentConfig(preset="none"), 64, 64).apply(image, still(1, box=box))
    assert (got[0, 0, 32:, 16:32] == 0).all()
    assert int((got == 0).sum()) == 32 * 16


@pytest.mark.parametrize("part", AUGMENT_PARTS)
def test_each_part_can_be_switched_off_and_leaves_the_others_alone(part):
    fields = {"crop": "theta", "rotate": "theta", "translate": "theta", "flip": "theta", "brightness": "table",
              "contrast": "table", "gamma": "table", "blur": "sigma", "noise": "noise", "erase": "box"}  # fmt: skip
    full = Augment(AugmentConfig(), 32, 32).draw(0, 0, 200)
    without = Augment(AugmentConfig(off=[part]), 32, 32).draw(0, 0, 200)
    changed = {
        name for name in ("theta", "table", "sigma", "noise", "box")
        if not np.array_equal(getattr(full, name), getattr(without, name))
    }  # fmt: skip
    assert changed == {fields[part]}


def test_unusable_settings_and_images_are_refused_by_name():
    for config, name in (
        (AugmentConfig(off=["colour"]), "colour"),
        (AugmentConfig(crop=(0.5, 1.5)), "crop"),
        (AugmentConfig(gamma=0.5), "gamma"),
    ):
        with pytest.raises(InputError, match=name):
            Augment(config, 32, 32)
    augment = Augment(AugmentConfig(), 32, 32)
    with pytest.raises(InputError, match=r"32, 32"):
        augment.apply(pictures(2, 30), augment.draw(0, 0, 2))
    with pytest.raises(InputError, match="parameters for 3"):
        augment.apply(pictures(2, 32), augment.draw(0, 0, 3))


@pytest.mark.gpu
def test_cpu_and_gpu_make_the_same_pictures_to_rounding():
    images = pictures(64, 256)
    on_cpu, on_gpu = (Augment(AugmentConfig(), 256, 224, device) for device in ("cpu", "cuda"))
    params = on_cpu.draw(0, 0, 64)
    difference = (on_cpu.apply(images, params) - on_gpu.apply(images, params).cpu()).abs()
    assert float(difference.flatten(1).quantile(0.999)) < 1e-3
