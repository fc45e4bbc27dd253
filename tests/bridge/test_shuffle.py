"""Pictures of another episode of the same task, never of one's own."""

import numpy as np

from bridge import metaworld_tasks, shuffle

OPEN, CLOSE = (metaworld_tasks.find(f"drawer-{verb}").phrasings for verb in ("open", "close"))


def test_the_picture_is_of_another_episode_of_the_task_however_it_was_asked():
    said = [*OPEN, *OPEN, *CLOSE, *CLOSE, "make tea", "make tea"]
    episodes = np.array([*[0, 0, 0, 1, 1] * 2, *[2, 3, 3, 4, 4] * 2, 5, 6])
    found = shuffle.of_another_episode(said, episodes)
    tasks = [metaworld_tasks.asked_for(text) or text for text in said]
    assert [tasks[i] for i in found] == tasks
    assert (episodes[found] != episodes).all()


def test_a_task_of_one_episode_borrows_from_another_task():
    np.testing.assert_array_equal(shuffle.of_another_episode(["a", "b"], np.array([0, 1])), [1, 0])


def test_a_single_episode_lends_another_moment():
    np.testing.assert_array_equal(shuffle.of_another_episode(["a", "a"], np.array([3, 3])), [1, 0])
    np.testing.assert_array_equal(shuffle.of_another_episode(["a"], np.array([3])), [0])
