"""The explanation of an episode: what it says is in the records, and every decision can be made again from them."""

import html
import json

import numpy as np
import pytest

from bridge import arc
from eval import control, decisions, explain, explain_episode, explain_grid, runs
from train import cycle

pytestmark = pytest.mark.usefixtures("quickly")


@pytest.fixture(scope="module")
def explained(make_orchestrated, fake_lanes, tmp_path_factory):
    out = tmp_path_factory.mktemp("explain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explain_episode.lanes, "Lanes", lambda *_: Farm(fake_lanes()))
        code = explain.main(
            ["--run", str(make_orchestrated()), "--task", "drawer-open", "--goal", "0", "--out", str(out)]
        )
    assert code == 0
    return out


class Farm:
    """A fake farm as a context manager."""

    def __init__(self, farm):
        self._farm, farm.count = farm, 1

    def __enter__(self):
        return self._farm

    def __exit__(self, *_):
        self._farm.close()


def records(folder):
    return json.loads((folder / explain.FILE).read_text())["decisions"]


def test_a_record_says_who_what_why_and_what_it_cost(explained):
    one = records(explained)[0]
    assert {"trust", "posture", "views", "modules", "contribution", "saliency", "confidence", "atp", "sentence"} <= set(
        one
    )
    assert set(one["modules"]) == {"vision", "language", "control"}
    spent = sum(module["spent_atp"] for module in one["modules"].values())
    assert one["atp"] == pytest.approx(spent)
    assert np.sum(one["saliency"]) == pytest.approx(1, abs=1e-3)
    for module in one["modules"].values():
        assert len(module["energy"]) == module["steps"] + 1
    assert one["instruction"] in one["sentence"]


def test_contributions_are_measured_by_leaving_a_module_out(explained, make_orchestrated):
    policy = control.orchestrated(runs.load([make_orchestrated()], "last")[0], rows=1)
    with np.load(explained / explain.INPUTS) as stored:
        given = {name: value[:1] for name, value in stored.items()}
    said = policy.answer(given)
    without = policy.answer(given, cycle.Will(silence=("vision",)))
    moved = float(np.sqrt(np.square(without.actions[0] - said.actions[0]).mean()))
    assert records(explained)[0]["contribution"]["vision"] == pytest.approx(moved, rel=1e-5)
    assert moved > 0


def test_the_page_shows_every_decision(explained):
    page = (explained / "index.html").read_text()
    assert page.count("<h2>Decision ") == len(records(explained))
    assert "http" not in page.replace("http-equiv", "")


def test_every_decision_is_made_again_alike(explained, capsys):
    assert explain.main(["--out", str(explained), "--replay"]) == 0
    assert json.loads(capsys.readouterr().out)["differing"] == []


def forge_actions(about):
    about["decisions"][0]["actions"][0][0] += 0.5


def forge_sentence(about):
    about["decisions"][0]["sentence"] = "It was sure."


def forge_trust(about):
    about["decisions"][0]["trust"]["vision"] = 1.0


def drop_last(about):
    del about["decisions"][-1]


def add_one(about):
    about["decisions"].append(dict(about["decisions"][0]))


def copied(explained, folder, change):
    for name in (explain.FILE, explain.INPUTS):
        (folder / name).write_bytes((explained / name).read_bytes())
    about = json.loads((folder / explain.FILE).read_text())
    count = len(about["decisions"])
    change(about)
    (folder / explain.FILE).write_text(json.dumps(about))
    return count


@pytest.mark.parametrize(
    ("change", "where"),
    [(forge_actions, 0), (forge_sentence, 0), (forge_trust, 0), (drop_last, -1), (add_one, None)],
)
def test_a_record_that_was_changed_is_found(explained, tmp_path, capsys, change, where):
    count = copied(explained, tmp_path, change)
    assert explain.main(["--out", str(tmp_path), "--replay"]) == 1
    expected = count if where is None else where % count
    assert json.loads(capsys.readouterr().out)["differing"] == [expected]


@pytest.mark.parametrize("text", ["{", "[]", '{"run": "x"}'])
def test_damaged_records_and_other_weights_say_what_to_do(explained, tmp_path, capsys, text):
    copied(explained, tmp_path, lambda about: about.update(policy="another"))
    assert explain.main(["--out", str(tmp_path), "--replay"]) == 2
    assert "trained again" in capsys.readouterr().err
    (tmp_path / explain.FILE).write_text(text)
    assert explain.main(["--out", str(tmp_path), "--replay"]) == 2
    assert "explain anew" in capsys.readouterr().err


def test_with_an_ample_budget_no_module_stops_for_want_of_it(explained):
    halted = {module["halted"] for one in records(explained) for module in one["modules"].values()}
    assert halted <= {"planned", "max_steps", "feasible", "converged", "oscillating", "diverging"}


def test_errors_name_the_fix(make_acting, make_orchestrated, tmp_path, capsys):
    assert explain.main(["--run", str(make_acting()), "--out", str(tmp_path)]) == 2
    assert "--stage orchestration" in capsys.readouterr().err
    assert explain.main(["--run", str(make_orchestrated()), "--task", "fly", "--out", str(tmp_path)]) == 2
    assert "drawer-open" in capsys.readouterr().err
    for odd in (["--goal", "-1"], ["--atp", "nan"], ["--atp", "-2"]):
        assert explain.main([*odd, "--out", str(tmp_path)]) == 2
        assert "negative" in capsys.readouterr().err
    assert explain.main(["--out", str(tmp_path), "--replay"]) == 2
    assert "explain an episode" in capsys.readouterr().err


def test_without_a_believed_view_the_sentence_says_that_it_held_still():
    found = {
        "contribution": {"vision": 0.1}, "modules": {"vision": {"steps": 1}}, "views": {"side": False, "top": False},
        "trust": {"vision": 0.1}, "instruction": "open the drawer", "looked_at": {"place": "middle", "view": "side"},
        "atp": 1.0, "confidence": 0.5, "held": True,
    }  # fmt: skip

    class Policy:
        class student:
            modules = {}  # noqa: RUF012

    assert "held still" in decisions.sentence(found, Policy)


@pytest.fixture(scope="module")
def answered(puzzled, tmp_path_factory):
    out = tmp_path_factory.mktemp("answered")
    assert explain.main(["--run", str(puzzled), "--task", "swap", "--goal", "2", "--out", str(out)]) == 0
    return out


def test_an_answer_is_explained_and_made_again(answered, capsys):
    (one,) = records(answered)
    assert len(one["without"]) == 3
    assert one["sentence"].startswith("From 3 demonstrations it said")
    assert one["atp"] == pytest.approx(sum(module["spent_atp"] for module in one["modules"].values()))
    assert one["sentence"] in html.unescape((answered / "index.html").read_text())
    assert explain.main(["--out", str(answered), "--replay"]) == 0
    assert json.loads(capsys.readouterr().out)["differing"] == []


def test_what_a_demonstration_was_good_for_is_measured_without_it(answered, puzzled):
    """A query with its second demonstration blanked out is answered as the record says it is without it."""
    (one,) = records(answered)
    with np.load(answered / explain.INPUTS) as stored:
        cells = stored["cells"]
    thinker = explain_grid.Thinker(runs.load([puzzled], "last")[0].student)
    shown = np.ones((1, 7), bool)
    shown[0, 2:4] = False
    changed = cells.copy()
    changed[2:4] = 10
    said = thinker(explain_grid.arc_tasks.render(changed)[None, :, None], atp=cycle.PLENTY, shown=shown)
    assert int((said.codes[0] != np.array(one["answer"])).sum()) == one["without"][1]["cells"]


def test_a_grid_that_is_not_there_is_an_error(puzzled, tmp_path, capsys):
    assert explain.main(["--run", str(puzzled), "--task", "fly", "--out", str(tmp_path)]) == 2
    assert "recolour" in capsys.readouterr().err
    assert explain.main(["--run", str(puzzled), "--condition", "covered", "--out", str(tmp_path)]) == 2
    assert "nothing disturbs" in capsys.readouterr().err


def test_tasks_that_are_reported_are_not_looked_at():
    """ARC-2's training set holds most of ARC-1's evaluation tasks again."""
    reported = [task.id for task in arc.splits(1)["test"]]
    again = {task.id for task in arc.load(2)["training"]}
    for name in (reported[0], next(name for name in reported if name in again)):
        with pytest.raises(runs.RunError, match="no family"):
            explain_grid.find(name, 0, most=0)
    assert explain_grid.find(arc.splits(1)["validation"][0].id, 0, most=0).index == 0
