"""Asynchronous chunks: every action in its own tick, none beyond limits or faster than allowed, stale means hold."""

import numpy as np
import pytest

from eval import chunks, executor, guard

PERIOD = 0.025
FREE, AT_ONCE = guard.Limits(), chunks.Blend(ticks=0)


def chunk(observed, horizon=8, width=2):
    """Actions that say which tick they are for, and the tick of the observation."""
    ticks = observed + np.arange(horizon, dtype=float)
    return np.stack([ticks, np.full(horizon, float(observed))], axis=1)[:, :width]


def make(limits=FREE, *, blend=AT_ONCE, relative=True, started=100.0, **safety):
    return executor.Executor(
        limits, period_s=PERIOD, started=started, start=np.zeros(2), relative=relative, blend=blend,
        safety=executor.Safety(**safety),
    )  # fmt: skip


def drive(robot, ticks, *, latency=0, every=4, jitter=0.0, seed=0):
    """One request at a time, answered `latency` ticks later; the commands."""
    rng, sent, asked, waiting = np.random.default_rng(seed), [], -every, None
    for tick in range(ticks):
        now = robot.started + (tick + jitter * rng.random()) * PERIOD
        if waiting is None and tick - asked >= every:
            waiting, asked = (tick, now), tick
        if waiting and tick - waiting[0] >= latency:
            robot.offer(chunk(waiting[0]), observed_at=waiting[1], now=now)
            waiting = None
        sent.append(robot.step(now))
    return sent


@pytest.mark.parametrize("jitter", [0.0, 0.9])
@pytest.mark.parametrize("every", [1, 4, 8])
@pytest.mark.parametrize("started", [0.0, 1e9 / 3])
def test_without_latency_every_tick_has_its_own_action_once(jitter, every, started):
    sent = drive(make(started=started), 100, every=every, jitter=jitter)
    assert [command.action[0] for command in sent] == list(range(100))
    assert {command.state for command in sent} == {"run"}


@pytest.mark.parametrize("latency", [1, 2, 3])
def test_with_latency_actions_whose_time_has_passed_are_skipped(latency):
    sent = drive(make(), 60, latency=latency)
    assert [command.state for command in sent[:latency]] == ["hold"] * latency
    assert [command.action[0] for command in sent[latency:]] == list(range(latency, 60))
    newest = [command.action[1] for command in sent[latency:]]
    assert newest == sorted(newest)


def test_a_loop_that_falls_behind_skips_ticks_and_repeats_none():
    robot = make()
    robot.offer(chunk(0), observed_at=100.0, now=100.0)
    times = 100.0 + PERIOD * np.array([0, 1, 3.5, 3.6, 4.9, 6])
    assert [robot.step(now).action[0] for now in times] == [0, 1, 3, 3, 4, 6]
    assert (robot.counts.run, robot.counts.missed) == (5, 2)


def test_a_loop_that_is_too_fast_never_runs_ahead_of_the_clock():
    robot = make()
    robot.offer(chunk(0, horizon=50), observed_at=100.0, now=100.0)
    for now in 100.0 + PERIOD * np.linspace(0, 9.99, 200):
        assert robot.step(now).action[0] == int((now - 100.0) / PERIOD + 1e-3)
    now = 100.0 + 10 * PERIOD
    assert robot.offer(chunk(10), observed_at=now, now=now)
    assert robot.step(now).action.tolist() == [10, 10]
    assert (robot.counts.run, robot.counts.missed, robot.counts.late) == (11, 0, 0)


def test_a_repeated_command_may_be_braked_and_never_pushed():
    robot = make(guard.Limits(rate=5.0))
    robot.offer(np.ones((8, 2)), observed_at=100.0, now=100.0)
    assert robot.step(100.0).action.tolist() == [1, 1]
    assert robot.step(100.001, low=3.0).action.tolist() == [1, 1]
    assert robot.step(100.002, low=np.nan, high=np.nan).action.tolist() == [1, 1]
    assert robot.step(100.003, high=np.array([0.5, -1.0])).action.tolist() == [0.5, 0]


