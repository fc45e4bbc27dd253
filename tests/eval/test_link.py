"""Requests of a control loop: whatever goes wrong with one, it is a lost answer, and the next one is asked."""

import time

import numpy as np
import pytest
import zmq

from eval import link

ERRORS = [KeyError("action.delta"), ValueError("shapes"), TypeError("None"), zmq.ZMQError(), TimeoutError("late")]


def wait(line, now):
    """The answer of a thread."""
    while not line.free:
        if (found := line.receive(now)) is not None:
            return found
        time.sleep(0.001)
    return None


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("threaded", [False, True])
def test_a_malformed_answer_is_lost_and_the_next_is_received(error, threaded):
    answers = [error, np.ones((2, 4))]

    def ask(_):
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    line = link.Threaded(ask) if threaded else link.Timed(ask, 0.0)
    line.send({}, 1.0)
    assert wait(line, 1.0) is None
    assert line.lost == [f"{type(error).__name__}: {error}"]
    line.send({}, 2.0)
    assert wait(line, 2.0).observed_at == 2.0
    assert len(line.lost) == 1
    if threaded:
        line.__exit__()
