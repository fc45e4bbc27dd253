import dataclasses
import json

import pytest

from student_jax import config

TILES = config.Target(width=8, grid=4, columns=3, rows=2, thumbnail=True)


def test_a_target_counts_its_tokens():
    assert config.Target(2048, 16).tokens == 256
    assert TILES.tiles == 7
    assert TILES.tokens == 112


@pytest.mark.parametrize("preset", config.PRESETS)
def test_configs_survive_json(preset):
    made = config.make(preset, TILES)
    assert config.from_dict(json.loads(json.dumps(dataclasses.asdict(made)))) == made


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(ValueError, match="tiny, standin, sage_48m"):
        config.make("sage48m", TILES)


def test_foreign_config_is_refused():
    with pytest.raises(ValueError, match="vision"):
        config.from_dict({"target": dataclasses.asdict(TILES)})


@pytest.mark.parametrize("change", [{"patch": 7}, {"heads": 5}, {"max_steps": 0}])
def test_impossible_sizes_are_refused(change):
    with pytest.raises(ValueError, match="VisionConfig needs"):
        dataclasses.replace(config.make("tiny", TILES).vision, **change)


def test_impossible_target_is_refused():
    with pytest.raises(ValueError, match="Target needs"):
        config.Target(width=8, grid=0)