def test_a_clock_that_goes_back_holds_and_then_stops():
    robot = make(stop_after_s=4 * PERIOD)
    robot.offer(np.ones((8, 2)), observed_at=100.0, now=100.0)
    assert robot.step(100.0).state == "run"
    sent = [robot.step(50.0 + tick * PERIOD) for tick in range(7)]
    assert [command.state for command in sent] == ["hold"] * 5 + ["stop"] * 2
    assert sent[0].reason == "clock behind"
    assert (sent[0].action == 0).all()


def test_a_chunk_that_comes_too_late_changes_nothing():
    robot = make()
    now = 100.0 + 4 * PERIOD
    assert robot.offer(chunk(4), observed_at=now, now=now)
    assert not robot.offer(chunk(2), observed_at=now - 2 * PERIOD, now=now)  # an older observation
    robot.step(now)
    assert not make().offer(chunk(0), observed_at=100.0, now=100.0 + 8 * PERIOD)  # all of it has passed
    assert robot.counts.late == 1
    assert robot.step(now + PERIOD).action[1] == 4


def test_chunks_that_are_not_finite_are_refused_and_counted():
    robot = make()
    robot.offer(chunk(0), observed_at=100.0, now=100.0)
    for bad in (np.nan, np.inf):
        assert not robot.offer(np.full((8, 2), bad), observed_at=100.0, now=100.0)
    assert robot.counts.refused == 2
    assert robot.step(100.0).state == "run"
    for wrong in (np.zeros((8, 3)), np.zeros(2)):
        with pytest.raises(ValueError, match=r"\[h, 2\]"):
            robot.offer(wrong, observed_at=100.0, now=100.0)
    with pytest.raises(ValueError, match="cannot arrive"):
        robot.offer(chunk(9), observed_at=101.0, now=100.0)


def test_stale_answers_hold_and_then_stop_until_resumed():
    robot = make(max_age_s=4 * PERIOD, stop_after_s=6 * PERIOD)
    robot.offer(chunk(0), observed_at=100.0, now=100.0)
    sent = [robot.step(100.0 + tick * PERIOD) for tick in range(20)]
    assert [command.state for command in sent] == ["run"] * 5 + ["hold"] * 7 + ["stop"] * 8
    assert sent[5].reason == "stale answer"
    assert all((command.action == 0).all() for command in sent[5:])
    now = 100.0 + 20 * PERIOD
    assert robot.offer(chunk(20), observed_at=now, now=now)
    assert robot.step(now).state == "stop"  # latched
    now += PERIOD
    robot.resume(now)
    assert not robot.offer(chunk(20), observed_at=now - PERIOD, now=now)  # the answer was under way during the stop
    assert robot.step(now).state == "hold"  # what was there before the resume is forgotten
    robot.offer(chunk(21), observed_at=now, now=now)
    assert robot.step(now + PERIOD).action[0] == 22


def test_a_chunk_that_ended_holds_and_a_new_one_goes_on():
    robot = make()
    robot.offer(chunk(0, horizon=2), observed_at=100.0, now=100.0)
    sent = [robot.step(100.0 + tick * PERIOD) for tick in range(4)]
    assert [command.reason for command in sent] == ["", "", "chunk ended", "chunk ended"]
    now = 100.0 + 4 * PERIOD
    robot.offer(chunk(4), observed_at=now, now=now)
    assert robot.step(now).state == "run"
    assert robot.counts.hold == 2


def test_a_camera_that_stands_still_holds():
    robot = make(max_age_s=0.1)
    robot.offer(chunk(0), observed_at=100.0, now=100.0)
    assert robot.step(100.0, sensed_at=100.0).state == "run"
    assert robot.step(100.05, sensed_at=99.9).reason == "stale observation"
    assert robot.step(100.075, sensed_at=np.nan).reason == "stale observation"


def test_a_hold_keeps_absolute_dimensions_and_brakes_no_faster_than_the_rate():
    robot = make(guard.Limits(rate=np.array([2.0, 9.0])), relative=np.array([True, False]), max_age_s=10.0)
    robot.offer(np.array([[2.0, 5.0], [4.0, 5.0], [5.0, 5.0]]), observed_at=100.0, now=100.0)
    sent = np.stack([robot.step(100.0 + tick * PERIOD).action for tick in range(7)])
    np.testing.assert_allclose(sent[:, 0], [2, 4, 5, 3, 1, 0, 0])
    np.testing.assert_allclose(sent[:, 1], 5)


