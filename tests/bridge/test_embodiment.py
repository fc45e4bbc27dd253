"""Embodiments: normalisation as GR00T does it, metadata files written and read, clear errors for bad ones."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from bridge import embodiment, normalisation
from bridge.embodiment import EmbodimentError

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
RNG = np.random.default_rng(0)
ROWS = RNG.normal(2, 3, (200, 3)).astype(np.float32)


def body(mode: str = "min_max", rows: np.ndarray = ROWS) -> embodiment.Embodiment:
    transform = embodiment.Transform(("front",), 0.95, 224, 1, {"state.arm": mode, "action.arm": mode}, 31, 16, "plain")
    video = {"front": {"resolution": [8, 8], "channels": 3, "fps": 10.0}}
    return embodiment.from_data("robot", state={"arm": rows}, action={"arm": rows}, video=video, transform=transform)


def test_official_state_and_actions_are_reproduced_exactly():
    case, official = np.load(GOLDEN / "chain.npz"), embodiment.load(GOLDEN / "chain_metadata.json")
    state = embodiment.normalise(official, {key: case[f"raw/state.{key}"] for key in ("single_arm", "gripper")})
    np.testing.assert_array_equal(state, case["out/state"][..., :6])
    actions = embodiment.denormalise(official, case["unapply_in"])
    assert list(actions) == ["single_arm", "gripper"]
    for key, value in actions.items():
        np.testing.assert_array_equal(value, case[f"unapply/action.{key}"])


def test_file_without_transform_gets_the_official_chain():
    official = embodiment.load(GOLDEN / "chain_metadata.json").transform
    assert official.video_keys == ("front", "wrist")
    assert (official.crop, official.resize, official.projector_id, official.horizon) == (0.95, 224, 31, 16)
    assert official.instruction_style == "bracketed"
    assert set(official.normalisation.values()) == {"min_max"}


@pytest.mark.parametrize("mode", ["min_max", "mean_std", "none"])
def test_inverse_undoes_forward(mode):
    robot = body(mode)
    there = embodiment.normalise(robot, {"arm": ROWS})
    back = embodiment.denormalise(robot, there)["arm"]
    np.testing.assert_allclose(back, ROWS, atol=1e-4)
    assert there.dtype == back.dtype == np.float32


def test_q99_clips_and_inverts_inside_its_bounds():
    robot = body("q99")
    there = embodiment.normalise(robot, {"arm": ROWS})
    assert there.min() == -1
    assert there.max() == 1
    inside = (np.abs(there) < 1).all(1)
    np.testing.assert_allclose(embodiment.denormalise(robot, there)["arm"][inside], ROWS[inside], atol=1e-4)


def test_min_max_is_not_clipped():
    assert embodiment.normalise(body(), {"arm": ROWS.max(0) + 1}).min() > 1


def test_binary():
    there = embodiment.normalise(body("binary"), {"arm": np.array([0.2, 0.5, 0.7], np.float32)})
    assert there.tolist() == [0, 0, 1]


@pytest.mark.parametrize(("mode", "expected"), [("min_max", 0), ("q99", 1), ("mean_std", 2), ("binary", 1)])
def test_degenerate_dimensions(mode, expected):
    """A constant 2 is 0 under min_max, the raw value (clipped for q99) otherwise."""
    rows = np.full((5, 1), 2, np.float32)
    assert embodiment.normalise(body(mode, rows), {"arm": rows})[0] == expected


def test_statistics_are_the_six_of_groot():
    values = body().statistics["state"]["arm"]
    assert set(values) == set(embodiment.STATISTICS)
    np.testing.assert_array_equal(values["q01"], np.quantile(ROWS, 0.01, axis=0).astype(np.float32))
    np.testing.assert_array_equal(values["std"], ROWS.std(0))


def test_saved_embodiment_reads_back_the_same(tmp_path):
    path = tmp_path / "metadata.json"
    for robot in (body(), embodiment.arc(max_tiles=1)):
        embodiment.save(path, robot)
    read = embodiment.load(path, "robot")
    assert read.transform == body().transform
    assert read.modalities == body().modalities
    np.testing.assert_array_equal(
        embodiment.normalise(read, {"arm": ROWS}), embodiment.normalise(body(), {"arm": ROWS})
    )
    assert set(json.loads(path.read_text())["arc"]) == {"statistics", "modalities", "embodiment_tag", "transform"}


def test_checkpoint_folder_holds_its_metadata(tmp_path):
    embodiment.save(tmp_path / "experiment_cfg" / "metadata.json", body())
    assert embodiment.load(tmp_path).tag == "robot"


def test_arc():
    arc = embodiment.arc()
    assert (arc.tag, arc.transform.projector_id, arc.transform.resize, arc.transform.max_tiles) == ("arc", 31, None, 12)
    assert arc.dimensions("state") == {"blank": 16}
    assert arc.transform.instruction_style == "plain"
    size = np.array([3, 30], np.float32) / 30
    np.testing.assert_array_equal(embodiment.denormalise(arc, np.pad(size, (0, 30)))["size"], size)


def test_unknown_tag_lists_the_known_ones(tmp_path):
    path = tmp_path / "metadata.json"
    embodiment.save(path, body())
    embodiment.save(path, embodiment.arc())
    for tag in ("gr1", None):
        with pytest.raises(EmbodimentError, match=r"\['arc', 'robot'\]: choose one.*--embodiment"):
            embodiment.load(path, tag)


def test_missing_file_names_the_fix(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"metadata\.json.*--metadata"):
        embodiment.load(tmp_path)


def damage(entry: dict, what: str) -> None:
    if what == "statistic":
        del entry["statistics"]["state"]["arm"]["q99"]
    elif what == "length":
        entry["statistics"]["state"]["arm"]["q99"] = [1.0]
    elif what == "transform":
        entry["transform"]["blur"] = 1
    else:
        del entry["modalities"]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("statistic", r"state\.arm lacks \['q99'\]"),
        ("length", "differ in length"),
        ("transform", "exactly.*blur"),
        ("modalities", r"robot lacks \['modalities'\]"),
    ],
)
def test_damaged_entry(what, message, tmp_path):
    path = tmp_path / "metadata.json"
    embodiment.save(path, body())
    entries = json.loads(path.read_text())
    damage(entries["robot"], what)
    path.write_text(json.dumps(entries))
    with pytest.raises(EmbodimentError, match=message):
        embodiment.load(path)


def test_file_that_is_not_json(tmp_path):
    (tmp_path / "metadata.json").write_text("{")
    with pytest.raises(EmbodimentError, match="not JSON"):
        embodiment.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalisation": {"state.arm": "zscore"}}, "one of min_max, q99.*zscore"),
        ({"instruction_style": "loud"}, "loud"),
        ({"projector_id": 32}, r"0\.\.31, got 32"),
        ({"crop": 0.0}, "crop"),
        ({"max_tiles": 0}, "at least 1"),
    ],
)
def test_bad_transform(changes, message):
    with pytest.raises(EmbodimentError, match=message):
        dataclasses.replace(body().transform, **changes)


@pytest.mark.parametrize("values", [{}, {"arm": ROWS, "leg": ROWS}, {"arm": ROWS[:, :2]}])
def test_values_that_do_not_fit(values):
    with pytest.raises(EmbodimentError, match="arm"):
        embodiment.normalise(body(), values)


def test_actions_too_narrow():
    with pytest.raises(EmbodimentError, match="needs 3 values"):
        embodiment.denormalise(body(), ROWS[:, :2])


@pytest.mark.parametrize("rows", [np.zeros((0, 3)), np.zeros(3), np.full((2, 3), np.inf)])
def test_statistics_need_finite_rows(rows):
    with pytest.raises(EmbodimentError, match="finite rows"):
        body(rows=rows)


def test_every_mode_is_implemented():
    statistics = body().statistics["state"]["arm"]
    for mode in normalisation.MODES:
        there = normalisation.forward(ROWS, statistics, mode)
        assert there.shape == (200, normalisation.width(3, mode))
        assert normalisation.inverse(there, statistics, mode).shape == ROWS.shape


def test_sin_cos_doubles_the_width_and_wraps_angles():
    """All sines, then all cosines; keys that follow are still found."""
    angles = RNG.uniform(-9, 9, (50, 2)).astype(np.float32)
    modes = {"state.arm": "sin_cos", "state.hand": "min_max"}
    transform = dataclasses.replace(body().transform, normalisation=modes)
    rows = {"arm": angles, "hand": ROWS[:50]}
    robot = embodiment.from_data("robot", state=rows, action={"arm": ROWS}, video={}, transform=transform)
    assert robot.dimensions("state") == {"arm": 2, "hand": 3}
    assert robot.widths("state") == {"arm": 4, "hand": 3}
    there = embodiment.normalise(robot, rows)
    np.testing.assert_array_equal(there[:, :4], np.concatenate([np.sin(angles), np.cos(angles)], axis=1))
    back = embodiment.denormalise(robot, there, group="state")
    np.testing.assert_allclose(back["arm"], (angles + np.pi) % (2 * np.pi) - np.pi, atol=1e-5)
    np.testing.assert_allclose(back["hand"], rows["hand"], atol=1e-4)
    with pytest.raises(EmbodimentError, match="needs 7 values"):
        embodiment.denormalise(robot, there[:, :6], group="state")


BARE = '{"arc": {"statistics": %s, "modalities": {}, "transform": 3}}'


@pytest.mark.parametrize("content", ["[1, 2]", '{"arc": []}', BARE % "[1]", BARE % "{}"])
def test_metadata_of_another_shape_is_one_clear_error(content, tmp_path):
    path = tmp_path / "metadata.json"
    path.write_text(content)
    with pytest.raises(embodiment.EmbodimentError, match=r"metadata\.json.*bridge\.embodiment\.save"):
        embodiment.load(path, "arc")
