"""Workspace bounds: they brake at once and push slowly, a hold is never moved by them, NaN means that it holds."""

import numpy as np
import pytest

from eval import chunks, executor, guard

PERIOD = 0.025


def make(limits, *, start=(0.0, 0.0), relative=True, blend=chunks.FADE, **safety):
    return executor.Executor(
        limits, period_s=PERIOD, started=0.0, start=np.array(start), relative=relative, blend=blend,
        safety=executor.Safety(**safety),
    )  # fmt: skip


@pytest.mark.parametrize("side", ["low", "high"])
def test_a_bound_that_is_nan_is_refused_and_changes_nothing(side):
    one = guard.Guard(guard.Limits(), np.zeros(2), relative=True)
    for wrong in (np.nan, {"low": np.inf, "high": -np.inf}[side]):
        with pytest.raises(ValueError, match="a workspace bound is NaN"):
            one.apply(np.ones(2), **{side: np.array([0.0, wrong])})
    assert (one.last == 0).all()


@pytest.mark.parametrize("position", [np.nan, np.inf, -np.inf])
def test_an_unknown_position_holds_and_a_known_one_goes_on(position):
    robot = make(guard.Limits(-1.0, 1.0, 0.5), stop_after_s=2 * PERIOD, max_age_s=9.0)
    robot.offer(np.ones((40, 2)), observed_at=0.0, now=0.0)

    def step(tick, place):
        low, high = guard.box(np.array([0.0, place]), low=np.full(2, -1.0), high=np.ones(2), step=0.02)
        return robot.step(tick * PERIOD, low=low, high=high)

    assert step(0, 0.0).state == "run"
    assert (step(1, position).state, robot.guard.last.tolist()) == ("hold", [0.0, 0.0])
    assert step(2, position).reason == "position unknown"
    assert step(3, 0.0).state == "run"
    sent = [step(tick, position) for tick in range(4, 9)]
    assert [one.state for one in sent] == ["hold"] * 3 + ["stop"] * 2
    assert sent[-1].reason == "stopped"
    assert np.isfinite(robot.guard.last).all()


def test_a_hand_outside_its_box_is_not_moved_by_a_hold_or_a_stop():
    robot = make(guard.Limits(-1.0, 1.0, 0.1), stop_after_s=2 * PERIOD)
    sent = [robot.step(tick * PERIOD, low=np.full(2, -9.0), high=np.array([-5.0, 9.0])) for tick in range(6)]
    assert [one.state for one in sent] == ["hold"] * 3 + ["stop"] * 3
    assert all((one.action == 0).all() for one in sent)


def test_a_hold_keeps_an_absolute_dimension_where_it_is_whatever_its_bounds():
    robot = make(guard.Limits(rate=0.1), start=(0.0, 3.0), relative=np.array([True, False]))
    for tick, (low, high) in enumerate([(-1.0, 1.0), (5.0, 6.0), (3.5, 3.6)]):
        assert robot.step(tick * PERIOD, low=low, high=high).action.tolist() == [0.0, 3.0]


def test_a_hold_brakes_at_once_where_it_must():
    robot = make(guard.Limits(rate=0.1), start=(1.0, 1.0))
    assert robot.step(0.0, high=np.array([0.3, -2.0])).action == pytest.approx([0.3, 0.0])
    assert robot.step(PERIOD).action == pytest.approx([0.2, 0.0])


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_no_bound_pushes_faster_than_the_rate(relative, seed):
    rng, rate = np.random.default_rng(seed), 0.1
    one = guard.Guard(guard.Limits(-1.0, 1.0, rate), np.zeros(3), relative=relative)
    for _ in range(300):
        low, last = rng.normal(0, 1, 3), one.last
        sent = one.apply(rng.normal(0, 1, 3), low=low, high=low + rng.random(3))
        braked = relative & (np.abs(sent) < np.abs(last)) & (sent * last >= 0)
        assert (braked | (np.abs(sent - last) <= rate + 1e-12)).all()


def test_a_hand_outside_its_box_comes_back_at_the_rate():
    step, place, last = 0.02, np.array([0.6]), np.zeros(1)
    one = guard.Guard(guard.Limits(-1.0, 1.0, 0.1), np.zeros(1), relative=True)
    for _ in range(60):
        low, high = guard.box(place, low=np.full(1, -0.5), high=np.full(1, 0.5), step=step)
        sent = one.apply(np.ones(1), low=low, high=high)
        assert np.minimum(last, 0) - sent <= 0.1 + 1e-12  # from above 0 it may brake to 0 at once
        place, last = place + step * sent, sent
    assert place == pytest.approx(0.5)


@pytest.mark.parametrize("blend", [chunks.Blend(ticks=3), chunks.Blend(ticks=30), chunks.Blend("ensemble", decay=0.0)])
def test_a_plan_that_was_stale_is_no_part_of_what_comes_after(blend):
    robot = make(guard.Limits(), blend=blend, max_age_s=4 * PERIOD)
    robot.offer(np.full((40, 2), 7.0), observed_at=0.0, now=0.0)
    sent = [robot.step(tick * PERIOD) for tick in range(7)]
    assert [one.reason for one in sent[5:]] == ["stale answer"] * 2
    robot.offer(np.full((40, 2), 1.0), observed_at=6 * PERIOD, now=7 * PERIOD)
    assert robot.step(7 * PERIOD).action.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("blend", [chunks.Blend(ticks=30), chunks.Blend("ensemble", decay=0.0)])
def test_no_part_of_a_command_is_older_than_the_greatest_age(blend):
    robot = make(guard.Limits(), blend=blend, max_age_s=4.5 * PERIOD)
    for tick in range(40):
        if tick % 2 == 0:  # the first is 1, all after it are 0
            robot.offer(np.full((60, 2), float(tick == 0)), observed_at=tick * PERIOD, now=tick * PERIOD)
        command = robot.step((tick + 0.4 * (tick % 2)) * PERIOD)
        assert command.state == "run"
        assert (command.action[0] > 0) == (tick <= 4)


def test_a_workspace_goes_before_the_rate_and_limits_before_the_workspace():
    one = guard.Guard(guard.Limits(-1.0, 1.0, 0.1), np.full(1, 1.0), relative=True)
    assert one.apply(np.ones(1), high=np.zeros(1)) == 0.0
    assert one.hits == guard.Hits(limit=0, rate=0, workspace=1)
    one = guard.Guard(guard.Limits(-1.0, 1.0), np.zeros(1), relative=True)
    assert one.apply(np.ones(1), low=np.full(1, 5.0)) == 1.0
    with pytest.raises(ValueError, match="finite"):
        one.apply(np.full(1, np.nan))


@pytest.mark.parametrize("seed", range(3))
def test_a_hand_never_leaves_its_box(seed):
    rng, low, high, step = np.random.default_rng(seed), np.array([-0.5, 0.4]), np.array([0.5, 1.0]), 0.02
    one, place = guard.Guard(guard.Limits(-1.0, 1.0, 0.7), np.zeros(2), relative=True), np.array([0.0, 0.6])
    for _ in range(500):
        bounds = dict(zip(("low", "high"), guard.box(place, low=low, high=high, step=step), strict=True))
        place = place + step * one.apply(rng.normal(0.5, 2, 2), **bounds)
        assert (place >= low - 1e-9).all()
        assert (place <= high + 1e-9).all()
    assert one.hits.workspace > 0
