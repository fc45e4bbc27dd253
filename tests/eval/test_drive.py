"""Driving through a real server: a robot that goes on while the policy thinks, and stands still when it must."""

import time
import types

import numpy as np
import pytest

from bridge import scene
from eval import client, drive, serve, simulator_wire, soak, videos
from eval.chunks import Blend

SIZE = 16


class Pusher:
    """A policy by the contract of eval/policy.py that always pushes one way."""

    def __init__(self, delta, size=SIZE, horizon=16):
        self.delta, self.horizon, self.fails, self.seen = np.array(delta, np.float32), horizon, False, []
        self.meta = {
            "views": ["side", "top"], "state": dict(scene.STATE), "actions": dict(scene.ACTION), "horizon": horizon,
            "tokenizer": "{}", "language_length": 8, "video": [1, 2, size, size, 3],
        }  # fmt: skip

    def act(self, observation, *, atp=None, trust=None, seed=0):
        if self.fails:
            raise ValueError("the policy is ill")
        self.seen.append(observation)
        chunk = np.broadcast_to(self.delta, (len(observation.video), self.horizon, 3))
        rest = {"steps": {}, "confidence": np.zeros(1), "atp": np.zeros(1)}
        return types.SimpleNamespace(actions={"delta": chunk, "gripper": np.ones_like(chunk[..., :1])}, **rest)


class World:
    """What acts as the simulator: a hand that goes where it is told, solved once it is far enough in x."""

    def __init__(self, goal=0.2):
        self.goal, self.sent = goal, []

    def reset(self, task, seed):
        self.hand, self.success, self.seed = np.array([0.0, 0.6, 0.2]), False, seed
        self.sent.append([])

    def state(self):
        return np.append(self.hand, 0.5).astype(np.float32)

    def view(self):
        frames = np.stack([np.full((SIZE, SIZE, 3), value, np.uint8) for value in (10, 20)])
        return scene.View(frames, self.state(), np.zeros((2, 3)), np.zeros((2, 2, 2)), self.success)

    def step(self, action):
        self.sent[-1].append(action)
        self.hand = self.hand + drive.STEP_M * action[:3]
        self.success = bool(self.hand[0] >= self.goal)


@pytest.fixture
def driven(tmp_path):
    """(policy, world, **options) -> what eval.drive found."""

    def driven(policy, world, protocol="n1.5", **options):
        config = serve.Config(artifact=tmp_path, port=0, protocol=protocol, timeout_s=20.0)
        given = {"episodes": 2, "latency_ms": 0.0, "version": protocol} | options
        with serve.running(policy, config) as server, client.Client(server.url, version=protocol) as robot:
            return drive.drive(world, robot, drive.Config(url=server.url, **given))

    return driven


@pytest.mark.parametrize("protocol", ["n1.5", "n1.6"])
def test_episodes_are_solved_with_the_views_that_the_student_reads(driven, protocol):
    policy, world = Pusher([0.5, 0, 0]), World()
    found = driven(policy, world, protocol)
    assert found["success"] == "2/2"
    assert found["commands"] == {"run": found["ticks"], "hold": 0, "stop": 0, "missed": 0, "late": 0, "refused": 0}
    assert policy.seen[-1].video[0, 0, :, 0, 0, 0].tolist() == [20, 10]  # side, top
    assert policy.seen[-1].instruction[0]
    np.testing.assert_allclose(policy.seen[-1].state[0, 0, 1:], [0.6, 0.2, 0.5])
    np.testing.assert_allclose(world.sent[0][5], [0.5, 0, 0, 1])


def test_the_robot_holds_until_the_first_answer_and_then_never(driven):
    world = World()
    found = driven(Pusher([0.5, 0, 0]), world, latency_ms=100.0)
    assert found["commands"]["hold"] == 2 * 4
    assert (np.stack(world.sent[0][:4]) == 0).all()
    assert found["success"] == "2/2"
    assert found["rows"][0]["why"] == {"no answer yet": 4}
    assert found["why"] == ["no answer yet: 8 ticks"]
    again = driven(Pusher([0.5, 0, 0]), World(), latency_ms=100.0)
    assert again == found


def test_answers_that_are_too_old_are_not_acted_on_and_the_robot_stops(driven):
    world = World()
    found = driven(Pusher([0.5, 0, 0], horizon=200), world, latency_ms=1000.0, episodes=1, limit=200)
    assert found["success"] == "0/1"
    assert found["commands"]["run"] == 0
    assert found["commands"]["stop"] == 1
    assert (np.stack(world.sent[0]) == 0).all()
    assert found["ticks"] == 82  # two seconds of holding


def test_a_policy_that_fails_holds_the_robot_and_says_why(driven):
    policy = Pusher([0.5, 0, 0])
    policy.fails = True
    with pytest.raises(ValueError, match="ill"):  # already when it is warmed up
        driven(policy, World())
    policy = Pusher([np.inf, 0, 0])
    found = driven(policy, World(), episodes=1, limit=10)
    assert found["commands"]["hold"] == 10
    assert found["lost"] > 0
    assert "NaN" in found["why"][0]


def test_the_hand_stays_in_its_box_and_changes_no_faster_than_told(driven):
    world = World(goal=9.0)
    found = driven(Pusher([0, -5, -5]), world, episodes=1, rate=0.2, blend=Blend("ensemble"))
    low = drive.BOX[0]
    assert (world.hand >= low).all()
    assert world.hand[1:] == pytest.approx(low[1:] + drive.MARGIN_M)
    assert min(found["limited"].values()) > 0
    steps = np.diff(np.stack(world.sent[0])[:, 0])
    assert np.abs(steps).max() <= 0.2 + 1e-9


