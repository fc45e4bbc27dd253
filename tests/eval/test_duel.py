"""The duel: artifacts and runs on the same placements, each against the first."""

import json
import shutil

import numpy as np
import pytest

from bridge.transform import EmbodimentError
from eval import artifact_actor, duel, export_command, report, rollouts, runs

pytestmark = pytest.mark.usefixtures("quickly")


@pytest.fixture(scope="module")
def folder(make_acting, tmp_path_factory):
    out = tmp_path_factory.mktemp("artifacts") / "int8"
    words = ["--run", str(make_acting(0)), "--out", str(out), "--size", "32", "32", "--dtype", "int8"]
    assert export_command.main(words) == 0
    return out


def options(tmp_path, *policies, **changes):
    return duel.Config(policies, out=tmp_path, episodes=3, tasks=("drawer-open", "faucet-open"), draws=50, **changes)


def fought(asked, fake_lanes):
    return {row.id: row for row in duel.duel(asked, "it", rollouts.Farm(fake_lanes)).rows}


def test_an_artifact_against_the_run_that_it_came_from(make_acting, folder, fake_lanes, tmp_path):
    asked = options(tmp_path, f"student={make_acting(0)}", f"int8={folder}")
    rows = fought(asked, fake_lanes)
    assert list(rows) == ["duel.student.success", "duel.int8.success", "duel.int8.difference", "duel.int8.non_inferior"]
    solved = rows["duel.int8.success"]
    assert solved.n == 6
    assert solved.value == rows["duel.student.success"].value  # the fake's goals do not ask what was done
    assert rows["duel.int8.difference"].value == 0.0
    assert rows["duel.int8.non_inferior"].passed is None  # too few to judge
    assert "1,200" in rows["duel.int8.non_inferior"].needs
    assert report.read(tmp_path / "report.json").rows == tuple(rows.values())
    lines = [json.loads(line) for line in (tmp_path / "episodes.jsonl").read_text().splitlines()]
    placed = {
        name: [(one["task"], one["goal_seed"]) for one in lines if one["policy"] == name]
        for name in ("student", "int8")
    }
    assert sorted(placed["student"]) == sorted(placed["int8"])


def test_an_artifact_decides_on_the_share_that_is_asked(folder):
    whole, half = (duel.player(text).contestant for text in (f"whole={folder}", f"half={folder}@0.5"))
    full = half.policy.policy.meta["atp"]["full"]
    assert (whole.policy.atp, half.policy.atp) == (None, 0.5 * full)
    assert whole.digest != half.digest


def test_a_folder_may_have_the_sign_in_its_name(folder, tmp_path):
    place = shutil.copytree(folder, tmp_path / "a@b")
    assert duel.player(f"whole={place}").contestant.policy.atp is None
    assert duel.player(f"half={place}@0.5").contestant.policy.atp > 0


def test_a_share_that_is_none_is_refused(make_acting, folder):
    for text, words in (
        (f"half={folder}@1.5", "from 0 to 1 after @"),
        (f"half={folder}@much", "from 0 to 1 after @"),
        (f"half={folder}@", "from 0 to 1 after @"),
        (f"half={make_acting(0)}@0.5", "only an artifact decides on a share"),
    ):
        with pytest.raises(runs.RunError, match=words):
            duel.player(text)


def test_loses_are_counted_in_points():
    solved = {"one": np.ones((1, 2, 600), bool), "two": np.ones((1, 2, 600), bool)}
    solved["two"][0, :, :60] = False
    book = duel.Book(solved, "it", 200, 0)
    for name in solved:
        contestant = rollouts.Contestant(name, None, "d")
        rows = {row.id: row for row in book.rows(duel.Player(contestant, "random", "tiny", 1))}
    assert rows["duel.two.difference"].value == pytest.approx(-10.0)
    assert rows["duel.two.non_inferior"].passed is False
    assert rows["duel.two.non_inferior"].value < -10.0


def test_another_robots_artifact_is_refused():
    meta = {"views": ["front"], "state": {"joint": 7}, "actions": {"joint": 7}, "embodiment": "arm"}
    with pytest.raises(EmbodimentError, match="the artifact is for arm"):
        artifact_actor.cameras(meta)


@pytest.mark.parametrize(
    ("policies", "words"),
    [(("a=x",), "holds no run"), (("a",), "NAME=FOLDER"), (("A b=x", "c=y"), "NAME=FOLDER"), ((), "at least two")],
)
def test_bad_input_is_an_error_not_a_traceback(policies, words, tmp_path, capsys):
    assert duel.main([*policies, "--out", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err
