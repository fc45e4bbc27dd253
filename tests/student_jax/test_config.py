import dataclasses
import json

import pytest

from student_jax import config, presets, sizes

TILES = config.Target(width=8, grid=4, columns=3, rows=2, thumbnail=True)


def test_a_target_counts_its_tokens():
    assert config.Target(2048, 16).tokens == 256
    assert TILES.tiles == 7
    assert TILES.tokens == 112


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_configs_survive_json(preset):
    robot = {"task": "robot", "robot": ROBOT} if preset in ("standin_small", "standin_large") else {}
    made = presets.make(preset, TILES, **robot)
    assert config.from_dict(json.loads(json.dumps(dataclasses.asdict(made)))) == made


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(ValueError, match=r"tiny, standin, .*sage_48m"):
        presets.make("sage48m", TILES)


def test_foreign_config_is_refused():
    with pytest.raises(ValueError, match="vision"):
        config.from_dict({"target": dataclasses.asdict(TILES)})


@pytest.mark.parametrize("change", [{"patch": 7}, {"heads": 5}, {"max_steps": 0}])
def test_impossible_sizes_are_refused(change):
    with pytest.raises(ValueError, match="VisionConfig needs"):
        dataclasses.replace(presets.make("tiny", TILES).vision, **change)


def test_impossible_target_is_refused():
    with pytest.raises(ValueError, match="Target needs"):
        config.Target(width=8, grid=0)


ROBOT = config.Robot(sizes.ActionSpace(horizon=4, width=3, state=5), frames=2, objects=2)


@pytest.mark.parametrize("preset", ["tiny", "standin", "sage_48m"])
def test_configs_of_robots_survive_json(preset):
    made = presets.make(preset, TILES, task="robot", robot=ROBOT)
    assert made.actions == ROBOT.actions
    assert made.vision.objects == 2
    assert config.from_dict(json.loads(json.dumps(dataclasses.asdict(made)))) == made


def test_configs_from_before_the_robot_can_be_read_and_unknown_fields_cannot():
    made = presets.make("tiny", TILES)
    old = dataclasses.asdict(made)
    del old["language"], old["control"], old["actions"], old["vision"]["objects"]
    assert config.from_dict(old) == made
    with pytest.raises(ValueError, match="memory"):
        config.from_dict(old | {"memory": None})


@pytest.mark.parametrize(("task", "robot"), [("robot", None), ("arc", ROBOT)])
def test_a_task_needs_its_own_sizes(task, robot):
    with pytest.raises(ValueError, match="make needs task"):
        presets.make("tiny", TILES, task=task, robot=robot)


def test_a_control_needs_language_and_actions():
    made = presets.make("tiny", TILES, task="robot", robot=ROBOT)
    with pytest.raises(ValueError, match="needs a language"):
        dataclasses.replace(made, language=None)
    with pytest.raises(ValueError, match="together"):
        dataclasses.replace(made, actions=None)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda made: dataclasses.replace(made.language, heads=5), "LanguageConfig needs"),
        (lambda made: dataclasses.replace(made.control, blocks=0), "ControlConfig needs"),
        (lambda made: dataclasses.replace(made.actions, state=0), "ActionSpace needs"),
        (lambda made: dataclasses.replace(made.vision, objects=-1), "VisionConfig needs"),
    ],
)
def test_impossible_sizes_of_a_robot_are_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        change(presets.make("tiny", TILES, task="robot", robot=ROBOT))