@pytest.mark.parametrize("blend", [chunks.Blend(ticks=3), chunks.Blend(ticks=0), chunks.Blend("ensemble")])
@pytest.mark.parametrize("seed", range(5))
def test_whatever_comes_no_command_is_beyond_its_limits_or_too_fast(blend, seed):
    rng = np.random.default_rng(seed)
    limits = guard.Limits(np.array([-1.0, -0.5]), np.array([1.0, 2.0]), np.array([0.3, 0.05]))
    robot, last = make(limits, blend=blend, max_age_s=0.2, stop_after_s=1e9), np.zeros(2)
    waiting = []
    for tick in range(600):
        now = 100.0 + (tick + 0.4 * rng.random()) * PERIOD
        if rng.random() < 0.3:
            waiting.append((now + rng.exponential(4) * PERIOD, now, rng.normal(0, 3, (8, 2))))
        for one in [one for one in waiting if one[0] <= now]:
            waiting.remove(one)
            one[2][rng.random(one[2].shape) < 0.01] = np.nan
            robot.offer(one[2], observed_at=one[1], now=now)
        command = robot.step(now)
        assert np.isfinite(command.action).all()
        assert (command.action >= limits.low).all()
        assert (command.action <= limits.high).all()
        assert (np.abs(command.action - last) <= limits.rate + 1e-12).all()
        last = command.action
    assert min(robot.counts.run, robot.counts.hold, robot.counts.refused, robot.guard.hits.rate) > 0


@pytest.mark.parametrize(
    ("old", "new", "ticks", "expected"),
    [
        (5, 6, 3, [0.25, 0.5, 0.75, 1, 1, 1]), (1, 6, 3, [0.25, 1, 1, 1, 1, 1]), (5, 2, 3, [0.25, 0.5, None]),
        (5, 3, 0, [1, 1, 1, None]),
    ],
)  # fmt: skip
def test_a_fade_passes_from_the_old_plan_to_the_new_one(old, new, ticks, expected):
    plan = chunks.Chunks(chunks.Blend(ticks=ticks))
    plan.add(np.zeros((old, 1)), observed=0, now=0)
    plan.add(np.ones((new, 1)), observed=0, now=0)
    found = [plan.at(tick) for tick in range(len(expected))]
    assert [None if one is None else float(one[0]) for one in found] == expected


def test_a_chunk_that_comes_amid_a_fade_fades_from_what_was_under_way():
    plan = chunks.Chunks(chunks.Blend(ticks=3))
    plan.add(np.zeros((9, 1)), observed=0, now=0)
    plan.add(np.ones((9, 1)), observed=1, now=2)
    assert [float(plan.at(tick)[0]) for tick in (2, 3, 4)] == [0.25, 0.5, 0.75]
    plan.add(np.ones((9, 1)), observed=2, now=3)
    assert float(plan.at(3)[0]) == pytest.approx(0.75 * 0.5 + 0.25)


def test_an_ensemble_weighs_the_oldest_most():
    found = chunks.ensemble([np.array([0.0]), np.array([1.0])], 0.5)
    assert found[0] == pytest.approx(np.exp(-0.5) / (1 + np.exp(-0.5)))
    plan = chunks.Chunks(chunks.Blend("ensemble", decay=0.0))
    for tick in range(4):
        plan.add(np.full((4, 1), float(tick)), observed=tick, now=tick)
    assert plan.at(3)[0] == pytest.approx(1.5)
    assert plan.at(6)[0] == pytest.approx(3.0)
    assert plan.at(7) is None


def test_a_start_beyond_the_limits_and_limits_that_are_none_are_refused():
    with pytest.raises(ValueError, match="starts at"):
        guard.Guard(guard.Limits(-1.0, 1.0), np.full(1, 2.0), relative=True)
    for wrong in (guard.Limits, lambda low, high: guard.Limits(rate=low - high)):
        with pytest.raises(ValueError, match="Limits"):
            wrong(1.0, 0.0) if wrong is guard.Limits else wrong(0.0, 1.0)
    with pytest.raises(ValueError, match="Blend"):
        chunks.Blend(ticks=-1)
    for age, stop in ((np.nan, 1.0), (-1.0, 1.0), (0.0, 1.0), (1.0, np.nan), (1.0, -1.0)):
        with pytest.raises(ValueError, match="Safety"):
            executor.Safety(age, stop)