def test_on_the_clock_of_the_wall_requests_come_from_a_thread(driven):
    found = driven(Pusher([1, 0, 0]), World(goal=0.1), episodes=1, latency_ms=None, real_time=True)
    assert found["success"] == "1/1"
    assert found["latency_ms"]["p50"] > 0


def test_ticks_that_an_overrun_missed_are_skipped(monkeypatch):
    now = [5.0]
    clock = types.SimpleNamespace(monotonic=lambda: now[0], sleep=lambda s: now.__setitem__(0, now[0] + s))
    monkeypatch.setattr(drive, "time", clock)
    begins, found = drive._clock(real=True), []
    for took in (0.0, 0.3, 10.3, 1.0, 0.5):
        found.append((next(begins) - 5.0) / drive.PERIOD_S)
        now[0] += took * drive.PERIOD_S
    assert found == pytest.approx([0, 1, 2, 13, 14])
    begins = drive._clock(real=False)
    assert [next(begins) for _ in range(3)] == pytest.approx([0, drive.PERIOD_S, 2 * drive.PERIOD_S])


def test_the_clock_starts_after_the_first_image(driven, monkeypatch):
    events, world = [], World(goal=0.1)
    view = world.view
    clock = types.SimpleNamespace(monotonic=lambda: events.append("clock") or time.monotonic(), sleep=time.sleep)
    monkeypatch.setattr(drive, "time", clock)
    world.view = lambda: events.append("view") or view()
    driven(Pusher([1, 0, 0]), world, episodes=1, latency_ms=None, real_time=True)
    assert events[:2] == ["view", "clock"]


class Robot:
    """Acts as a client whose server answers what it likes."""

    version = "n1.5"

    def __init__(self, answer):
        self.answer = answer

    def get_modality_config(self):
        keys = {"video": list(scene.CAMERAS), "state": list(scene.STATE), "action": list(scene.ACTION)}
        return {
            name: {"modality_keys": [f"{name}.{key}" for key in some], "delta_indices": [0]}
            for name, some in keys.items()
        }

    def get_action(self, observation):
        return self.answer


@pytest.mark.parametrize("latency_ms", [0.0, 100.0])
@pytest.mark.parametrize(
    "answer",
    [
        {}, {"action.delta": np.ones((8, 2)), "action.gripper": np.ones((8, 1))}, {"action.delta": 1},
        {"action.delta": np.ones((8, 3)), "action.gripper": np.ones((7, 1))},
        {"action.delta": np.full((8, 3), "x"), "action.gripper": np.full((8, 1), "y")},
    ],
)  # fmt: skip
def test_a_malformed_answer_holds_the_robot(answer, latency_ms):
    world = World()
    found = drive.drive(world, Robot(answer), drive.Config(episodes=1, limit=12, latency_ms=latency_ms))
    assert found["commands"]["hold"] == 12
    assert found["lost"] > 0
    assert "Error: " in found["why"][0]
    assert (np.stack(world.sent[0]) == 0).all()


def test_a_film_shows_every_tick(driven, tmp_path):
    found = driven(Pusher([0.5, 0, 0]), World(), episodes=1, video=True, out=tmp_path)
    (film,) = tmp_path.glob("*.mp4")
    assert videos.read(film).shape == (found["ticks"], SIZE, 2 * SIZE, 3)


def test_the_real_simulator_is_driven(driven):
    with scene.Scene() as world:
        found = driven(Pusher([0, 0, 1], size=scene.SIZE), world, episodes=1, limit=6)
        assert world.state()[2] > 0.2
    assert found["commands"]["run"] == 6


def test_another_robots_student_is_refused(driven):
    for name, wrong in (("state", {"arm": 7}), ("actions", {"arm": 7}), ("views", ["wrist"])):
        policy = Pusher([0, 0, 0])
        policy.meta = policy.meta | {name: wrong, "video": None}
        with pytest.raises(simulator_wire.DriveError, match="the server's student"):
            driven(policy, World())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", "dance"], "drawer-open"), (["--episodes", "0"], "--episodes"), (["--video"], "--out"),
        (["--latency-ms", "-1"], "--latency-ms"), (["--latency-ms", "1", "--real-time"], "--real-time"),
        (["--version", "n2"], "n1.6"), (["--first", "-1"], "--first"), (["--url", "nowhere"], "error"),
        (["--url", "tcp://bogus"], "error: tcp://bogus"),
    ],
)  # fmt: skip
def test_bad_options_are_said(words, said, capsys):
    assert drive.main(words) == 2
    assert said in capsys.readouterr().err


def test_a_watchdog_that_watches_nothing_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        drive.main(["--safety.max-age-s", "nan"])
    assert "max_age_s > 0" in capsys.readouterr().err


def test_a_mixed_up_answer_is_noticed():
    one = {"action.delta": np.zeros((4, 3), np.float32)}
    assert soak.same(one, dict(one))
    assert not soak.same(one, {"action.delta": np.ones((4, 3), np.float32)})
    assert not soak.same(one, {"action.delta": np.zeros((3, 3), np.float32)})
    assert not soak.same(one, one | {"action.gripper": np.zeros(3)})
