import colorsys

import pytest
import torch

from teacher_torch import augment


@pytest.fixture
def images():
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def test_no_strength_changes_nothing(images):
    torch.testing.assert_close(augment.jitter(images, augment.Jitter(0, 0, 0, 0), seeded()), images)


def test_hue_is_turned_as_in_hsv(images):
    turned = augment.turn_hue(images, torch.full((3, 1, 1), 0.2))
    r, g, b = images[0, :, 2, 5].tolist()
    hue, saturation, value = colorsys.rgb_to_hsv(r, g, b)
    wanted = colorsys.hsv_to_rgb((hue + 0.2) % 1, saturation, value)
    torch.testing.assert_close(turned[0, :, 2, 5], torch.tensor(wanted))


def test_grey_has_no_hue():
    grey = torch.full((1, 3, 2, 2), 0.4)
    torch.testing.assert_close(augment.turn_hue(grey, torch.full((1, 1, 1), 0.3)), grey)


def test_jitter_stays_in_range_and_is_seeded(images):
    out = augment.jitter(images, augment.Jitter(), seeded())
    assert out.min() >= 0
    assert out.max() <= 1
    assert (out - images).abs().mean() > 0.01
    torch.testing.assert_close(out, augment.jitter(images, augment.Jitter(), seeded()))


def test_every_image_has_colours_of_its_own():
    same = torch.rand(1, 3, 8, 8, generator=seeded(3)).expand(2, -1, -1, -1)
    first, second = augment.jitter(same, augment.Jitter(), seeded())
    assert (first - second).abs().mean() > 0.01


def test_a_crop_is_a_window(images):
    out = augment.crop(images, 0.8, seeded())
    assert out.shape == (3, 3, 6, 6)
    assert any(torch.equal(out, images[..., y : y + 6, x : x + 6]) for y in range(3) for x in range(3))


def test_resize_keeps_a_constant():
    torch.testing.assert_close(augment.resize(torch.full((1, 3, 6, 6), 0.3), 8), torch.full((1, 3, 8, 8), 0.3))
