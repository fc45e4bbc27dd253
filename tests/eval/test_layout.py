"""Token geometry: which pixels a token owns, and how tokens become a picture again."""

import numpy as np
import pytest

from eval.layout import Layout


def test_patches_of_one_tile_are_the_token_row_by_row():
    frame = np.zeros((1, 8, 8, 3), np.uint8)
    frame[0, 0:4, 4:8] = 255  # top right
    patches = Layout(grid=2).patches(frame, pixels=2)
    assert patches.shape == (1, 4, 12)
    assert patches.mean(-1).tolist() == [[0, 1, 0, 0]]


def test_patches_of_tiles_go_tile_by_tile_and_end_with_the_thumbnail():
    frame = np.zeros((1, 8, 8, 3), np.uint8)
    frame[0, 4:6, 0:2] = 255  # third tile (bottom left), its first token
    patches = Layout(grid=2, columns=2, rows=2, thumbnail=True).patches(frame, pixels=1)
    values = patches.mean(-1)[0]
    assert values.shape == (20,)
    assert values[8] == 1
    assert values[:16].sum() == 1
    assert values[16:] == pytest.approx([0, 0, 0.25, 0], abs=0.01)


def test_picture_undoes_the_tiling():
    layout = Layout(grid=2, columns=3, rows=2, thumbnail=True)
    frame = np.random.default_rng(0).integers(0, 256, (1, 4, 6, 3), dtype=np.uint8)
    assert layout.picture(layout.patches(frame, pixels=1)[0]) == pytest.approx(frame[0] / 255)


def test_touched_is_any_overlap_with_a_token():
    mask = np.zeros((1, 30, 30), bool)
    mask[0, :4, :1] = True  # a token of eight sees 3.75 cells: the fourth row reaches into the second
    assert np.flatnonzero(Layout(grid=8).touched(mask)[0]).tolist() == [0, 8]


def test_counts():
    layout = Layout(grid=16, columns=3, rows=3, thumbnail=True)
    assert (layout.tiles, layout.tokens) == (10, 2560)
