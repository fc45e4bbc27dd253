"""Videos: small coloured things survive, and any frame can be had without decoding all that come before."""

import numpy as np
import pytest

from bridge import lerobot_video
from bridge.lerobot_files import DatasetError

COLOURS = ((230, 20, 20), (20, 220, 30), (30, 30, 235), (240, 220, 10))


def dots(length, size=128):
    """Frames with four coloured dots of 3 pixels that move over a shaded ground, and where the dots are."""
    y, x = np.mgrid[:size, :size]
    ground = np.stack([120 + 60 * np.sin(x / 37), 110 + 50 * np.cos(y / 29), 140 + 40 * np.sin((x + y) / 51)], axis=-1)
    frames, where = np.repeat(ground[None].astype(np.uint8), length, axis=0), np.zeros((length, size, size), bool)
    for t in range(length):
        for i, colour in enumerate(COLOURS):
            dot = (y - 20 - 25 * i) ** 2 + (x - 10 - (1 + i) * t / 4) ** 2 <= 1.6**2
            frames[t][dot] = colour
            where[t] |= dot
    return frames, where


def psnr(difference):
    return 10 * np.log10(255**2 / np.mean(difference**2))


def test_small_coloured_dots_survive(tmp_path):
    frames, where = dots(20)
    lerobot_video.encode(tmp_path / "a.mp4", frames, fps=80)
    error = lerobot_video.decode(tmp_path / "a.mp4", np.arange(20), fps=80).astype(float) - frames
    assert psnr(error) > 42
    assert psnr(error[where]) > 27  # 4:2:0 colour: 14


@pytest.mark.parametrize("fps", [80, 29.97])
def test_late_frames_are_reached_by_seeking(tmp_path, fps):
    frames, _ = dots(150, size=32)
    path = tmp_path / "a.mp4"
    lerobot_video.encode(path, frames, fps=fps)
    everything = lerobot_video.decode(path, np.arange(150), fps=fps)
    for position in (63, 64, 65, 100, 149):
        np.testing.assert_array_equal(
            lerobot_video.decode(path, np.array([position]), fps=fps)[0], everything[position]
        )
        part = lerobot_video.decode(path, np.array([1, 0]), fps=fps, start=(position - 1) / fps)
        np.testing.assert_array_equal(part, everything[[position, position - 1]])
    assert lerobot_video.count(path, fps=fps) == (150, 32, 32)
    assert lerobot_video.count(path, fps=fps, start=100 / fps)[0] == 50
    assert lerobot_video.packets(path) == 150


def test_beyond_the_end(tmp_path):
    lerobot_video.encode(tmp_path / "a.mp4", dots(5, size=32)[0], fps=10)
    with pytest.raises(DatasetError, match="frame 5 of the episode at 0 s cannot be decoded"):
        lerobot_video.decode(tmp_path / "a.mp4", np.array([2, 5]), fps=10)
    with pytest.raises(DatasetError, match="at least one position"):
        lerobot_video.decode(tmp_path / "a.mp4", np.array([], int), fps=10)


@pytest.mark.parametrize("content", [b"", b"not a video", None])
def test_no_video(tmp_path, content):
    if content is not None:
        (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.mp4 (cannot be decoded|is missing)"):
        lerobot_video.count(tmp_path / "a.mp4", fps=10)
