"""Videos: which episodes are shown, what lies beside what, and that a browser can play them."""

import av
import numpy as np
import pytest

from bridge import outcomes, simulator
from eval import clips, rollouts, videos


def outcome(task, seed, success):
    return outcomes.Outcome("student", "d", "normal", task, seed, 0, "do it", success, 8)


def test_solved_and_failed_ones_are_chosen_in_the_order_of_tasks():
    known = [outcome(task, seed, seed != 2) for task in "cba" for seed in (1, 2, 3)]
    chosen = videos.choose(known, "abc")
    assert [(one.task, one.goal_seed) for one in chosen] == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def test_where_nothing_failed_nothing_failed_is_shown():
    assert videos.choose([outcome("a", 1, True)], "ab") == [outcome("a", 1, True)]
    assert videos.choose([], "ab") == []


def test_the_shorter_clip_stands_still_at_its_end():
    short, long = np.full((2, 4, 8, 3), 10, np.uint8), np.full((5, 4, 8, 3), 200, np.uint8)
    short[1] = 50
    both = videos.beside([short, long])
    assert both.shape == (5, 8, 2 * 16 + videos.GAP, 3)
    assert (both[1:, :, :16] == 50).all()
    assert (both[:, :, -16:] == 200).all()


def test_views_lie_side_by_side():
    frames = np.stack([np.zeros((3, 4, 4, 3)), np.ones((3, 4, 4, 3))], axis=1)
    assert (videos.flat(frames)[:, :, 4:] == 1).all()
    assert (videos.flat(frames)[:, :, :4] == 0).all()


def test_a_written_video_is_h264_yuv420p_and_reads_back(tmp_path):
    frames = np.broadcast_to(np.linspace(40, 200, 6).astype(np.uint8)[:, None, None, None], (6, 32, 48, 3))
    videos.write(tmp_path / "v" / "a.mp4", frames, fps=40)
    with av.open(str(tmp_path / "v" / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 40
    assert np.abs(videos.read(tmp_path / "v" / "a.mp4").astype(int) - frames).max() < 6
    assert videos.read(tmp_path / "none.mp4") is None


@pytest.mark.parametrize("there", [True, False])
def test_a_clip_shows_both_where_the_teacher_was_filmed(tmp_path, fake_lanes, there):
    one = outcome("drawer-open", 3, False)
    if there:
        videos.write(clips.name(tmp_path / "raw", one), np.zeros((4, 32, 64, 3), np.uint8))
    zeros = lambda query: np.zeros((len(query.seed), simulator.EXECUTE, 4))  # noqa: E731
    with rollouts.Farm(fake_lanes) as farm:
        (clip,) = clips.make(zeros, [one], theirs=tmp_path / "raw", out=tmp_path, why="no torch", farm=farm)
    assert clip.file == "videos/drawer-open-3.mp4"
    assert ("teacher left, student right" if there else "student alone (no torch)") in clip.caption
    assert "student failed" in clip.caption
    shown = videos.read(tmp_path / clip.file)
    assert shown.shape[1:] == (64, 128 * 2 + videos.GAP if there else 128, 3)
    assert len(shown) == simulator.LIMIT + 1


def test_nothing_chosen_starts_no_simulator(tmp_path):
    with rollouts.Farm(lambda: pytest.fail("started")) as farm:
        assert clips.make(None, [], theirs=tmp_path, out=tmp_path, why="", farm=farm) == []
